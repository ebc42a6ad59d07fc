//! Source transactions of which nothing is followed make no lake commits of their own.

use super::scene::{Scene, following, stop, summaries};

// cases: 26 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_followed_makes_no_lake_commits() {
    let mut scene =
        Scene::new("CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE other(id int PRIMARY KEY)")
            .await;
    let running = following(scene.run().arg("--tables=public.t").spawn());
    scene.sql("INSERT INTO t VALUES (1)").await;
    scene.wait_until_the_lake_holds_it().await;
    let before = summaries(&scene.ledger()).len();
    for id in 0..200 {
        scene.sql(&format!("INSERT INTO other VALUES ({id})")).await;
        scene
            .sql("BEGIN; CREATE TEMP TABLE gone(id int); INSERT INTO gone VALUES (1); COMMIT")
            .await;
    }
    scene.sql("INSERT INTO t VALUES (2)").await;
    scene.wait_until_the_lake_holds_it().await;
    let after = summaries(&scene.ledger()).len();
    assert!(after <= before + 4, "{before} and then {after} lake commits");
    stop(running);
    scene.assert_equal(&["public.t"]).await;
}
