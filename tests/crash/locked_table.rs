//! Somebody holds a table locked for long: other tables' changes reach the lake, and the server
//! hears from frazil (case 12).

use std::time::Duration;

use super::{Load, SCHEMA, assert_monotone, assert_whole, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

// cases: 12 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_does_not_hold_up_the_others() {
    let options = PostgresOptions::default().set("wal_sender_timeout", "2s");
    let postgres = Postgres::start(options).await;
    postgres.sql(SCHEMA).await;
    postgres.sql("CREATE TABLE bank.locked(id int PRIMARY KEY, at int DEFAULT 1)").await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 16);
    let pid = "SELECT pid FROM pg_stat_replication";
    let before = postgres.value(pid).await;
    let locker = postgres.client().await;
    let lock = "BEGIN; LOCK TABLE bank.locked; ALTER TABLE bank.locked ADD COLUMN b int DEFAULT 7";
    locker.batch_execute(lock).await.unwrap();
    // Other tables change their shape meanwhile: frazil looks into the source's catalog.
    postgres.sql("ALTER TABLE bank.credit ADD COLUMN b int DEFAULT 7").await;
    postgres.sql("ANALYZE bank.debit; ALTER TABLE bank.debit SET (fillfactor = 90)").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let at = assert_monotone(&Lake::open(folder.path()).state(), "frazil");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = assert_monotone(&Lake::open(folder.path()).state(), "frazil");
    assert_eq!(postgres.value(pid).await, before, "{}", frazil.stderr());
    assert!(later > at + 3, "the lake waits for the lock: {at} lake commits, then {later}");
    locker.batch_execute("COMMIT").await.unwrap();
    load.end().await;
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(30)).succeeded();
    assert_whole(&postgres, folder.path(), "frazil").await;
}
