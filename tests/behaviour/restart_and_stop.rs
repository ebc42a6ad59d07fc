//! Starting again, stopping, catching up, and which tables are copied.

use std::time::{Duration, Instant};

use super::scene::{Scene, following, lsn, metadata, stop, summaries};
use crate::support::frazil::DEADLINE;

const TABLES: &str = "CREATE TABLE a(id int PRIMARY KEY, v text); CREATE TABLE b(id int PRIMARY KEY); \
     CREATE SCHEMA s; CREATE TABLE s.c(id int PRIMARY KEY); CREATE TABLE audit_x(id int PRIMARY KEY); \
     INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (1); INSERT INTO s.c VALUES (1);";
/// For runs that end by themselves on a database where nothing happens.
const QUICKLY: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_goes_on() {
    let mut scene = Scene::new(TABLES).await;
    for round in 2..6 {
        scene.catch_up().succeeded();
        scene
            .sql(&format!(
                "INSERT INTO a VALUES ({round}, 'r'); DELETE FROM a WHERE id = {round} - 1"
            ))
            .await;
        scene.assert_catches_up(&["public.a", "public.b", "s.c"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn catching_up_on_an_idle_database_is_a_ledger_only_commit() {
    let mut scene = Scene::new(TABLES).await;
    scene.catch_up().succeeded();
    let before = scene.lake.state();
    scene.sql("CREATE TABLE not_followed(id int); INSERT INTO not_followed VALUES (1)").await;
    let now = lsn(&scene.postgres.value("SELECT pg_current_wal_lsn()").await);
    let since = Instant::now();
    scene.catch_up().succeeded();
    assert!(since.elapsed() < QUICKLY, "{:?}", since.elapsed());
    assert!(scene.position() >= now);
    let after = scene.lake.state();
    for table in ["public.a", "public.b", "s.c"] {
        assert_eq!(before.location(table), after.location(table), "{table}");
    }
}

/// The insert position then stands behind a page header that the server never reports as reached.
#[tokio::test(flavor = "multi_thread")]
async fn catching_up_after_a_wal_switch_ends() {
    let mut scene = Scene::new(TABLES).await;
    scene.catch_up().succeeded();
    scene.sql("INSERT INTO a VALUES (2, 'x')").await;
    scene.sql("SELECT pg_switch_wal()").await;
    let run = scene.run().arg("--until-caught-up").spawn();
    let since = Instant::now();
    run.wait(QUICKLY).succeeded();
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    scene.assert_equal(&["public.a"]).await;
}

/// An open source transaction has written WAL that no one has flushed yet.
#[tokio::test(flavor = "multi_thread")]
async fn catching_up_beside_an_open_transaction_ends() {
    let mut scene = Scene::new(TABLES).await;
    scene.catch_up().succeeded();
    let open = scene.postgres.client().await;
    open.batch_execute("BEGIN; INSERT INTO a VALUES (50, 'open')").await.unwrap();
    let since = Instant::now();
    let run = scene.run().arg("--until-caught-up").spawn();
    run.wait(Duration::from_secs(60)).succeeded();
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    assert_eq!(scene.lake.query_now("SELECT count(*) FROM {public.a}")[0][0].as_deref(), Some("1"));
    open.batch_execute("COMMIT").await.unwrap();
    scene.assert_catches_up(&["public.a"]).await;
}

/// What was committed asynchronously just before the start belongs to it.
#[tokio::test(flavor = "multi_thread")]
async fn catching_up_sees_asynchronous_commits() {
    let mut scene = Scene::new(TABLES).await;
    scene.catch_up().succeeded();
    for id in 2..6 {
        scene.sql("SELECT pg_switch_wal()").await;
        let insert = format!("SET synchronous_commit = off; INSERT INTO a VALUES ({id}, 'async')");
        scene.sql(&insert).await;
        scene.assert_catches_up(&["public.a"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn catching_up_under_load_ends() {
    let mut scene = Scene::new(TABLES).await;
    scene.catch_up().succeeded();
    let load = load(&scene, "b");
    let run = scene.run().arg("--until-caught-up").spawn();
    run.wait(QUICKLY).succeeded();
    load.abort();
    let _ = load.await;
    scene.assert_catches_up(&["public.a", "public.b"]).await;
}

/// Inserts into `table` until it is aborted.
fn load(scene: &Scene, table: &'static str) -> tokio::task::JoinHandle<()> {
    let dsn = scene.postgres.dsn();
    tokio::spawn(async move {
        let (client, connection) =
            tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for from in 0.. {
            let from = 1000 + from * 50;
            let sql = format!("INSERT INTO {table} SELECT generate_series({from}, {from} + 49)");
            client.batch_execute(&sql).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_commits_what_is_complete() {
    let mut scene = Scene::new(TABLES).await;
    let load = load(&scene, "b");
    for _ in 0..3 {
        let running = following(scene.run_every("1h").spawn());
        tokio::time::sleep(Duration::from_millis(400)).await;
        let before = scene.position();
        stop(running);
        let position = scene.position();
        assert!(position > before, "nothing was committed at the stop");
        let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
        assert_eq!(lsn(&scene.postgres.value(confirmed).await), position);
    }
    load.abort();
    let _ = load.await;
    scene.assert_catches_up(&["public.b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_initial_snapshot_begins_again() {
    let mut scene = Scene::new(TABLES).await;
    scene.sql("INSERT INTO a SELECT g, repeat('x', 100) FROM generate_series(2, 400000) g").await;
    let running = scene.run().spawn();
    tokio::time::sleep(Duration::from_millis(400)).await;
    running.signal("INT");
    running.wait(QUICKLY).succeeded();
    scene.assert_catches_up(&["public.a", "public.b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let mut scene = Scene::new(TABLES).await;
    let mut running = following(scene.run_every("1h").spawn());
    scene.sql("INSERT INTO b SELECT generate_series(1000, 400000)").await;
    running.signal("TERM");
    running.wait_for_log("stopping", QUICKLY);
    running.signal("TERM");
    let since = Instant::now();
    let ended = running.wait(QUICKLY);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert!(matches!(ended.code, Some(0 | 130)), "{:?}", ended.code);
    scene.assert_catches_up(&["public.b"]).await;
}

/// A stop that cannot commit must not look like one that could.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_lake_commit_fails_says_so() {
    let scene = Scene::new(TABLES).await;
    let running = following(scene.run_every("1h").spawn());
    scene.sql("INSERT INTO a VALUES (2, 'x')").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::rename(scene.lake.folder().join("public"), scene.path("moved")).unwrap();
    std::fs::write(scene.lake.folder().join("public"), "in the way").unwrap();
    running.signal("TERM");
    let ended = running.wait(DEADLINE);
    assert!(ended.stderr.contains("error[") || ended.stderr.contains("WARN"), "{}", ended.stderr);
    assert_ne!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_initial_snapshot_can_be_left_out_or_be_all() {
    let mut scene = Scene::new(TABLES).await;
    scene.run().arg("--initial-snapshot=never").arg("--until-caught-up").finish().succeeded();
    let count =
        |lake: &mut crate::support::lake::Lake| lake.query_now("SELECT count(*) FROM {public.a}");
    assert_eq!(count(&mut scene.lake)[0][0].as_deref(), Some("0"));
    scene.sql("INSERT INTO a VALUES (2, 'x')").await;
    scene.catch_up().succeeded();
    assert_eq!(count(&mut scene.lake)[0][0].as_deref(), Some("1"));

    let mut scene = Scene::new(TABLES).await;
    scene.run().arg("--initial-snapshot=only").finish().succeeded();
    scene.assert_equal(&["public.a", "public.b", "s.c"]).await;
    scene.sql("INSERT INTO a VALUES (2, 'x')").await;
    // A second time there is nothing to copy.
    scene.run().arg("--initial-snapshot=only").finish().succeeded();
    assert_eq!(count(&mut scene.lake)[0][0].as_deref(), Some("1"));
    scene.assert_catches_up(&["public.a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_chosen_by_patterns() {
    let mut scene = Scene::new(TABLES).await;
    let run = |scene: &Scene| {
        scene.run().arg("--until-caught-up").arg("--tables=public.*,!public.audit_*").finish()
    };
    run(&scene).succeeded();
    let state = scene.lake.state();
    let mut tables: Vec<_> = state.tables().filter(|t| !t.starts_with("frazil.")).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["public.a", "public.b"]);
    scene.sql("INSERT INTO s.c VALUES (2); INSERT INTO audit_x VALUES (2); INSERT INTO a VALUES (2, 'y')").await;
    run(&scene).succeeded();
    scene.assert_equal(&["public.a", "public.b"]).await;
}

/// A publication made by the user shows more tables than are wanted.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_among_published_tables() {
    let mut scene = Scene::new(TABLES).await;
    scene.sql("CREATE PUBLICATION frazil FOR ALL TABLES").await;
    let run =
        |scene: &Scene| scene.run().arg("--until-caught-up").arg("--tables=public.a").finish();
    run(&scene).succeeded();
    scene.sql("INSERT INTO b VALUES (2); INSERT INTO a VALUES (2, 'y'); TRUNCATE b, s.c").await;
    run(&scene).succeeded();
    scene.assert_equal(&["public.a"]).await;
    assert!(!scene.lake.state().tables().any(|table| table == "public.b"));
}

/// WAL of another database is released by an idle position (case 10), and windows are as long as
/// before afterwards.
// cases: 10 holds
#[tokio::test(flavor = "multi_thread")]
async fn wal_of_another_database_is_acknowledged() {
    let mut scene = Scene::new(TABLES).await;
    scene.sql("CREATE DATABASE elsewhere").await;
    let running = following(scene.run_every("2s").spawn());
    let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
    let before = lsn(&scene.postgres.value(confirmed).await);
    let (client, connection) =
        tokio_postgres::connect(&scene.postgres.dsn_of("elsewhere"), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE w(t text)").await.unwrap();
    client
        .batch_execute(
            "INSERT INTO w SELECT repeat(md5(g::text), 30) FROM generate_series(1, 75000) g",
        )
        .await
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while lsn(&scene.postgres.value(confirmed).await) < before + (64 << 20) {
        assert!(Instant::now() < end, "not acknowledged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let commits = summaries(&scene.ledger()).len();
    for id in 100..115 {
        scene.sql(&format!("INSERT INTO a VALUES ({id}, 'x')")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let more = summaries(&scene.ledger()).len() - commits;
    assert!(more <= 3, "{more} lake commits in 3 s at an interval of 2 s");
    stop(running);
    scene.assert_equal(&["public.a"]).await;
    assert!(metadata(&scene.lake.state(), "public.a")["snapshots"].as_array().is_some());
}
