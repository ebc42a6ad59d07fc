//! DDL between DML in one source transaction: schema and rows come in one lake commit, and what was
//! rolled back is never seen.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 5) g;";

// cases: 104 105 holds
#[tokio::test(flavor = "multi_thread")]
async fn rows_before_between_and_after() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "BEGIN; INSERT INTO t VALUES (10, 'before', 1); UPDATE t SET a = 'u' WHERE id = 1; \
                 ALTER TABLE t ADD COLUMN c int DEFAULT 7; INSERT INTO t VALUES (11, 'between', 2); \
                 UPDATE t SET c = 8 WHERE id = 2; DELETE FROM t WHERE id = 3; \
                 ALTER TABLE t ADD COLUMN d text DEFAULT 'd'; \
                 INSERT INTO t VALUES (12, 'after', 3, 9); \
                 UPDATE t SET d = NULL WHERE id = 10; COMMIT",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

// cases: 104 105 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_a_rolled_back_savepoint_is_never_seen() {
    in_every_way(TABLE, async |stage| {
        let before = stage.fields("public.t");
        stage
            .ddl(&[
                "BEGIN; INSERT INTO t VALUES (20, 'x', 1); SAVEPOINT s; \
                 ALTER TABLE t ADD COLUMN gone int DEFAULT 1; INSERT INTO t VALUES (21, 'y', 1); \
                 ROLLBACK TO s; INSERT INTO t VALUES (22, 'z', 1); COMMIT",
                "BEGIN; ALTER TABLE t ALTER b TYPE text; UPDATE t SET b = 'x'; ROLLBACK",
                "INSERT INTO t VALUES (23, 'z', 1)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.fields("public.t"), before);
        assert!(!stage.log().contains("copied afresh"), "{}", stage.log());
    })
    .await;
}

// cases: 104 105 holds
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_and_go_within_it() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "BEGIN; ALTER TABLE t ADD COLUMN e int DEFAULT 5; INSERT INTO t VALUES (30, 'x', 1); \
                 ALTER TABLE t DROP COLUMN e; INSERT INTO t VALUES (31, 'x', 1); \
                 ALTER TABLE t ADD COLUMN f int DEFAULT 6; INSERT INTO t VALUES (32, 'x', 1); \
                 ALTER TABLE t RENAME f TO e; UPDATE t SET e = 9 WHERE id < 3; COMMIT",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        stage
            .ddl(&[
                "BEGIN; INSERT INTO t VALUES (40, 'x', 1); \
                 ALTER TABLE t ALTER b TYPE text USING b || '!'; INSERT INTO t VALUES (41, 'x', 'y'); \
                 DELETE FROM t WHERE id = 30; COMMIT",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}
