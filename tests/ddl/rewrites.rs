//! ALTER TABLE that writes all rows anew, of which the stream says nothing.

use super::stage::{Mode, Position, in_every_way};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int, f float4, n numeric(5,2)); \
     INSERT INTO t SELECT g, g::text, g, g / 2.0, g / 4.0 FROM generate_series(1, 500) g;";

// cases: 92 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_default_is_in_all_rows() {
    in_every_way(TABLE, async |stage| {
        let before = stage.lake_commits("public.t");
        stage.ddl(&["ALTER TABLE t ADD COLUMN r float8 DEFAULT random()"]).await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.lake_commits("public.t"), before + 1, "one lake commit brings them all");
        assert_eq!(stage.log().matches("copied afresh").count(), 1, "{}", stage.log());
        stage
            .ddl(&[
                "INSERT INTO t VALUES (1000)",
                "ALTER TABLE t ADD COLUMN u uuid DEFAULT gen_random_uuid()",
                "UPDATE t SET a = 'later' WHERE id % 3 = 0",
                "DELETE FROM t WHERE id % 5 = 0",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

// cases: 96 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_wider_type_keeps_the_field() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TABLE t ALTER b TYPE bigint, ALTER f TYPE float8",
                "ALTER TABLE t ALTER n TYPE numeric(12,2)",
                "INSERT INTO t VALUES (1000, 'x', 9007199254740993, 1e300, 1234567890.25)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        let fields = stage.fields("public.t");
        assert_eq!((fields["b"], fields["f"], fields["n"]), (3, 4, 5), "{fields:?}");
    })
    .await;
}

/// The same types, other values.
// cases: 96 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_wider_type_with_other_values() {
    in_every_way(TABLE, async |stage| {
        stage.ddl(&["ALTER TABLE t ALTER b TYPE bigint USING b * 2"]).await;
        stage.settles_equal(&["public.t"]).await;
        stage.ddl(&["DO $$BEGIN ALTER TABLE t ALTER b TYPE bigint USING b * 3; END$$"]).await;
        stage.settles_equal(&["public.t"]).await;
        stage
            .ddl(&[
                "ALTER TABLE t ALTER a TYPE text USING a || '!'",
                "INSERT INTO t VALUES (1000, 'x', 1)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

// cases: 97 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_type_is_another_field() {
    in_every_way(TABLE, async |stage| {
        let before = stage.fields("public.t");
        stage
            .ddl(&["ALTER TABLE t ALTER b TYPE text", "INSERT INTO t VALUES (1000, 'x', 'nine')"])
            .await;
        stage.settles_equal(&["public.t"]).await;
        let fields = stage.fields("public.t");
        assert_ne!(fields["b"], before["b"]);
        assert_eq!(fields.get("b__v1"), Some(&before["b"]), "{fields:?}");
        stage
            .ddl(&[
                "DELETE FROM t WHERE b = 'nine'",
                "ALTER TABLE t ALTER b TYPE int USING b::int + 1",
                "ALTER TABLE t ALTER n TYPE numeric(9,4)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        let again = stage.fields("public.t");
        assert!(again["b"] != fields["b"] && again["b"] != before["b"], "{again:?}");
        assert_eq!(again.get("b__v2"), Some(&fields["b"]), "{again:?}");
    })
    .await;
}

/// The file is another one, the rows are the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_that_changes_no_row_copies_nothing() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "VACUUM FULL t",
                "CLUSTER t USING t_pkey",
                "INSERT INTO t VALUES (1000, 'x', 1)",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert!(!stage.log().contains("copied afresh"), "{:?}: {}", stage.mode, stage.log());
        // Only the stream can say that a type was changed without USING.
        if stage.mode == Mode::Capture && stage.position == Position::Live {
            stage.ddl(&["ALTER TABLE t ALTER b TYPE bigint"]).await;
            stage.settles_equal(&["public.t"]).await;
            assert!(!stage.log().contains("copied afresh"), "{}", stage.log());
        }
    })
    .await;
}
