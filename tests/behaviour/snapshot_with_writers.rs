//! The initial snapshot while four writers go on, then the stream: equal rows. A publication and a
//! slot that the user made are used as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::scene::{Scene, stop};
use crate::support::servers;

const SCHEMA: &str = "
    CREATE TABLE big(id int PRIMARY KEY, v int, body text, note text);
    ALTER TABLE big ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE small(id int PRIMARY KEY, v int);
    CREATE TABLE log(at timestamptz, what text);
    INSERT INTO big SELECT g, 0, CASE WHEN g % 100 = 0 THEN repeat(md5(g::text), 100) END, repeat('n', 80)
        FROM generate_series(1, 300000) g;
    INSERT INTO small SELECT g, 0 FROM generate_series(1, 1000) g;";
const TABLES: &[&str] = &["public.big", "public.small", "public.log"];

fn change(random: &mut StdRng, writer: i32) -> String {
    let id = random.random_range(1..300_000);
    let own = writer * 1_000_000 + random.random_range(0..5_000);
    let mut sql = String::from("BEGIN;");
    for _ in 0..random.random_range(1..6) {
        sql.push_str(&match random.random_range(0..8) {
            0 | 1 => format!("UPDATE big SET v = v + 1 WHERE id = {id};"),
            2 => format!("UPDATE big SET body = repeat(md5('{own}'), 120) WHERE id = {id};"),
            3 => format!("DELETE FROM big WHERE id = {id};"),
            4 => format!("INSERT INTO big VALUES ({own}, 1, repeat('b', 5000), NULL) ON CONFLICT (id) DO UPDATE SET v = big.v + 1;"),
            5 => format!("UPDATE big SET id = {own} + 100000000 WHERE id = {own};"),
            6 => "INSERT INTO log VALUES (clock_timestamp(), 'x');".into(),
            _ => format!("UPDATE small SET v = v + 1 WHERE id = {} + 1;", id % 1000),
        });
    }
    sql.push_str(if random.random_bool(0.15) { "ROLLBACK" } else { "COMMIT" });
    sql
}

fn writers(scene: &Scene, ends: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let one = |writer: i32| {
        let (dsn, ends) = (scene.postgres.dsn(), Arc::clone(ends));
        tokio::spawn(async move {
            let (client, connection) =
                tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let mut random = StdRng::seed_from_u64(u64::try_from(writer).unwrap());
            while !ends.load(Ordering::Relaxed) {
                if client.batch_execute(&change(&mut random, writer)).await.is_err() {
                    client.batch_execute("ROLLBACK").await.unwrap();
                }
            }
        })
    };
    (1..=4).map(one).collect()
}

// cases: 130 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_writers_and_the_stream_after_it() {
    let mut scene = Scene::new(SCHEMA).await;
    let ends = Arc::new(AtomicBool::new(false));
    let tasks = writers(&scene, &ends);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut running = scene.run().spawn();
    // Maintenance of the source in the middle of the copy.
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.sql("VACUUM big").await;
    running.wait_for_log("following the stream", Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(2)).await;
    ends.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(TABLES).await;
    stop(running);
}

/// A rewrite between the exported snapshot and the copy reads empty through the snapshot (case
/// 134).
#[tokio::test(flavor = "multi_thread")]
async fn rewrites_during_the_copy_lose_nothing() {
    let mut scene = Scene::new(SCHEMA).await;
    let ends = Arc::new(AtomicBool::new(false));
    let (dsn, stops) = (scene.postgres.dsn(), Arc::clone(&ends));
    let rewriter = tokio::spawn(async move {
        let (client, connection) =
            tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        // Ever more time in between: on a machine that is busy too, a copy begins in it at last.
        let mut pause = Duration::from_millis(120);
        while !stops.load(Ordering::Relaxed) {
            client.batch_execute("VACUUM FULL small").await.unwrap();
            client
                .batch_execute(
                    "BEGIN; TRUNCATE log; INSERT INTO log VALUES (now(), 'only one'); COMMIT",
                )
                .await
                .unwrap();
            tokio::time::sleep(pause).await;
            pause = pause * 5 / 4;
        }
    });
    let mut running = scene.run().spawn();
    running.wait_for_log("following the stream", Duration::from_secs(60));
    ends.store(true, Ordering::Relaxed);
    rewriter.await.unwrap();
    // Postgres 13 has no logical messages to wait for: a change must be the last that was written.
    scene.sql("INSERT INTO log VALUES (now(), 'the last')").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(TABLES).await;
    stop(running);
}

/// More pages than one range has, so that two workers share the table.
// cases: 133 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_several_page_ranges() {
    let mut scene = Scene::new(
        "CREATE TABLE wide(id int PRIMARY KEY, pad text) WITH (fillfactor = 10); \
         ALTER TABLE wide ALTER pad SET STORAGE PLAIN; \
         INSERT INTO wide SELECT g, repeat('p', 700) FROM generate_series(1, 68000) g; ANALYZE wide",
    )
    .await;
    assert!(
        scene
            .postgres
            .value("SELECT relpages FROM pg_class WHERE relname = 'wide'")
            .await
            .parse::<u32>()
            .unwrap()
            > 65_536
    );
    let mut running = scene.run().spawn();
    // Rows move to the end of the table while it is read.
    for _ in 0..5 {
        scene.sql("UPDATE wide SET pad = pad || 'q' WHERE id % 97 = 0").await;
    }
    running.wait_for_log("following the stream", Duration::from_secs(60));
    scene.sql("DELETE FROM wide WHERE id % 5 = 0").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.wide"]).await;
    stop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_and_a_slot_of_the_user() {
    if servers::is_before(15, "column lists and row filters") {
        return;
    }
    let mut scene = Scene::new(
        "CREATE TABLE t(id int PRIMARY KEY, secret text, v int); \
         CREATE TABLE shown(id int PRIMARY KEY, v int); CREATE TABLE not_published(id int PRIMARY KEY); \
         INSERT INTO t SELECT g, 'secret', g FROM generate_series(-50, 50) g; \
         INSERT INTO shown VALUES (1, 1); \
         CREATE TABLE filtered(id int, part int, v text, PRIMARY KEY (id, part)); \
         INSERT INTO filtered SELECT g, g % 3, 'x' FROM generate_series(1, 60) g;",
    )
    .await;
    scene
        .sql(
            "CREATE PUBLICATION mine FOR TABLE t (id, v) WHERE (id > 0), TABLE filtered WHERE (part <> 1), TABLE shown",
        )
        .await;
    scene.sql("SELECT pg_create_logical_replication_slot('my_slot', 'pgoutput')").await;
    scene.sql("INSERT INTO t VALUES (1000, 'secret', 1)").await;
    let args = ["--publication=mine", "--slot=my_slot", "--until-caught-up"];
    let run =
        |scene: &Scene| args.iter().fold(scene.run(), |run, arg| run.arg(arg)).finish().succeeded();
    run(&scene);
    assert_same(&mut scene).await;
    scene
        .sql(
            "UPDATE t SET v = v + 1; DELETE FROM t WHERE id % 7 = 0; INSERT INTO t VALUES (2000, 's', 5), (-2000, 's', 5); \
             UPDATE t SET id = -100 - id WHERE id = 5; UPDATE t SET id = 300 WHERE id = -6; UPDATE t SET id = 77 WHERE id = -8; \
             UPDATE filtered SET part = 1 WHERE id < 10; UPDATE filtered SET part = 2 WHERE id BETWEEN 20 AND 30; \
             UPDATE filtered SET v = 'y' WHERE id % 2 = 0; DELETE FROM filtered WHERE id > 55; \
             INSERT INTO not_published VALUES (1); UPDATE shown SET v = 2",
        )
        .await;
    run(&scene);
    assert_same(&mut scene).await;
    let publications = scene.sql("SELECT pubname FROM pg_publication ORDER BY 1").await;
    assert_eq!(publications, [[Some("mine".to_string())]]);
    let slots = scene.sql("SELECT slot_name FROM pg_replication_slots ORDER BY 1").await;
    assert_eq!(slots, [[Some("my_slot".to_string())]]);
}

async fn assert_same(scene: &mut Scene) {
    for (lake, source) in [
        ("SELECT * FROM {public.t}", "SELECT id, v FROM t WHERE id > 0"),
        ("SELECT * FROM {public.filtered}", "SELECT * FROM filtered WHERE part <> 1"),
        ("SELECT * FROM {public.shown}", "SELECT * FROM shown"),
    ] {
        let order = "ORDER BY 1, 2";
        let rows = scene.lake.query_now(&format!("{lake} {order}"));
        assert_eq!(rows, scene.sql(&format!("{source} {order}")).await, "{source}");
    }
}
