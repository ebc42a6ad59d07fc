//! frazil ends at each named point of the data path, at its first, second and third pass, as by
//! `kill -9`; the next start goes on (cases 3, 5, 127, 135, 144, 145).

use std::time::Duration;

use super::{Load, SCHEMA, assert_whole, ends, run};
use crate::support::postgres::{Postgres, PostgresOptions};

const POINTS: [&str; 7] = [
    "segment_written",
    "files_written",
    "manifest_written",
    "before_catalog_commit",
    "after_catalog_commit",
    "before_acknowledge",
    "after_acknowledge",
];

fn at(point: &str, pass: usize) -> String {
    match pass {
        1 => format!("{point}=return"),
        _ => format!("{point}={}*off->return", pass - 1),
    }
}

// cases: 5 127 144 145 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_of_the_stream_loses_nothing() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let client = postgres.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    super::catch_up(&postgres, folder.path(), "frazil");
    let load = Load::start(&postgres, 1);
    for point in POINTS {
        for pass in 1..=3 {
            let points = at(point, pass);
            let mut frazil = run(&postgres, folder.path(), "frazil").failpoints(&points).spawn();
            assert!(ends(&mut frazil, Duration::from_secs(90)), "never came to {points}");
            let ended = frazil.wait(Duration::from_secs(30));
            assert_eq!(ended.code, None, "not aborted at {points}:\n{}", ended.stderr);
        }
        load.pause(&client).await;
        eprintln!("after the crashes at {point}, {} transactions", load.done());
        assert_whole(&postgres, folder.path(), "frazil").await;
        load.resume();
    }
    load.end().await;
}

// cases: 135 144 145 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_from_the_first_start_on_loses_nothing() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let client = postgres.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let load = Load::start(&postgres, 2);
    for point in POINTS {
        for pass in 1..=3 {
            let folder = tempfile::tempdir().unwrap();
            let (points, slot) = (at(point, pass), format!("{point}_{pass}"));
            let mut frazil = run(&postgres, folder.path(), &slot).failpoints(&points).spawn();
            assert!(ends(&mut frazil, Duration::from_secs(90)), "never came to {points}");
            let ended = frazil.wait(Duration::from_secs(30));
            assert_eq!(ended.code, None, "not aborted at {points}:\n{}", ended.stderr);
            // A second start that ends in the middle, where the first had not begun to copy.
            let again = run(&postgres, folder.path(), &slot).failpoints(&at("files_written", 1));
            let _ = again.spawn().wait(Duration::from_secs(30));
            load.pause(&client).await;
            assert_whole(&postgres, folder.path(), &slot).await;
            load.resume();
            let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
            super::until("the slot is free", Duration::from_secs(30), async || {
                client.batch_execute(&drop).await.is_ok()
            })
            .await;
        }
    }
    load.end().await;
}
