//! What is rolled back after it was sent is not in the lake: a savepoint, nested ones, the whole.

use super::{rows, scene, sent, started};
use crate::behaviour::scene::stop;

const TABLES: &str =
    "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE u(id int PRIMARY KEY, v text)";

// cases: 123 124 125 holds
#[tokio::test(flavor = "multi_thread")]
async fn subtransactions_that_abort_after_they_were_sent_leave_nothing() {
    let mut scene = scene(TABLES).await;
    let running = started(&scene);
    let (one, two) = (scene.postgres.client().await, scene.postgres.client().await);
    sent(&scene, &one, &format!("BEGIN; {}", rows("t", 1, 2000))).await;
    sent(&scene, &two, &format!("BEGIN; {}", rows("u", 1, 2000))).await;
    // An ordinary transaction between the chunks.
    scene.sql("INSERT INTO t VALUES (-1, 'small')").await;
    scene.wait_until_the_lake_holds_it().await;
    let nested = format!(
        "SAVEPOINT a; {} SAVEPOINT b; {} RELEASE b; SAVEPOINT c; {}",
        rows("t", 2001, 4000),
        rows("u", 10_001, 12_000),
        rows("t", 4001, 6000)
    );
    sent(&scene, &one, &nested).await;
    // c goes alone, then a takes b with it.
    sent(&scene, &one, &format!("ROLLBACK TO c; {}", rows("t", 4001, 4500))).await;
    sent(&scene, &two, &format!("SAVEPOINT x; {}", rows("u", 2001, 4000))).await;
    one.batch_execute("ROLLBACK TO a; UPDATE t SET v = 'kept' WHERE id = 7").await.unwrap();
    two.batch_execute("ROLLBACK TO x; SAVEPOINT y; DELETE FROM u WHERE id % 2 = 0; RELEASE y")
        .await
        .unwrap();
    sent(&scene, &one, &rows("t", 20_001, 22_000)).await;
    two.batch_execute("COMMIT").await.unwrap();
    one.batch_execute("COMMIT").await.unwrap();
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    assert_eq!(scene.postgres.value("SELECT count(*) FROM t").await, "4001");
    scene.assert_equal(&["public.t", "public.u"]).await;
}

// cases: 124 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_aborts_after_it_was_sent_leaves_nothing() {
    let mut scene = scene(TABLES).await;
    let running = started(&scene);
    let client = scene.postgres.client().await;
    let text = format!("BEGIN; {} SAVEPOINT a; {}", rows("t", 1, 2000), rows("u", 1, 2000));
    sent(&scene, &client, &text).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    // The same keys once more: these are the ones that count.
    sent(&scene, &client, &format!("BEGIN; {} COMMIT", rows("t", 1, 1500))).await;
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.t", "public.u"]).await;
}
