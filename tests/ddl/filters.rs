//! Column lists, row filters and what a publication leaves out.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, secret text, a int); \
     INSERT INTO t SELECT g, 'secret', g FROM generate_series(1, 20) g;";

// cases: 110 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_column_list_and_another_one() {
    let publication = "CREATE PUBLICATION frazil FOR TABLE t (id, a), beside; \
                       CREATE VIEW shown AS SELECT id, a FROM t;";
    in_every_way(&format!("{TABLE}{publication}"), async |stage| {
        stage
            .ddl(&["INSERT INTO t VALUES (30, 'secret', 30)", "UPDATE t SET a = 0 WHERE id = 1"])
            .await;
        stage.settles_as(&[("public.t", "public.shown")]).await;
        assert!(!stage.fields("public.t").contains_key("secret"));
        stage
            .ddl(&[
                "ALTER TABLE t ADD COLUMN c int DEFAULT 5",
                "ALTER PUBLICATION frazil SET TABLE t (id, a, c), beside",
                "CREATE OR REPLACE VIEW shown AS SELECT id, a, c FROM t",
                "INSERT INTO t VALUES (31, 'secret', 31, 31)",
            ])
            .await;
        stage.settles_as(&[("public.t", "public.shown")]).await;
        assert!(!stage.fields("public.t").contains_key("secret"));
    })
    .await;
}

// cases: 111 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_and_another_one() {
    let publication = "ALTER TABLE t REPLICA IDENTITY FULL; \
                       CREATE PUBLICATION frazil FOR TABLE t WHERE (a > 5), beside; \
                       CREATE VIEW shown AS SELECT * FROM t WHERE a > 5;";
    in_every_way(&format!("{TABLE}{publication}"), async |stage| {
        stage
            .ddl(&[
                "UPDATE t SET a = 1 WHERE id = 10",
                "UPDATE t SET a = 100 WHERE id = 2",
                "INSERT INTO t VALUES (30, 's', 1), (31, 's', 31)",
                "DELETE FROM t WHERE id = 12",
            ])
            .await;
        stage.settles_as(&[("public.t", "public.shown")]).await;
        stage
            .ddl(&[
                "ALTER PUBLICATION frazil SET TABLE t WHERE (a > 15), beside",
                "CREATE OR REPLACE VIEW shown AS SELECT * FROM t WHERE a > 15",
                "UPDATE t SET a = 2 WHERE id = 17",
            ])
            .await;
        stage.settles_as(&[("public.t", "public.shown")]).await;
    })
    .await;
}

/// A filter outside the identity makes the application's own UPDATEs fail.
// cases: 111 stops ROW_FILTER_IDENTITY
#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_outside_the_identity_is_refused_by_check() {
    let publication = "CREATE PUBLICATION frazil FOR TABLE t, beside;";
    in_every_way(&format!("{TABLE}{publication}"), async |stage| {
        assert!(!stage.check().contains("ROW_FILTER_IDENTITY"));
        stage.sql("ALTER PUBLICATION frazil SET TABLE t WHERE (a > 5), beside").await;
        assert!(stage.check().contains("ROW_FILTER_IDENTITY"));
    })
    .await;
}

// cases: 112 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_leaves_out_is_said() {
    let publication =
        "CREATE PUBLICATION frazil FOR TABLE t, beside WITH (publish = 'insert, update');";
    in_every_way(&format!("{TABLE}{publication}"), async |stage| {
        assert!(stage.check().contains("leaves out delete, truncate"), "{}", stage.check());
        assert!(stage.log().contains("leaves out delete, truncate"), "{}", stage.log());
    })
    .await;
}
