//! Names that need care in SQL, in URLs, in object keys and in Nessie's own keys. Each table is in
//! the lake under its very name, or it is refused by its name.

use super::Scene;

/// Schema and table, as they are.
const NAMES: &[(&str, &str)] = &[
    ("public", "Mixed Case"),
    ("public", "with\"quote"),
    ("public", "with'apostrophe"),
    ("public", "percent%41%"),
    ("public", "slash/back\\slash"),
    ("public", "żółw 🐢"),
    ("public", "plus+and&equals="),
    ("public", "dots.in.name"),
    ("public", "select"),
    ("Odd Schema", "t"),
    ("sch/ema%", "t"),
    ("ünï", "t"),
];

fn quoted((schema, name): (&str, &str)) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    format!("{}.{}", quote(schema), quote(name))
}

// cases: 175 176 holds
#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_kept_as_they_are() {
    let mut scene = Scene::new("SELECT 1").await;
    let mut sql = String::new();
    for (schema, name) in NAMES {
        let table = quoted((schema, name));
        let schema = schema.replace('"', "\"\"");
        sql.push_str(&format!(
            "CREATE SCHEMA IF NOT EXISTS \"{schema}\"; \
             CREATE TABLE {table}(id int PRIMARY KEY, \"col umn \"\" é\" text); \
             INSERT INTO {table} VALUES (1, 'a'), (2, 'b');"
        ));
    }
    scene.sql(&sql).await;
    let running = scene.started();
    for name in NAMES {
        let table = quoted(*name);
        let column = "\"col umn \"\" é\"";
        scene
            .sql(&format!(
                "UPDATE {table} SET {column} = 'c' WHERE id = 1; DELETE FROM {table} WHERE id = 2; \
                 INSERT INTO {table} VALUES (3, 'd')"
            ))
            .await;
    }
    scene.wait_until_the_lake_holds_it().await;
    super::stop(running);
    let state = scene.lake.state();
    for name in NAMES {
        let in_lake = format!("{}.{}", name.0, name.1);
        let (lake, postgres) = (&mut scene.lake, &scene.postgres);
        if in_lake.contains('"') {
            // DuckDB takes no such path; by the attached catalog it does.
            let sql = format!("SELECT id, \"col umn \"\" é\" FROM {{{in_lake}}} ORDER BY id");
            let rows = lake.query_attached(state.hash(), &sql);
            let row = |id: &str, text: &str| vec![Some(id.to_string()), Some(text.to_string())];
            assert_eq!(rows, [row("1", "c"), row("3", "d")]);
            continue;
        }
        let found = lake.compare_as(&state, postgres, (&in_lake, &quoted(*name))).await;
        assert!(found.is_equal(), "{in_lake}: {found:#?}");
    }
}

/// `table@branch` and `table#hash` are Nessie's own words, and dots alone are no name to it.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_nessie_cannot_hold_are_refused_by_name() {
    for name in ["a@b", "a#b", "..", "a/../b"] {
        let scene = Scene::new(&format!("CREATE TABLE \"{name}\"(id int PRIMARY KEY)")).await;
        let ended = scene.catch_up();
        eprintln!("{name}: {:?}: {}", ended.code, ended.stderr);
        assert!(matches!(ended.code, Some(1 | 78)), "{ended:#?}");
        assert!(ended.stderr.contains(&format!("[table public.{name}]")), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_name_with_a_dot_is_kept_or_refused_by_its_name() {
    let mut scene = Scene::new(
        "CREATE SCHEMA \"a.b\"; CREATE TABLE \"a.b\".\"c.d\"(id int PRIMARY KEY); \
         INSERT INTO \"a.b\".\"c.d\" VALUES (1), (2); \
         CREATE SCHEMA a; CREATE TABLE a.\"b.c.d\"(id int PRIMARY KEY)",
    )
    .await;
    let ended = scene.catch_up();
    eprintln!("{:?}: {}", ended.code, ended.stderr);
    if ended.code == Some(0) {
        let state = scene.lake.state();
        let (lake, postgres) = (&mut scene.lake, &scene.postgres);
        let found = lake.compare_as(&state, postgres, ("a.b.c.d", "\"a.b\".\"c.d\"")).await;
        assert!(found.is_equal(), "{found:#?}");
    } else {
        assert!(matches!(ended.code, Some(1 | 78)), "{ended:#?}");
        assert!(ended.stderr.contains("a.b"), "{}", ended.stderr);
    }
}
