//! The source is read only: no transaction of ours gets a number, no slot, no session and no lock
//! stays, and a role that may only read and replicate is enough.

use super::{Scene, settings};
use std::sync::Arc;

use frazil::iceberg::lake::Lake;
use frazil::postgres::dsn::Source;
use frazil::verify::{Options, verify};
use indicatif::ProgressBar;

const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_replication_slots)::text,
           (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'frazil/verify%')::text,
           (SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass)::text,
           pg_snapshot_xmax(pg_current_snapshot())::text";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_and_nothing_is_written() {
    let scene = Scene::copied(
        "CREATE TABLE t(id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');
         CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON t TO reader;
         ALTER ROLE reader SET default_transaction_read_only = on;
         ALTER ROLE reader SET datestyle = 'German'; ALTER ROLE reader SET bytea_output = 'escape'",
    )
    .await;
    let before = scene.sql(LEFT).await;
    let dsn = scene.postgres.dsn().replace("postgres@", "reader@");
    let lake = Arc::new(Lake::in_folder(scene.folder.path(), "frazil").await.unwrap());
    let source = Source::parse(&dsn).unwrap();
    let (settings, options) = (settings("*"), Options::default());
    let report = verify(&source, &lake, &settings, &options, &ProgressBar::hidden()).await.unwrap();
    assert!(report.equal);
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'frazil/verify%'";
    // The server notices the end of a plain session a moment later.
    while scene.postgres.value(gone).await != "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(scene.sql(LEFT).await, before);
}
