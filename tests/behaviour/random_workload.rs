//! A random workload over twelve tables, followed in several runs, gives the source's rows: key
//! changes, unchanged TOAST, truncates, rollbacks and savepoints included.

use std::time::Duration;

use crate::support::frazil::{Frazil, until_caught_up};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::workload::Workload;

/// Row changes in CI; `FRAZIL_CHANGES` for the long count, which is ten times this.
const CHANGES: usize = 20_000;
const SEED: u64 = 20_261_121;

// cases: 63 64 65 66 67 68 69 70 71 72 74 76 77 78 80 81 holds
// cases: 63 65 67 76 81 125 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_lake_equals_the_source_after_a_random_workload() {
    let changes = std::env::var("FRAZIL_CHANGES").map_or(CHANGES, |n| n.parse().unwrap());
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let client = postgres.client().await;
    let mut workload = Workload::new(SEED);
    client.batch_execute(&workload.schema_sql()).await.unwrap();
    workload.run(&client, changes / 10).await;

    let mut frazil =
        Frazil::run(&postgres.dsn(), folder.path()).arg("--commit-interval=200ms").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let stats = workload.run(&client, changes).await;
    eprintln!("{stats:?}");
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(60)).succeeded();
    until_caught_up(&postgres.dsn(), folder.path()).succeeded();
    let mut lake = Lake::open(folder.path());
    lake.assert_equal(&postgres, &workload.tables()).await;

    workload.run(&client, changes / 10).await;
    until_caught_up(&postgres.dsn(), folder.path()).succeeded();
    lake.assert_equal(&postgres, &workload.tables()).await;
}
