//! Columns that come, go and change their names: the field id says which one it is.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 5) g;";

// cases: 90 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_null_in_old_rows() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t ADD COLUMN c text",
                "INSERT INTO t VALUES (6, 'x', 6, 'new')",
                "UPDATE t SET c = 'set' WHERE id = 2",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.fields("public.t")["c"], 4);
    })
    .await;
}

// cases: 91 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_constant_default_stands_in_old_rows() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&["ALTER TABLE t ADD COLUMN c int DEFAULT 7", "INSERT INTO t VALUES (6, 'x', 6)"])
            .await;
        stage.settles_equal(&["public.t"]).await;
        // The constant of old rows stays what it was when the column came.
        stage
            .ddl(&[
                "BEGIN; ALTER TABLE t ADD COLUMN d text DEFAULT 'a \"b\"'; \
                 ALTER TABLE t ALTER d SET DEFAULT 'other'; INSERT INTO t VALUES (7, 'x', 7); COMMIT",
                "ALTER TABLE t ALTER c DROP DEFAULT",
                "INSERT INTO t VALUES (8, 'x', 8)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

/// No row follows that would use the column, and none ever may.
// cases: 91 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_constant_default_stands_in_old_rows_without_a_new_one() {
    in_every_way(TABLE, async |stage| {
        stage.ddl(&["ALTER TABLE t ADD COLUMN c int DEFAULT 7"]).await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

// cases: 93 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_history() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t ADD COLUMN c int, ADD COLUMN d int",
                "UPDATE t SET c = id, d = id",
                "ALTER TABLE t DROP COLUMN c",
                "ALTER TABLE t DROP COLUMN a, DROP COLUMN d",
                "INSERT INTO t VALUES (6, 60)",
                "UPDATE t SET b = -b WHERE id = 1",
                "DELETE FROM t WHERE id = 2",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.fields("public.t")["b"], 3);
    })
    .await;
}

// cases: 94 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_column_dropped_and_added_again_is_another_one() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t DROP COLUMN b",
                "ALTER TABLE t ADD COLUMN b int",
                "INSERT INTO t VALUES (9, 'x', 9)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        let fields = stage.fields("public.t");
        assert_eq!(fields["b"], 4, "{fields:?}");
        assert_eq!(fields.get("b__v1"), Some(&3), "{fields:?}");
    })
    .await;
}

/// In one command, and with nothing after it.
// cases: 94 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_column_dropped_and_added_again_in_silence_is_another_one() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&["BEGIN; ALTER TABLE t DROP b; ALTER TABLE t ADD b int DEFAULT 1; COMMIT"])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.fields("public.t")["b"], 4);
    })
    .await;
}

// cases: 95 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_column_keeps_its_field() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t RENAME a TO renamed",
                "INSERT INTO t VALUES (6, 'new', 6)",
                "UPDATE t SET renamed = 'u' WHERE id = 1",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.fields("public.t")["renamed"], 2);
        assert!(!stage.log().contains("copied afresh"), "{}", stage.log());
        // Two columns change their names with each other.
        stage
            .ddl(&[
                "BEGIN; ALTER TABLE t RENAME b TO b0; ALTER TABLE t RENAME renamed TO b; \
                 ALTER TABLE t RENAME b0 TO a; COMMIT",
                "INSERT INTO t VALUES (7, 'new', 7)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        let fields = stage.fields("public.t");
        assert_eq!((fields["b"], fields["a"]), (2, 3));
    })
    .await;
}
