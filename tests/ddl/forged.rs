//! Messages that say they are the capture's, and are not: at most the catalog is looked at.

use super::stage::in_both_modes;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text); CREATE ROLE liar LOGIN; \
     INSERT INTO t SELECT g, 'old' FROM generate_series(1, 5) g;";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed() {
    in_both_modes(TABLE, async |stage| {
        let before = stage.fields("public.t");
        let oid = stage.scene.postgres.value("SELECT 't'::regclass::oid").await;
        for text in [
            "no JSON".to_owned(),
            format!("{{\"v\":1,\"kind\":\"rewrite\",\"tag\":\"ALTER TABLE\",\"rewritten\":{oid}}}"),
            format!(
                "{{\"v\":1,\"kind\":\"truncate\",\"tag\":\"X\",\"token\":1,\"leaves\":[{{\"oid\":1,\"root\":{oid},\
                 \"change\":\"truncated\",\"is_empty\":false}}]}}"
            ),
            "[".repeat(10_000),
        ] {
            let emit = format!("SET ROLE liar; SELECT pg_logical_emit_message(true, 'frazil.ddl', '{text}')");
            stage.sql(&emit).await;
        }
        stage.sql("INSERT INTO t VALUES (6, 'x')").await;
        stage.settles_equal(&["public.t"]).await;
        assert_eq!(stage.fields("public.t"), before);
        assert!(!stage.log().contains("copied afresh"), "{}", stage.log());
    })
    .await;
}
