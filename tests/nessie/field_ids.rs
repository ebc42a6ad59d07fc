//! The field ids that are in the data files are those of the table, whatever Nessie thinks of them:
//! it gives new ones to a table's first schema.

use super::{Scene, stop};

const TABLES: [&str; 5] =
    ["public.gaps", "public.nested", "public.late_key", "public.key_after_array", "public.raw"];

#[tokio::test(flavor = "multi_thread")]
async fn columns_keep_their_ids_from_the_first_lake_commit_on() {
    let mut scene = Scene::new(
        "CREATE TABLE gaps(id int PRIMARY KEY, gone text, a text, also_gone int, b text);
         ALTER TABLE gaps DROP COLUMN gone, DROP COLUMN also_gone;
         INSERT INTO gaps VALUES (1, 'a1', 'b1'), (2, 'a2', NULL);
         CREATE TABLE nested(x int[], i interval, y text[], id int, PRIMARY KEY (id));
         INSERT INTO nested VALUES ('{1,2}', '1 day 2 hours', '{a,b}', 1);
         CREATE TABLE late_key(a text, b text, k2 text, k1 int, PRIMARY KEY (k2, k1));
         INSERT INTO late_key VALUES ('a', 'b', 'k', 1), ('a', 'b', 'k', 2);
         CREATE TABLE key_after_array(id int, x int[], y text, PRIMARY KEY (y, id));
         INSERT INTO key_after_array VALUES (1, '{1,2}', 'k');
         CREATE TABLE raw(id int PRIMARY KEY, d date, n numeric(4,1));
         INSERT INTO raw VALUES (1, 'infinity', 1.5), (2, '2026-01-01', 'NaN');",
    )
    .await;
    let tables = TABLES.map(String::from);
    let running = scene.started();
    scene.assert_equal(&tables).await;
    let ids = async |table: &str| -> Vec<i64> {
        let found = scene.branch.get(&format!("namespaces/public/tables/{table}")).await;
        let metadata = &found["metadata"];
        let snapshot_schema = &metadata["snapshots"][0]["schema-id"];
        assert_eq!(*snapshot_schema, metadata["current-schema-id"], "{metadata:#}");
        let schemas = metadata["schemas"].as_array().unwrap();
        let current = schemas.iter().find(|s| s["schema-id"] == *snapshot_schema).unwrap();
        let fields = current["fields"].as_array().unwrap();
        fields.iter().map(|field| field["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids("gaps").await, [1, 3, 5]);
    assert_eq!(ids("raw").await, [1, 2, 3, 1_000_000]);

    scene
        .sql(
            "UPDATE gaps SET b = 'new' WHERE id = 2; INSERT INTO gaps VALUES (3, 'a3', 'b3');
             UPDATE nested SET x = '{{1},{2}}', y = '{c}'; DELETE FROM late_key WHERE k1 = 1;
             UPDATE late_key SET a = 'z'; UPDATE raw SET d = '-infinity' WHERE id = 2;",
        )
        .await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&tables).await;

    // There and back: the table has had such a schema before.
    for (from, to) in [("a", "c"), ("c", "a"), ("a", "c")] {
        scene.sql(&format!("ALTER TABLE gaps RENAME {from} TO {to}")).await;
        scene.sql(&format!("UPDATE gaps SET {to} = {to} || 'x'")).await;
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(&tables).await;
    }
    stop(running);
}
