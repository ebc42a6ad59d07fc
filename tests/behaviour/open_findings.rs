//! Findings that are not mended yet; not in `mod` until they are.

use super::scene::Scene;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     CREATE TABLE other(id int PRIMARY KEY); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 5) g;";

#[tokio::test(flavor = "multi_thread")]
async fn the_cure_for_a_changed_table_works() {
    let mut scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    scene.sql("ALTER TABLE t ALTER b TYPE text").await;
    scene.sql("INSERT INTO t VALUES (9); INSERT INTO other VALUES (1)").await;
    scene.catch_up().exited(1).said("SCHEMA_CHANGED").said("--tables '!");
    scene.run().arg("--until-caught-up").arg("--tables=*,!public.t").finish().succeeded();
    scene.assert_equal(&["public.other"]).await;
}

