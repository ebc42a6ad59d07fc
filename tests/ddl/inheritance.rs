//! Classic inheritance: a parent's rows are its own, and its children are tables beside it.

use super::stage::in_every_way;

const TREE: &str = "CREATE TABLE parent(id int PRIMARY KEY, v text); \
     CREATE TABLE child(extra int, CONSTRAINT child_key PRIMARY KEY (id)) INHERITS (parent); \
     INSERT INTO parent VALUES (1, 'parent'); INSERT INTO child VALUES (2, 'child', 3); \
     CREATE VIEW only_parent AS SELECT * FROM ONLY parent;";

// cases: 119 holds
#[tokio::test(flavor = "multi_thread")]
async fn parent_and_child_are_two_lake_tables() {
    in_every_way(TREE, async |stage| {
        let pairs = [("public.parent", "public.only_parent"), ("public.child", "public.child")];
        stage.ddl(&["INSERT INTO parent VALUES (3, 'x')", "UPDATE parent SET v = v || '!'"]).await;
        stage.settles_as(&pairs).await;
        stage
            .ddl(&[
                "ALTER TABLE parent ADD COLUMN c int DEFAULT 7",
                "CREATE OR REPLACE VIEW only_parent AS SELECT * FROM ONLY parent",
                "INSERT INTO child VALUES (4, 'x', 4, 4)",
                "DELETE FROM parent WHERE id = 2",
            ])
            .await;
        stage.settles_as(&pairs).await;
        stage
            .ddl(&[
                "ALTER TABLE parent ADD COLUMN r float8 DEFAULT random()",
                "CREATE OR REPLACE VIEW only_parent AS SELECT * FROM ONLY parent",
            ])
            .await;
        stage.settles_as(&pairs).await;
    })
    .await;
}
