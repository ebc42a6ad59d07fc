//! The key of a table changes: rows are addressed by the new one from then on.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, b int NOT NULL, a text); \
     INSERT INTO t SELECT g, 100 - g, 'old' FROM generate_series(1, 50) g;";

// cases: 100 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_primary_key() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (b)",
                "UPDATE t SET a = 'new' WHERE id = 2",
                "UPDATE t SET id = 1 WHERE id < 10",
                "DELETE FROM t WHERE b = 60",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

// cases: 100 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_wider_primary_key() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, b)",
                "INSERT INTO t VALUES (1, -1, 'second')",
                "UPDATE t SET a = 'new' WHERE b = -1",
                "DELETE FROM t WHERE id = 1 AND b = 99",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

/// Without a key Postgres refuses UPDATE and DELETE while they are published.
// cases: 100 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_key_that_goes_and_comes_back() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&["ALTER TABLE t DROP CONSTRAINT t_pkey", "INSERT INTO t VALUES (60, 60, 'x')"])
            .await;
        stage.settles_equal(&["public.t"]).await;
        stage
            .ddl(&[
                "ALTER TABLE t ADD PRIMARY KEY (id)",
                "UPDATE t SET a = 'new' WHERE id > 40",
                "DELETE FROM t WHERE id < 10",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

// cases: 100 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_identity() {
    let indexes =
        "CREATE UNIQUE INDEX by_b ON t(b); ALTER TABLE t REPLICA IDENTITY USING INDEX by_b;";
    in_every_way(&format!("{TABLE}{indexes}"), async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t REPLICA IDENTITY FULL",
                "UPDATE t SET b = -b WHERE id < 5",
                "ALTER TABLE t REPLICA IDENTITY DEFAULT",
                "UPDATE t SET id = id + 1000 WHERE id < 10",
                "DELETE FROM t WHERE id = 20",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}
