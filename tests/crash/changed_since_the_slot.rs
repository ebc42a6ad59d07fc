//! What changes without an event between the slot's snapshot and the moment at which its tables are
//! looked up: rows of that time are in the stream, and must not be taken for newer than the change.

use std::time::{Duration, Instant};

use crate::behaviour::scene::{Scene, following, stop};

const TREE: &str = "CREATE TABLE beside(id int PRIMARY KEY); \
     CREATE TABLE root(id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE l1 PARTITION OF root FOR VALUES FROM (0) TO (100); \
     CREATE TABLE l2 PARTITION OF root FOR VALUES FROM (100) TO (200); \
     INSERT INTO root SELECT g * 5, 'old' FROM generate_series(0, 39) g; \
     CREATE PUBLICATION frazil FOR TABLE root, beside WITH (publish_via_partition_root = true);";

// cases: 115 134 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_truncated_after_the_slot_was_made() {
    let mut scene = Scene::new(TREE).await;
    let running = scene.run().failpoints("snapshot_exported=sleep(2000)").spawn();
    let end = Instant::now() + Duration::from_secs(60);
    let confirmed =
        "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL";
    while scene.postgres.value(confirmed).await == "0" {
        assert!(Instant::now() < end, "no slot");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.sql("INSERT INTO root VALUES (101, 'gone again'), (1, 'stays')").await;
    scene.sql("TRUNCATE l2").await;
    let running = following(running);
    scene.sql("ALTER TABLE beside SET (fillfactor = 50)").await;
    scene.sql("INSERT INTO beside VALUES (1)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.root", "public.beside"]).await;
    stop(running);
}
