//! The catalog is ahead of the stream: frazil reads changes of a shape that is gone.

use super::stage::in_both_modes;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     CREATE TABLE u(id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'x'); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 50) g;";

const HISTORY: &[&str] = &[
    "UPDATE t SET a = 'before' WHERE id < 5",
    "ALTER TABLE t ADD COLUMN c int DEFAULT 7",
    "INSERT INTO t VALUES (60, 'x', 60, 60)",
    "ALTER TABLE t RENAME b TO bb",
    "UPDATE t SET bb = -bb WHERE id % 7 = 0",
    "ALTER TABLE t DROP COLUMN a",
    "INSERT INTO t VALUES (61, 61, 61)",
    "ALTER TABLE t ALTER c TYPE bigint",
    "DELETE FROM t WHERE id % 9 = 0",
    "ALTER TABLE t ADD COLUMN a text DEFAULT 'again'",
    "INSERT INTO t VALUES (62, 62, 62, 'x')",
    "ALTER TABLE t RENAME c TO a2",
    "UPDATE t SET a2 = 5 WHERE id = 2",
    "ALTER TABLE t ALTER bb TYPE text",
    "UPDATE t SET a = 'last' WHERE id > 40",
    "INSERT INTO u VALUES (2, 'y')",
];

// cases: 106 holds
#[tokio::test(flavor = "multi_thread")]
async fn many_changes_while_frazil_is_held_up() {
    in_both_modes(TABLE, async |stage| {
        stage.signal("STOP");
        for sql in HISTORY {
            stage.sql(sql).await;
        }
        stage.signal("CONT");
        stage.settles_equal(&["public.t", "public.u"]).await;
    })
    .await;
}

// cases: 106 holds
#[tokio::test(flavor = "multi_thread")]
async fn many_changes_while_frazil_is_down() {
    in_both_modes(TABLE, async |stage| {
        stage.stop();
        for sql in HISTORY {
            stage.sql(sql).await;
        }
        stage.start();
        stage.settles_equal(&["public.t", "public.u"]).await;
    })
    .await;
}

/// The table is gone before its changes are read.
// cases: 106 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_meanwhile() {
    in_both_modes(TABLE, async |stage| {
        stage.signal("STOP");
        stage.sql("INSERT INTO t VALUES (70, 'x', 70)").await;
        stage.sql("ALTER TABLE t ADD COLUMN c int DEFAULT 7").await;
        stage.sql("INSERT INTO t VALUES (71, 'x', 71)").await;
        stage.sql("DROP TABLE t").await;
        stage.sql("INSERT INTO u VALUES (3, 'z')").await;
        stage.signal("CONT");
        stage.settles_equal(&["public.u"]).await;
        let state = stage.scene.lake.state();
        assert!(state.tables().any(|table| table == "public.t"), "its lake table stays");
    })
    .await;
}
