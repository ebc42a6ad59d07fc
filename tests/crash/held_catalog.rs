//! Another process holds catalog.db: frazil waits or tries again, and the server hears from it all
//! the while (cases 12, 152).

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{Load, SCHEMA, assert_monotone, assert_whole, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

/// Holds the write lock of the lake's catalog.
fn hold(folder: &Path) -> Connection {
    let catalog = Connection::open(folder.join("catalog.db")).unwrap();
    catalog.busy_timeout(Duration::from_secs(20)).unwrap();
    catalog.execute_batch("BEGIN EXCLUSIVE").unwrap();
    catalog
}

// cases: 12 152 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_connection_outlives_a_stalled_sink() {
    let options = PostgresOptions::default().set("wal_sender_timeout", "2s");
    let postgres = Postgres::start(options).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 6);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let pid = "SELECT pid FROM pg_stat_replication";
    let before = postgres.value(pid).await;
    let held = hold(folder.path());
    let at = assert_monotone(&Lake::open(folder.path()).state(), "frazil");
    // New shapes meanwhile: what frazil asks the source then must not keep it from the server.
    postgres.sql("ALTER TABLE bank.log ADD COLUMN more int DEFAULT 5").await;
    tokio::time::sleep(Duration::from_millis(7_500)).await;
    let during = assert_monotone(&Lake::open(folder.path()).state(), "frazil");
    assert!(during <= at + 1, "the lake was not held: {at} lake commits, then {during}");
    assert_eq!(postgres.value(pid).await, before, "{}", frazil.stderr());
    drop(held);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(postgres.value(pid).await, before, "{}", frazil.stderr());
    assert_eq!(frazil.stderr().matches("following the stream").count(), 1, "{}", frazil.stderr());
    load.end().await;
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(30)).succeeded();
    assert_whole(&postgres, folder.path(), "frazil").await;
}

// cases: 152 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_held_for_longer_is_tried_again() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 8);
    let held = hold(folder.path());
    frazil.wait_for_log("CATALOG_BUSY", Duration::from_secs(30));
    drop(held);
    load.end().await;
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(30)).succeeded();
    assert_whole(&postgres, folder.path(), "frazil").await;
}
