//! The oldest and the newest Postgres that are supported, and what the stream of each can do.
//! `scripts/versions` runs more of the suite on them.

use crate::behaviour::scene::{Scene, following, stop};
use crate::support::postgres::PostgresOptions;
use crate::support::servers::{NEWEST, bin_dir_of};

const OLDEST: &str = "13";

// cases: 170 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_and_the_newest_server() {
    for (version, binary) in [(OLDEST, "binary=false"), (NEWEST, "binary=true")] {
        let options = PostgresOptions::default().bin_dir(bin_dir_of(version));
        let sql = "CREATE TABLE t(id int PRIMARY KEY, n numeric(9,2), v text, at timestamptz); \
             ALTER TABLE t ALTER v SET STORAGE EXTERNAL; \
             INSERT INTO t SELECT g, g / 7.0, repeat('x', 3000), now() FROM generate_series(1, 100) g";
        let mut scene = Scene::with(options, sql).await;
        let running = following(scene.run().spawn());
        scene.sql("UPDATE t SET n = -n WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0").await;
        scene.sql("ALTER TABLE t ADD COLUMN c int DEFAULT 7; INSERT INTO t VALUES (200)").await;
        scene
            .sql("ALTER TABLE t ALTER c TYPE text; UPDATE t SET id = id + 1000 WHERE id < 9")
            .await;
        scene.sql("INSERT INTO t VALUES (300)").await;
        stop(running).said(binary);
        scene.catch_up().succeeded();
        scene.assert_equal(&["public.t"]).await;
    }
}
