//! No reader ever sees half a source transaction: two tables' sums agree at every lake commit,
//! while frazil is killed and started again (cases 121, 127).

use std::time::{Duration, Instant};

use super::{Load, SCHEMA, assert_balanced, assert_whole, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

// cases: 121 127 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_the_lake_holds_whole_transactions() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let client = postgres.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    super::catch_up(&postgres, folder.path(), "frazil");
    let load = Load::start(&postgres, 3);
    let mut lake = Lake::open(folder.path());
    let (mut seen, mut last) = (0, None);
    for _ in 0..4 {
        let frazil = run(&postgres, folder.path(), "frazil").spawn();
        // Three seconds, and longer where the machine is busy.
        let (soon, end) = (Duration::from_secs(3), Instant::now() + Duration::from_secs(30));
        let (since, before) = (Instant::now(), seen);
        while since.elapsed() < soon || (seen < before + 6 && Instant::now() < end) {
            let state = lake.state();
            if last.as_ref() != Some(&state) {
                assert_balanced(&mut lake, &state);
                seen += 1;
                last = Some(state);
            }
        }
        frazil.kill9();
    }
    assert!(seen > 20, "only {seen} states were seen");
    eprintln!("{seen} states of the lake, {} transactions", load.end().await);
    assert_whole(&postgres, folder.path(), "frazil").await;
}
