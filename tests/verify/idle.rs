//! A source at rest: the lake's position may stand before the snapshot's for minutes, and verify
//! neither waits for it nor moves it.

use std::time::{Duration, Instant};

use frazil::verify::Options;

use super::{Scene, assert_equal};

// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_compared_at_once() {
    let scene = Scene::copied(
        "CREATE TABLE t(id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, NULL);
         CREATE TABLE other(id int PRIMARY KEY)",
    )
    .await;
    // WAL that no lake needs: P stays where it is.
    scene.sql("CREATE TABLE unpublished AS SELECT g FROM generate_series(1, 1000) g").await;
    scene.sql("BEGIN; INSERT INTO t VALUES (3, 'never'); ROLLBACK").await;
    let since = Instant::now();
    let report = scene.verify().await;
    assert_equal(&report);
    assert!(report.position < report.snapshot_position, "{report:?}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

/// What changed since P is not guessed at.
// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_behind_is_said_to_be() {
    let scene = Scene::copied(
        "CREATE TABLE t(id bigint PRIMARY KEY, v text); CREATE TABLE u(id int PRIMARY KEY)",
    )
    .await;
    scene.sql("INSERT INTO t VALUES (1, 'a')").await;
    let options = Options { timeout: Duration::from_secs(2), ..Options::default() };
    let error = scene.try_verify("*", &options).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("TIMEOUT", 75), "{error}");
    assert!(error.to_string().contains("the lake stands at "), "{error}");
    assert!(error.cure().unwrap().contains("frazil run is not running"), "{error}");
    // The other table can be compared all the same.
    assert_equal(&scene.try_verify("public.u", &options).await.unwrap());
}
