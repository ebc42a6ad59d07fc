//! A partitioned table that is published by its leaves: each is a lake table of its own.

use super::stage::in_every_way;

const TREE: &str = "CREATE TABLE root(id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id); \
     CREATE TABLE l1 PARTITION OF root FOR VALUES FROM (0) TO (100); \
     CREATE TABLE l2 PARTITION OF root FOR VALUES FROM (100) TO (200) PARTITION BY LIST (k); \
     CREATE TABLE l2a PARTITION OF l2 FOR VALUES IN (0); \
     CREATE TABLE l2b PARTITION OF l2 DEFAULT; \
     INSERT INTO root SELECT g * 5, g % 2, 'old' FROM generate_series(0, 39) g; \
     CREATE PUBLICATION frazil FOR TABLE root, beside WITH (publish_via_partition_root = false);";

const LEAVES: &[&str] = &["public.l1", "public.l2a", "public.l2b"];

// cases: 118 holds
#[tokio::test(flavor = "multi_thread")]
async fn leaves_are_lake_tables() {
    in_every_way(TREE, async |stage| {
        stage
            .ddl(&[
                "INSERT INTO root VALUES (1, 1, 'l1'), (101, 0, 'l2a'), (102, 5, 'l2b')",
                "UPDATE root SET id = 103 WHERE id = 5",
                "TRUNCATE l2a",
                "ALTER TABLE root ADD COLUMN c int DEFAULT 7",
                "INSERT INTO root VALUES (2, 1, 'l1', 2), (104, 0, 'l2a', 2)",
            ])
            .await;
        stage.settles_equal(LEAVES).await;
        stage
            .ddl(&[
                "ALTER TABLE root ALTER v TYPE varchar(99), ADD COLUMN r float8 DEFAULT random()",
                "DELETE FROM root WHERE id = 10",
            ])
            .await;
        stage.settles_equal(LEAVES).await;
        let state = stage.scene.lake.state();
        assert!(!state.tables().any(|table| table == "public.root" || table == "public.l2"));
    })
    .await;
}

// cases: 118 holds
#[tokio::test(flavor = "multi_thread")]
async fn leaves_that_come_and_go() {
    in_every_way(TREE, async |stage| {
        stage
            .ddl(&[
                "CREATE TABLE l3(id int NOT NULL, k int NOT NULL, v text)",
                "INSERT INTO l3 VALUES (201, 1, 'from before')",
                "ALTER TABLE root ATTACH PARTITION l3 FOR VALUES FROM (200) TO (300)",
                "INSERT INTO root VALUES (202, 1, 'from after')",
                "CREATE TABLE l4 PARTITION OF root FOR VALUES FROM (300) TO (400)",
                "INSERT INTO root VALUES (301, 1, 'x')",
            ])
            .await;
        let all = ["public.l1", "public.l2a", "public.l2b", "public.l3", "public.l4"];
        stage.settles_equal(&all).await;
        stage.ddl(&["ALTER TABLE root DETACH PARTITION l3", "DROP TABLE l4"]).await;
        stage.settles_equal(LEAVES).await;
        let rows = stage.scene.lake.query_now("SELECT count(*) FROM {public.l3}");
        assert_eq!(rows[0][0].as_deref(), Some("2"), "what is not published any more stays");
    })
    .await;
}
