//! A partitioned table that is published as one: partitions come, go and are truncated without an
//! event, and the lake follows all the same.

use super::stage::{Mode, Position, in_every_way};

/// The leaf `l3` has its columns in another order.
const TREE: &str = "CREATE TABLE root(id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id); \
     CREATE TABLE l1 PARTITION OF root FOR VALUES FROM (0) TO (100); \
     CREATE TABLE l2 PARTITION OF root FOR VALUES FROM (100) TO (200) PARTITION BY LIST (k); \
     CREATE TABLE l2a PARTITION OF l2 FOR VALUES IN (0); \
     CREATE TABLE l2b PARTITION OF l2 DEFAULT; \
     CREATE TABLE l3(v text, gone int, k int NOT NULL, id int NOT NULL); \
     ALTER TABLE l3 DROP COLUMN gone; \
     ALTER TABLE root ATTACH PARTITION l3 FOR VALUES FROM (200) TO (300); \
     INSERT INTO root SELECT g * 5, g % 2, 'old' FROM generate_series(0, 59) g; \
     CREATE PUBLICATION frazil FOR TABLE root, beside WITH (publish_via_partition_root = true);";

const ROOT: &[&str] = &["public.root"];

// cases: 113 114 holds
#[tokio::test(flavor = "multi_thread")]
async fn one_lake_table_whatever_the_leaves_look_like() {
    in_every_way(TREE, async |stage| {
        stage
            .ddl(&[
                "INSERT INTO root VALUES (1, 1, 'l1'), (101, 0, 'l2a'), (201, 1, 'l3')",
                "UPDATE root SET v = 'same leaf' WHERE id = 205",
                "UPDATE root SET id = 299 WHERE id = 5",
                "UPDATE root SET k = 7 WHERE id = 100",
                "UPDATE l3 SET v = 'by its own name' WHERE id = 210",
                "DELETE FROM root WHERE id = 15",
                "ALTER TABLE root ADD COLUMN c int DEFAULT 7",
                "INSERT INTO root VALUES (2, 1, 'l1', 2), (202, 1, 'l3', 2)",
                "UPDATE root SET id = 3 WHERE id = 202",
            ])
            .await;
        stage.settles_equal(ROOT).await;
        let state = stage.scene.lake.state();
        let tables: Vec<_> = state.tables().filter(|t| t.starts_with("public.l")).collect();
        assert!(tables.is_empty(), "{tables:?}");
    })
    .await;
}

// cases: 115 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_partition() {
    in_every_way(TREE, async |stage| {
        stage.ddl(&["TRUNCATE l1"]).await;
        stage.settles_equal(ROOT).await;
        stage
            .ddl(&["BEGIN; INSERT INTO root VALUES (1, 1, 'x'); TRUNCATE l2; \
                     INSERT INTO root VALUES (101, 0, 'after'); COMMIT"])
            .await;
        stage.settles_equal(ROOT).await;
        stage
            .ddl(&["BEGIN; TRUNCATE root; INSERT INTO root VALUES (7, 7, 'x'); TRUNCATE l1; \
                     INSERT INTO root VALUES (8, 8, 'x'); COMMIT"])
            .await;
        stage.settles_equal(ROOT).await;
    })
    .await;
}

// cases: 116 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_or_dropped_partition() {
    in_every_way(TREE, async |stage| {
        let before = stage.lake_commits("public.root");
        stage.ddl(&["ALTER TABLE root DETACH PARTITION l1"]).await;
        stage.settles_equal(ROOT).await;
        assert_eq!(stage.lake_commits("public.root"), before + 1);
        stage.ddl(&["INSERT INTO l1 VALUES (2, 2, 'not of the root')"]).await;
        stage.settles_equal(ROOT).await;
        stage.ddl(&["DROP TABLE l2a", "INSERT INTO root VALUES (150, 1, 'x')"]).await;
        stage.settles_equal(ROOT).await;
        stage.ddl(&["ALTER TABLE root DETACH PARTITION l3 CONCURRENTLY", "DROP TABLE l3"]).await;
        stage.settles_equal(ROOT).await;
    })
    .await;
}

// cases: 117 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_partition_comes_with_its_rows() {
    in_every_way(TREE, async |stage| {
        stage
            .ddl(&[
                "CREATE TABLE l4(id int NOT NULL, k int NOT NULL, v text)",
                "INSERT INTO l4 VALUES (301, 1, 'from before')",
                "ALTER TABLE root ATTACH PARTITION l4 FOR VALUES FROM (300) TO (400)",
                "INSERT INTO root VALUES (302, 1, 'from after')",
            ])
            .await;
        stage.settles_equal(ROOT).await;
        stage
            .ddl(&[
                "CREATE TABLE l5 PARTITION OF root FOR VALUES FROM (400) TO (500)",
                "INSERT INTO root VALUES (401, 1, 'x')",
            ])
            .await;
        stage.settles_equal(ROOT).await;
    })
    .await;
}

/// The daily chore of every partitioned table must not copy it.
// cases: 117 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_partition_copies_nothing() {
    in_every_way(TREE, async |stage| {
        stage
            .ddl(&[
                "CREATE TABLE l4 PARTITION OF root FOR VALUES FROM (300) TO (400)",
                "CREATE TABLE l5 (LIKE root INCLUDING ALL)",
                "ALTER TABLE root ATTACH PARTITION l5 FOR VALUES FROM (400) TO (500)",
                "INSERT INTO root VALUES (301, 1, 'x'), (401, 1, 'x')",
            ])
            .await;
        stage.settles_equal(ROOT).await;
        // Without the capture, and at a start, it can't be told that they were empty.
        if stage.mode == Mode::Capture && stage.position == Position::Live {
            assert!(!stage.log().contains("copied afresh"), "{}", stage.log());
        }
    })
    .await;
}

// cases: 92 113 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_below_the_root() {
    in_every_way(TREE, async |stage| {
        stage.ddl(&["ALTER TABLE root ADD COLUMN r float8 DEFAULT random()"]).await;
        stage.settles_equal(ROOT).await;
        stage.ddl(&["ALTER TABLE root ALTER v TYPE varchar(99) USING upper(v)"]).await;
        stage.settles_equal(ROOT).await;
    })
    .await;
}
