//! Tables and schemas that change their names: the lake's name stays, and a new table of an old
//! name is another table.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 5) g;";

// cases: 101 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_or_moved_table_keeps_its_lake_table() {
    in_every_way(TABLE, async |stage| {
        stage.ddl(&["ALTER TABLE t RENAME TO t2", "INSERT INTO t2 VALUES (6, 'x', 6)"]).await;
        stage.settles_as(&[("public.t", "public.t2")]).await;
        stage
            .ddl(&[
                "CREATE SCHEMA s",
                "ALTER TABLE t2 SET SCHEMA s",
                "UPDATE s.t2 SET a = 'moved' WHERE id < 3",
                "ALTER TABLE s.t2 ADD COLUMN c int DEFAULT 3",
                "INSERT INTO s.t2 VALUES (7)",
            ])
            .await;
        stage.settles_as(&[("public.t", "s.t2")]).await;
        let state = stage.scene.lake.state();
        assert!(!state.tables().any(|table| table.contains("t2")), "{state:?}");
    })
    .await;
}

/// The stream goes on with the schema's old name.
// cases: 102 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_schema_keeps_its_lake_namespace() {
    let table = "CREATE SCHEMA s; CREATE TABLE s.t(id int PRIMARY KEY, a text); \
                 INSERT INTO s.t VALUES (1, 'x');";
    in_every_way(table, async |stage| {
        stage.sql("INSERT INTO s.t VALUES (2, 'x')").await;
        stage.ddl(&["ALTER SCHEMA s RENAME TO s2", "INSERT INTO s2.t VALUES (3, 'y')"]).await;
        stage.settles_as(&[("s.t", "s2.t")]).await;
        stage
            .ddl(&["ALTER TABLE s2.t ADD COLUMN b int DEFAULT 4", "DELETE FROM s2.t WHERE id = 1"])
            .await;
        stage.settles_as(&[("s.t", "s2.t")]).await;
    })
    .await;
}

// cases: 103 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_takes_the_lake_table_of_its_name_over() {
    in_every_way(TABLE, async |stage| {
        let (before, commits) = (stage.fields("public.t"), stage.lake_commits("public.t"));
        stage
            .ddl(&[
                "DROP TABLE t",
                "CREATE TABLE t(id int PRIMARY KEY, b text, a text)",
                "INSERT INTO t VALUES (1, 'before the publication', 'x')",
                "ALTER PUBLICATION frazil ADD TABLE t",
                "INSERT INTO t VALUES (2, 'new', 'y')",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        let fields = stage.fields("public.t");
        assert!(fields.values().all(|id| !before.values().any(|old| old == id)), "{fields:?}");
        assert!(
            stage.lake_commits("public.t") > commits,
            "the old rows can be read by time travel"
        );
        stage
            .ddl(&["UPDATE t SET a = 'z' WHERE id = 1", "ALTER TABLE t ADD COLUMN c int DEFAULT 1"])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}

/// All in one source transaction, as a migration does it, with FOR ALL TABLES.
// cases: 103 109 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_exchanged_in_one_transaction() {
    let all = "CREATE PUBLICATION frazil FOR ALL TABLES;";
    in_every_way(&format!("{TABLE}{all}"), async |stage| {
        stage
            .ddl(&[
                "BEGIN; UPDATE t SET a = 'last' WHERE id = 1; \
                 CREATE TABLE t_new(id int PRIMARY KEY, a text, b int, c int); \
                 INSERT INTO t_new SELECT id, a, b, 1 FROM t; \
                 ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; \
                 INSERT INTO t VALUES (10, 'x', 10, 10); DROP TABLE t_old; COMMIT",
                "DELETE FROM t WHERE id = 2",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}
