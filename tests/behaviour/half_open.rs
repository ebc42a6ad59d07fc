//! A connection that is open on our side only: the server is asked for a sign of life, and when
//! none comes frazil connects again.

use std::time::Duration;

use super::scene::{Scene, following, stop};
use crate::support::frazil::{DEADLINE, Frazil};
use crate::support::postgres::PostgresOptions;
use crate::support::wire_proxy::WireProxy;

// cases: 13 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_given_up() {
    let options = PostgresOptions::default().set("wal_sender_timeout", "3s");
    let sql = "CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut scene = Scene::with(options, sql).await;
    let proxy = WireProxy::start(scene.postgres.port()).await;
    let dsn = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let run = Frazil::run(&dsn, scene.lake.folder()).arg("--commit-interval=100ms");
    let mut running = following(run.spawn());
    scene.sql("INSERT INTO t VALUES (2)").await;
    scene.wait_until_the_lake_holds_it().await;
    let before = proxy.accepted();
    proxy.freeze();
    scene.sql("INSERT INTO t VALUES (3)").await;
    running.wait_for_log("SERVER_SILENT", DEADLINE);
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    assert!(proxy.accepted() > before);
    stop(running);
}

// cases: 12 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_is_kept() {
    let options = PostgresOptions::default().set("wal_sender_timeout", "2s");
    let mut scene = Scene::with(options, "CREATE TABLE t(id int PRIMARY KEY)").await;
    let running = scene.started();
    let walsender = "SELECT active_pid FROM pg_replication_slots";
    let before = scene.postgres.value(walsender).await;
    // Three times the patience of both sides.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(scene.postgres.value(walsender).await, before);
    scene.sql("INSERT INTO t VALUES (1)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(running);
}
