//! `kill -9` of frazil at random times, in the initial snapshot and in the stream, under load.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Load, SCHEMA, assert_balanced, assert_whole, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::workload::Workload;

/// Kills in CI; `FRAZIL_ROUNDS` for more.
const ROUNDS: usize = 30;

// cases: 5 127 155 holds
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_times_it_goes_on_where_the_lake_stands() {
    let rounds = std::env::var("FRAZIL_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    let seed = std::env::var("FRAZIL_SEED").map_or(7, |n| n.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let client = postgres.client().await;
    let mut workload = Workload::new(seed);
    client.batch_execute(&workload.schema_sql()).await.unwrap();
    client.batch_execute(SCHEMA).await.unwrap();
    workload.run(&client, 1000).await;
    let folder = tempfile::tempdir().unwrap();
    let load = Load::start(&postgres, seed);
    let mut lake = Lake::open(folder.path());
    for round in 0..rounds {
        let frazil = run(&postgres, folder.path(), "frazil").spawn();
        let alive_ms = random.random_range(30..900);
        workload.run(&client, 50).await;
        tokio::time::sleep(Duration::from_millis(alive_ms)).await;
        frazil.kill9();
        let state = lake.state();
        if state.tables().any(|table| table == "bank.debit") {
            assert_balanced(&mut lake, &state);
        }
        if round % 10 == 9 {
            load.pause(&client).await;
            assert_whole(&postgres, folder.path(), "frazil").await;
            lake.assert_equal(&postgres, &workload.tables()).await;
            load.resume();
        }
    }
    eprintln!("{} transactions over {rounds} kills", load.end().await);
    assert_whole(&postgres, folder.path(), "frazil").await;
    lake.assert_equal(&postgres, &workload.tables()).await;
}

// cases: 135 155 holds
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_initial_snapshot_it_begins_again() {
    let mut random = StdRng::seed_from_u64(11);
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let client = postgres.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    client
        .batch_execute(
            "INSERT INTO bank.log SELECT i, md5(i::text) FROM generate_series(1, 300000) i",
        )
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let load = Load::start(&postgres, 11);
    for _ in 0..10 {
        let frazil = run(&postgres, folder.path(), "frazil").spawn();
        tokio::time::sleep(Duration::from_millis(random.random_range(20..500))).await;
        frazil.kill9();
    }
    load.pause(&client).await;
    assert_whole(&postgres, folder.path(), "frazil").await;
    load.resume();
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end().await;
    assert_whole(&postgres, folder.path(), "frazil").await;
}
