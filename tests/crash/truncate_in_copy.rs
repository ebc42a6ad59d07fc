//! A TRUNCATE (or ALTER TABLE, or VACUUM FULL) arrives while tables are copied: it waits, the copy
//! does not wait for it, and nobody waits for ever (case 134).

use std::time::Duration;

use super::{SCHEMA, assert_whole, ends, run};
use crate::support::postgres::{Postgres, PostgresOptions};

// cases: 134 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_in_the_initial_snapshot_ends_with_it() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let fill = "INSERT INTO bank.log SELECT i, md5(i::text) FROM generate_series(1, 100000) i";
    postgres.sql(fill).await;
    let folder = tempfile::tempdir().unwrap();
    let client = postgres.client().await;
    let truncating = tokio::spawn(async move {
        for _ in 0..400 {
            client.batch_execute("TRUNCATE bank.notes").await.unwrap();
            client.batch_execute("INSERT INTO bank.notes VALUES (1, 1, 'x')").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut frazil = run(&postgres, folder.path(), "frazil").arg("--initial-snapshot=only").spawn();
    assert!(ends(&mut frazil, Duration::from_secs(90)), "hangs:\n{}", frazil.stderr());
    frazil.wait(Duration::from_secs(30)).succeeded();
    truncating.await.unwrap();
    assert_whole(&postgres, folder.path(), "frazil").await;
}
