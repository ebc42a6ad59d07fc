//! Tables whose key Iceberg does not take as it is, floats and arrays, or whose key has values that
//! the lake's types can't hold: their rows are addressed by `_pg_key` (cases 68, 69).

use serde_json::json;

use super::scene::{Scene, following, metadata, stop};

/// Key columns (with their values), each a table of its own.
const KEYS: &[(&str, &[&str])] = &[
    (
        "float8",
        &["0", "-0.0", "1", "NaN", "Infinity", "-Infinity", "5e-324", "0.30000000000000004"],
    ),
    ("float4", &["0.1", "-0.0", "NaN", "1e-45", "16777216"]),
    ("int[]", &["{}", "{1}", "{1,NULL}", "{{1,2},{3,4}}", "[0:1]={7,8}"]),
    ("text[]", &["{\"\"}", "{a,b}", "{\"a,b\"}", "{NULL}"]),
    ("interval", &["1 mon", "30 days 1 us", "-1 year 2 days"]),
    ("date", &["infinity", "-infinity", "2024-02-29", "4713-11-24 BC"]),
    ("time", &["24:00", "00:00", "23:59:59.999999"]),
    ("timestamp", &["infinity", "-infinity", "294276-12-31", "2000-01-01 00:00:00.5"]),
    ("timestamptz", &["infinity", "294276-12-31 00:00+00", "2000-01-01 00:00+05"]),
    ("numeric(10,2)", &["NaN", "1.50", "0"]),
    ("numeric", &["1.0", "2", "NaN", "1e40"]),
    ("citext_like", &["Ab", "cd", "E f"]),
];

/// A type without case, like citext, which need not be installed here.
const PRELUDE: &str = "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', \
     deterministic = false); CREATE DOMAIN citext_like AS text COLLATE nocase;";

fn tables() -> Vec<String> {
    (0..KEYS.len()).map(|at| format!("public.k{at}")).collect()
}

fn schema() -> String {
    let mut sql = String::from(PRELUDE);
    for (at, (kind, values)) in KEYS.iter().enumerate() {
        sql += &format!(
            "CREATE TABLE k{at}(v int, big text, a int, id {kind} COLLATE_, PRIMARY KEY (id, a)); \
             ALTER TABLE k{at} ALTER big SET STORAGE EXTERNAL;"
        )
        .replace("COLLATE_", "");
        for value in *values {
            sql += &insert(at, value, 1);
        }
    }
    sql
}

fn insert(table: usize, value: &str, a: i32) -> String {
    format!(
        "INSERT INTO k{table} VALUES (0, repeat(md5('{value}'), 100), {a}, '{value}') \
         ON CONFLICT DO NOTHING;"
    )
}

/// Each is a source transaction over all the tables.
fn steps() -> Vec<String> {
    let each = |work: &dyn Fn(usize, &str) -> String| -> String {
        let of = |(at, (_, values)): (usize, &(&str, &[&str]))| -> String {
            values.iter().map(|value| work(at, value)).collect()
        };
        KEYS.iter().enumerate().map(of).collect()
    };
    let all = |sql: &str| -> String {
        (0..KEYS.len()).map(|at| sql.replace("TABLE", &format!("k{at}")) + ";").collect()
    };
    vec![
        // Unchanged TOAST is found by `_pg_key`.
        all("UPDATE TABLE SET v = v + 1"),
        each(&|at, value| insert(at, value, 2)),
        all("UPDATE TABLE SET v = v + 1 WHERE a = 2") + &all("UPDATE TABLE SET v = v + 1"),
        all("UPDATE TABLE SET a = a + 10 WHERE a = 2"),
        all("DELETE FROM TABLE WHERE a = 12"),
        // Equal by type, not by bytes.
        "UPDATE k0 SET id = -id WHERE id = 0; UPDATE k1 SET id = -id WHERE id = 0; \
         UPDATE k10 SET id = 1.00 WHERE id = 1; UPDATE k10 SET id = 1.000 WHERE id = 1; \
         UPDATE k11 SET id = 'aB' WHERE id = 'AB'; UPDATE k4 SET id = '1 mon 1 us' WHERE id = '30 days 1 us'"
            .into(),
        each(&|at, value| format!("DELETE FROM k{at} WHERE id = '{value}';") + &insert(at, value, 3)),
        all("UPDATE TABLE SET v = 7"),
        all("DELETE FROM TABLE"),
        each(&|at, value| insert(at, value, 4)),
    ]
}

async fn follow(text_mode: bool) {
    // A type whose binary form is not known puts the stream in text mode.
    let other = if text_mode { "CREATE TABLE other(id int PRIMARY KEY, p regclass);" } else { "" };
    let mut scene = Scene::new(&format!("{}{other}", schema())).await;
    let run = scene.run().env("FRAZIL_TABLES__HIDDEN_KEY", "public.k*");
    let running = following(run.spawn());
    assert!(running.stderr().contains(&format!("binary={}", !text_mode)), "{}", running.stderr());
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    scene.assert_equal(&tables).await;
    for step in steps() {
        scene.sql(&step).await;
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(&tables).await;
    }
    // In one window.
    let all: Vec<String> = steps();
    scene.sql(&all.join(";")).await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&tables).await;
    stop(running);
}

// cases: 68 69 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_key_in_binary_mode() {
    follow(false).await;
}

// cases: 68 69 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_key_in_text_mode() {
    follow(true).await;
}

/// What COPY wrote is found by a stream in binary mode, and what that wrote by one in text mode.
// cases: 60 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_mode_may_change() {
    let mut scene = Scene::new(&schema()).await;
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let catch_up = |scene: &Scene, mode: &str| {
        let run = scene.run().arg("--until-caught-up");
        run.env("FRAZIL_TABLES__HIDDEN_KEY", "public.k*").finish().succeeded().said(mode);
    };
    catch_up(&scene, "binary=true");
    for step in &steps()[..3] {
        scene.sql(step).await;
    }
    catch_up(&scene, "binary=true");
    scene.assert_equal(&tables).await;
    scene
        .sql("ALTER TABLE k0 ADD COLUMN p regclass; UPDATE k0 SET p = 'pg_class' WHERE a = 1")
        .await;
    for step in &steps()[3..7] {
        scene.sql(step).await;
    }
    let running = following(scene.run().spawn());
    scene.wait_until_the_lake_holds_it().await;
    stop(running).said("binary=false");
    scene.assert_equal(&tables).await;
}

/// Only where it is needed: a key of a plain type stays as it is, and the hidden one alone is the
/// identifier.
#[tokio::test(flavor = "multi_thread")]
async fn the_schema_says_which() {
    let mut scene = Scene::new(
        "CREATE TABLE plain(id timestamptz PRIMARY KEY); CREATE TABLE f(id float8 PRIMARY KEY, v int);
         INSERT INTO plain VALUES ('2000-01-01'); INSERT INTO f VALUES ('-0', 1), ('NaN', 2)",
    )
    .await;
    scene.catch_up().succeeded();
    let state = scene.lake.state();
    let identifiers = |table: &str| {
        let metadata = metadata(&state, table);
        let schema = &metadata["schemas"][0];
        let named = |id: &serde_json::Value| {
            let mut fields = schema["fields"].as_array().unwrap().iter();
            fields.find(|field| field["id"] == *id).unwrap()["name"].clone()
        };
        schema["identifier-field-ids"].as_array().unwrap().iter().map(named).collect::<Vec<_>>()
    };
    assert_eq!(identifiers("public.plain"), [json!("id")]);
    assert_eq!(identifiers("public.f"), [json!("_pg_key")]);
    let keys = scene.lake.query_now("SELECT _pg_key FROM {public.f} ORDER BY v");
    assert_eq!(keys, [[Some("2:-0".into())], [Some("3:NaN".into())]]);
}
