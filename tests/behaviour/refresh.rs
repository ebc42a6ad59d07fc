//! A table is copied afresh while the others stream on: what was committed meanwhile is in it, it
//! comes back in one lake commit, and a crash begins it again.

use std::time::{Duration, Instant};

use super::scene::{Scene, following, metadata, stop, summaries};
use crate::support::frazil::{DEADLINE, Frazil};

const TABLES: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     CREATE TABLE other(id int PRIMARY KEY); CREATE TABLE lock_me(id int PRIMARY KEY); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 2000) g;";

const BOTH: &[&str] = &["public.t", "public.other"];

// cases: 107 137 holds
#[tokio::test(flavor = "multi_thread")]
async fn changes_during_the_copy_are_in_it_and_the_others_go_on() {
    let mut scene = Scene::new(TABLES).await;
    let running = scene.started();
    // A source transaction that writes holds up every new slot.
    let holds_up = scene.postgres.client().await;
    holds_up.batch_execute("BEGIN; INSERT INTO lock_me VALUES (1)").await.unwrap();
    scene.sql("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()").await;
    scene.sql("INSERT INTO t VALUES (3000, 'during', 1)").await;
    let mut next = 1;
    while scene.behind() == "{}" {
        scene.sql(&format!("INSERT INTO other VALUES ({next})")).await;
        next += 1;
        scene.wait_for_commit().await;
    }
    assert!(scene.behind().contains("public.t"), "{}", scene.behind());
    // The others go on, and what comes for the table waits.
    for id in 1..=5 {
        scene.sql(&format!("UPDATE t SET a = 'during {id}' WHERE id % 7 = {id}")).await;
        scene.sql(&format!("DELETE FROM t WHERE id = {id}")).await;
        scene.sql(&format!("INSERT INTO other VALUES (1000 + {id})")).await;
    }
    let other = scene.position_now().await;
    scene.wait_for(other).await;
    scene.assert_equal(&["public.other"]).await;
    let state = scene.lake.state();
    assert_eq!(
        scene.lake.query(&state, "SELECT count(*) FROM {public.t}")[0][0].as_deref(),
        Some("2000")
    );
    let commits = scene.ledger()["snapshots"].as_array().unwrap().len();
    holds_up.batch_execute("COMMIT").await.unwrap();
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(BOTH).await;
    assert!(commits > 1, "the others' lake commits went on: {commits}");
    let table = metadata(&scene.lake.state(), "public.t");
    let made: Vec<_> =
        summaries(&table).iter().filter_map(|s| s["frazil.lake-commit"].as_str()).collect();
    assert_eq!(made.len(), 2, "the first copy and the second one, in one lake commit each");
    stop(running);
}

// cases: 135 holds
#[tokio::test(flavor = "multi_thread")]
#[cfg(feature = "failpoints")]
async fn a_crash_begins_it_again() {
    for point in
        ["refresh_copied", "refresh_adopted", "before_catalog_commit", "after_catalog_commit"]
    {
        let mut scene = Scene::new(TABLES).await;
        scene.catch_up().succeeded();
        scene.sql("ALTER TABLE t ALTER b TYPE text").await;
        scene.sql("UPDATE t SET a = 'new' WHERE id < 100; INSERT INTO other VALUES (1)").await;
        let crashed = scene.run().failpoints(&format!("{point}=return")).arg("--until-caught-up");
        let crashed = crashed.finish();
        assert_ne!(crashed.code, Some(0), "{point} was not met");
        scene.sql("DELETE FROM t WHERE id < 50").await;
        scene.catch_up().succeeded();
        scene.assert_equal(BOTH).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_the_copy_and_a_new_start() {
    let mut scene = Scene::new(TABLES).await;
    let running = scene.started();
    let holds_up = scene.postgres.client().await;
    holds_up.batch_execute("BEGIN; INSERT INTO lock_me VALUES (1)").await.unwrap();
    scene.sql("ALTER TABLE t ALTER b TYPE text").await;
    scene.sql("UPDATE t SET a = 'during' WHERE id < 10").await;
    let end = Instant::now() + Duration::from_secs(30);
    while scene.behind() == "{}" {
        assert!(Instant::now() < end, "never behind");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let started = Instant::now();
    stop(running);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(scene.behind().contains("public.t"));
    holds_up.batch_execute("COMMIT").await.unwrap();
    scene.catch_up().succeeded();
    scene.assert_equal(BOTH).await;
    assert_eq!(scene.behind(), "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_toast_and_truncate_during_the_copy() {
    let mut scene = Scene::new(TABLES).await;
    scene
        .sql(
            "CREATE TABLE big(id int PRIMARY KEY, n int, v text); ALTER TABLE big ALTER v SET STORAGE EXTERNAL; \
             INSERT INTO big SELECT g, 0, repeat('x' || g, 3000) FROM generate_series(1, 20) g; \
             CREATE TABLE gone(id int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 50)",
        )
        .await;
    let running = scene.started();
    let holds_up = scene.postgres.client().await;
    holds_up.batch_execute("BEGIN; INSERT INTO lock_me VALUES (1)").await.unwrap();
    let resync = resync(&scene, "public.big,public.gone").arg("--no-wait").finish();
    resync.succeeded();
    scene.sql("INSERT INTO other VALUES (1)").await;
    while scene.behind() == "{}" {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    holds_up.batch_execute("COMMIT").await.unwrap();
    for n in 1..200 {
        scene.sql(&format!("UPDATE big SET n = {n} WHERE id % 5 = {n} % 5")).await;
        if n == 20 {
            scene.sql("BEGIN; INSERT INTO gone VALUES (100); TRUNCATE gone, other; INSERT INTO gone VALUES (7); COMMIT").await;
        }
        if scene.behind() == "{}" {
            break;
        }
    }
    scene.sql("UPDATE big SET id = id + 100 WHERE id < 5").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.big", "public.gone", "public.other"]).await;
    stop(running);
}

fn resync(scene: &Scene, tables: &str) -> Frazil {
    let (dsn, lake) = (scene.postgres.dsn(), scene.lake.folder().display().to_string());
    Frazil::new(["resync", &dsn, "--into", &lake, "--tables", tables])
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_mends_a_lake_table() {
    let mut scene = Scene::new(TABLES).await;
    let running = scene.started();
    scene.sql("INSERT INTO other VALUES (5)").await;
    scene.wait_until_the_lake_holds_it().await;
    let before = metadata(&scene.lake.state(), "public.other")["current-snapshot-id"].clone();
    resync(&scene, "public.t").finish().succeeded();
    assert_eq!(scene.behind(), "{}");
    scene.assert_equal(BOTH).await;
    let table = metadata(&scene.lake.state(), "public.t");
    assert_eq!(summaries(&table).len(), 2, "copied once more");
    let after = metadata(&scene.lake.state(), "public.other")["current-snapshot-id"].clone();
    assert_eq!(before, after, "the other one was left alone");
    resync(&scene, "public.nothing").finish().succeeded();
    stop(running);
    // Nobody runs: the wish waits in the WAL.
    resync(&scene, "*").arg("--no-wait").finish().succeeded();
    scene.catch_up().succeeded();
    scene.assert_equal(BOTH).await;
    assert_eq!(summaries(&metadata(&scene.lake.state(), "public.t")).len(), 3);
}

// cases: 17 21 stops SLOT_LOST
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_made_good_where_that_is_wished() {
    let mut scene = Scene::new(TABLES).await;
    scene.catch_up().succeeded();
    scene.sql("SELECT pg_drop_replication_slot('frazil')").await;
    scene.sql("UPDATE t SET a = 'unseen' WHERE id < 100; DELETE FROM t WHERE id > 1900").await;
    scene.catch_up().exited(1).said("SLOT_LOST").said("on_slot_loss");
    let run = || scene.run().env("FRAZIL_SOURCE__ON_SLOT_LOSS", "resync").arg("--until-caught-up");
    run().finish().succeeded();
    scene.assert_equal(BOTH).await;
    // Moved past the lake by somebody else.
    scene.sql("UPDATE t SET a = 'skipped' WHERE id < 100").await;
    scene.sql("SELECT pg_replication_slot_advance('frazil', pg_current_wal_lsn())").await;
    scene.catch_up().exited(1).said("SLOT_AHEAD");
    let run = || scene.run().env("FRAZIL_SOURCE__ON_SLOT_LOSS", "resync").arg("--until-caught-up");
    run().finish().succeeded();
    scene.assert_equal(BOTH).await;
    scene.sql("UPDATE t SET a = 'later' WHERE id < 10").await;
    scene.catch_up().succeeded();
    scene.assert_equal(BOTH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_come_in_one_lake_commit() {
    let mut scene = Scene::new(TABLES).await;
    let running = following(scene.run().spawn());
    let mut names = Vec::new();
    for nth in 0..20 {
        scene
            .sql(&format!("CREATE TABLE n{nth}(id int PRIMARY KEY); INSERT INTO n{nth} VALUES (1)"))
            .await;
        names.push(format!("public.n{nth}"));
    }
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    scene.sql(&format!("ALTER PUBLICATION frazil ADD TABLE {}", list.join(", "))).await;
    scene.sql("INSERT INTO n0 VALUES (2); INSERT INTO n19 VALUES (2)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&list).await;
    let commits: std::collections::HashSet<String> = list
        .iter()
        .map(|name| {
            let table = metadata(&scene.lake.state(), name);
            summaries(&table)[0]["frazil.lake-commit"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(commits.len() <= 2, "{commits:?}");
    running.signal("TERM");
    running.wait(DEADLINE).succeeded();
}
