//! Inside a streamed transaction: changes of a table's shape, TRUNCATE, TOAST values that are not
//! sent, each judged as of the commit.

use super::{rows, scene, sent, started};
use crate::behaviour::scene::stop;

// cases: 123 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_within_a_streamed_transaction() {
    let mut scene = scene("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
    let running = started(&scene);
    let client = scene.postgres.client().await;
    sent(&scene, &client, &format!("BEGIN; {}", rows("t", 1, 2000))).await;
    // A shape that is rolled back, with rows that were sent in it.
    let gone = "SAVEPOINT a; ALTER TABLE t ADD gone int; \
         INSERT INTO t SELECT g, repeat('x', 200), g FROM generate_series(2001, 4000) g";
    sent(&scene, &client, gone).await;
    let stays = "ROLLBACK TO a; ALTER TABLE t ADD n int DEFAULT 7; \
         INSERT INTO t SELECT g, repeat('y', 200), g FROM generate_series(2001, 4000) g";
    sent(&scene, &client, stays).await;
    client.batch_execute("COMMIT").await.unwrap();
    scene.sql("INSERT INTO t VALUES (-1, 'after', 1)").await;
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.t"]).await;
}

// cases: 123 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_within_a_streamed_transaction() {
    let mut scene = scene("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
    scene.sql("INSERT INTO t SELECT g, 'old' FROM generate_series(1, 100) g").await;
    let running = started(&scene);
    let client = scene.postgres.client().await;
    sent(&scene, &client, &format!("BEGIN; {}", rows("t", 1001, 3000))).await;
    let undone = format!("SAVEPOINT a; TRUNCATE t; {}", rows("t", 5001, 7000));
    sent(&scene, &client, &undone).await;
    client.batch_execute("ROLLBACK TO a").await.unwrap();
    sent(&scene, &client, &rows("t", 3001, 5000)).await;
    client.batch_execute("COMMIT").await.unwrap();
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    sent(&scene, &client, &format!("BEGIN; TRUNCATE t; {} COMMIT", rows("t", 1, 2000))).await;
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.t"]).await;
}

/// The value that is not sent is the one at the commit: another transaction changes the row between
/// the chunks' arrival and the commit.
// cases: 68 123 holds
#[tokio::test(flavor = "multi_thread")]
async fn toast_values_that_are_not_sent_are_those_at_the_commit() {
    let mut scene = scene("CREATE TABLE t(id int PRIMARY KEY, n int, v text)").await;
    let big = "(SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 200) i)";
    scene.sql("ALTER TABLE t ALTER v SET STORAGE EXTERNAL").await;
    scene.sql(&format!("INSERT INTO t SELECT g, 0, {big} FROM generate_series(1, 300) g")).await;
    let running = started(&scene);
    let client = scene.postgres.client().await;
    let fill = "INSERT INTO t SELECT g, 0, repeat('z', 150) FROM generate_series(10001, 12000) g";
    sent(&scene, &client, &format!("BEGIN; {fill}")).await;
    scene.sql("UPDATE t SET v = repeat(v, 2), n = 1 WHERE id % 3 = 0").await;
    let after = fill.replace("10001, 12000", "12001, 14000");
    sent(&scene, &client, &format!("UPDATE t SET n = n + 10 WHERE id <= 300; {after}")).await;
    scene.sql("DELETE FROM t WHERE id = 99999").await;
    client.batch_execute("COMMIT").await.unwrap();
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.t"]).await;
}
