//! A partition that is detached is a published table of its own where all tables are published;
//! once it is attached again, its rows are the root's.

use super::stage::in_every_way;

const TREE: &str = "CREATE TABLE root(id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE l1 PARTITION OF root FOR VALUES FROM (0) TO (100); \
     CREATE TABLE l2 PARTITION OF root FOR VALUES FROM (100) TO (200); \
     INSERT INTO root SELECT g * 5, 'old' FROM generate_series(0, 39) g; \
     CREATE PUBLICATION frazil FOR ALL TABLES WITH (publish_via_partition_root = true);";

// cases: 109 116 117 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_was_followed_by_itself_is_attached_again() {
    in_every_way(TREE, async |stage| {
        stage
            .ddl(&["ALTER TABLE root DETACH PARTITION l2", "INSERT INTO l2 VALUES (101, 'apart')"])
            .await;
        stage.settles_equal(&["public.root", "public.l2"]).await;
        stage
            .ddl(&["BEGIN; INSERT INTO root VALUES (1, 'x'); \
                 ALTER TABLE root ATTACH PARTITION l2 FOR VALUES FROM (100) TO (200); COMMIT"])
            .await;
        stage.settles_equal(&["public.root"]).await;
        stage.ddl(&["INSERT INTO root VALUES (102, 'again')", "TRUNCATE l2"]).await;
        stage.settles_equal(&["public.root"]).await;
        stage.ddl(&["INSERT INTO root VALUES (102, 'again')", "DROP TABLE l2"]).await;
        stage.settles_equal(&["public.root"]).await;
    })
    .await;
}
