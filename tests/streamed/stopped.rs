//! Who stops or is killed while a streamed transaction is open forgets it; it comes again whole.

use super::{rows, run, scene, sent, started};
use crate::behaviour::scene::{following, stop};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text)";

// cases: 127 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_forgotten_and_comes_again() {
    let mut scene = scene(TABLE).await;
    let client = scene.postgres.client().await;
    let mut running = started(&scene);
    client.batch_execute("BEGIN").await.unwrap();
    for round in 0..4 {
        sent(&scene, &client, &rows("t", round * 2000 + 1, round * 2000 + 2000)).await;
        // The position passes the beginning of what is open.
        scene.sql(&format!("INSERT INTO t VALUES (-1 - {round}, 'small')")).await;
        scene.wait_until_the_lake_holds_it().await;
        if round % 2 == 0 {
            drop(running.kill9());
        } else {
            stop(running);
        }
        let seen = scene.lake.query_now("SELECT count(*) FROM {public.t} WHERE id > 0");
        assert_eq!(seen[0][0].as_deref(), Some("0"), "an open transaction is in the lake");
        running = following(run(&scene).spawn());
    }
    client.batch_execute("COMMIT").await.unwrap();
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.t"]).await;
}

/// What was written with streaming goes on without it, and the other way round.
// cases: 127 holds
#[tokio::test(flavor = "multi_thread")]
async fn streaming_may_be_switched_while_a_transaction_is_open() {
    let mut scene = scene(TABLE).await;
    let client = scene.postgres.client().await;
    let running = started(&scene);
    sent(&scene, &client, &format!("BEGIN; {}", rows("t", 1, 2000))).await;
    stop(running);
    client.batch_execute(&format!("{} COMMIT", rows("t", 2001, 2100))).await.unwrap();
    scene.assert_catches_up(&["public.t"]).await;
    client.batch_execute(&format!("BEGIN; {} COMMIT", rows("t", 3001, 5000))).await.unwrap();
    run(&scene).arg("--until-caught-up").finish().succeeded();
    scene.assert_equal(&["public.t"]).await;
}
