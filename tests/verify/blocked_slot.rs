//! A source transaction that writes for a long time holds up every new slot: verify gives up in
//! time, names it, and leaves nothing behind.

use std::time::{Duration, Instant};

use frazil::verify::Options;

use super::{Scene, assert_equal};

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_way_is_named() {
    let scene = Scene::copied("CREATE TABLE t(id bigint PRIMARY KEY, v text)").await;
    let blocker = scene.postgres.client().await;
    blocker.batch_execute("BEGIN; INSERT INTO t VALUES (1, 'open')").await.unwrap();
    let pid: i32 = blocker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let options = Options { slot_timeout: Duration::from_millis(700), ..Options::default() };
    let since = Instant::now();
    let error = scene.try_verify("*", &options).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("SLOT_BLOCKED", 69), "{error}");
    for part in [&format!("pid {pid} "), "idle in transaction"] {
        assert!(error.to_string().contains(part), "no `{part}` in {error}");
    }
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    let slots = scene.sql("SELECT slot_name FROM pg_replication_slots").await;
    assert_eq!(slots, [vec![Some("frazil".to_owned())]]);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_equal(&scene.verify().await);
}
