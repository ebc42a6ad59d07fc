//! `values:` in the configuration: what happens to a value that its column's lake type can't hold.

use crate::behaviour::scene::{Scene, following, stop};
use crate::support::frazil::{DEADLINE, Frazil};

const TABLES: &str = "CREATE TABLE t(id int PRIMARY KEY, n numeric(5,2), day date, at timestamp, \
         o time, days date[], whole numeric); \
     CREATE TABLE other(id int PRIMARY KEY, day date);";

fn run(scene: &Scene, config: &str) -> Frazil {
    let path = scene.path("config.yaml");
    std::fs::write(&path, config).unwrap();
    scene.run().arg("--config").arg(path.to_str().unwrap())
}

fn rows(scene: &mut Scene, sql: &str) -> Vec<Vec<String>> {
    let rows = scene.lake.query_now(sql);
    rows.into_iter()
        .map(|row| row.into_iter().map(|c| c.unwrap_or("NULL".into())).collect())
        .collect()
}

const CLAMP: &str = "
types: {public.t.whole: 'decimal(5,1)'}
values: {tables: {public.t: clamp}}";

const FAR: &str = "'NaN', 'infinity', '-infinity', '24:00', '{2000-01-01,infinity}', 12345.67";
const NEAR: &str = "1.5, '20000-01-01', '4000-01-01 BC', '12:00', '{}', 0.25";

async fn clamped(more: &str, mode: &str) {
    let mut scene = Scene::new(&format!(
        "{TABLES}{more} INSERT INTO t VALUES (1, {FAR}), (2, {NEAR}); \
         INSERT INTO other VALUES (1, 'infinity')"
    ))
    .await;
    let running = following(run(&scene, CLAMP).spawn());
    assert!(running.stderr().contains(mode), "{}", running.stderr());
    scene
        .sql(&format!(
            "INSERT INTO t VALUES (3, {FAR}), (4, {NEAR}); INSERT INTO other VALUES (3, 'infinity')"
        ))
        .await;
    scene.wait_until_the_lake_holds_it().await;
    let sql = "SELECT n::varchar, day::varchar, \"at\"::varchar, o::varchar, days::varchar, \
               whole::varchar FROM {public.t} WHERE id IN (IDS) ORDER BY id";
    let far = [
        "NULL",
        "9999-12-31",
        "0001-01-01 00:00:00",
        "23:59:59.999999",
        "[2000-01-01, 9999-12-31]",
        "9999.9",
    ];
    let near = ["1.50", "9999-12-31", "0001-01-01 00:00:00", "12:00:00", "[]", "0.3"];
    for (ids, expected) in [("1, 3", far), ("2, 4", near)] {
        assert_eq!(rows(&mut scene, &sql.replace("IDS", ids)), [expected, expected]);
    }
    // What is near to nothing keeps its text; and another table its rule.
    let raw =
        "SELECT id, _pg_raw::varchar FROM {public.TABLE} WHERE _pg_raw IS NOT NULL ORDER BY id";
    assert_eq!(rows(&mut scene, &raw.replace("TABLE", "t")), [["1", "{n=NaN}"], ["3", "{n=NaN}"]]);
    let other = [["1", "{day=infinity}"], ["3", "{day=infinity}"]];
    assert_eq!(rows(&mut scene, &raw.replace("TABLE", "other")), other);
    let stderr = stop(running).stderr;
    let said = |text: &str| stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(said("CLAMPED"), 2, "of the copy and of the stream:\n{stderr}");
    assert!(stderr.contains("table=\"public.t\" values=8"), "{stderr}");
}

// cases: 33 40 holds
#[tokio::test(flavor = "multi_thread")]
async fn clamp_in_binary_mode() {
    clamped("", "binary=true").await;
}

// cases: 33 40 holds
#[tokio::test(flavor = "multi_thread")]
async fn clamp_in_text_mode() {
    clamped("CREATE TABLE x(id int PRIMARY KEY, r regclass);", "binary=false").await;
}

// cases: 33 stops UNREPRESENTABLE
#[tokio::test(flavor = "multi_thread")]
async fn error_stops_before_the_value() {
    let mut scene = Scene::new(TABLES).await;
    let config = "values: {on_unrepresentable: error, tables: {public.other: raw}}";
    let running = following(run(&scene, config).spawn());
    scene.sql("INSERT INTO other VALUES (1, 'infinity'); INSERT INTO t VALUES (1, 1.5)").await;
    scene.wait_until_the_lake_holds_it().await;
    let before = scene.position();
    let inserted = scene.sql("INSERT INTO t VALUES (2, 1), (3, 'NaN') RETURNING id").await;
    assert_eq!(inserted.len(), 2);
    let ended = running.wait(DEADLINE);
    assert_ne!(ended.code, Some(0));
    let ended = ended.said("UNREPRESENTABLE").said("public.t").said("NaN").said("0/");
    assert!(ended.stderr.contains('n'), "the column");
    assert_eq!(scene.position(), before);
    assert_eq!(rows(&mut scene, "SELECT count(*) FROM {public.t}"), [["1"]]);
    // With another rule it goes on.
    run(&scene, "values: {}").arg("--until-caught-up").finish().succeeded();
    scene.assert_equal(&["public.t", "public.other"]).await;
}

// cases: 33 stops UNREPRESENTABLE
#[tokio::test(flavor = "multi_thread")]
async fn error_stops_the_copy() {
    let scene = Scene::new(&format!("{TABLES} INSERT INTO t VALUES (1, 'NaN')")).await;
    let ended = run(&scene, "values: {on_unrepresentable: error}").finish();
    assert_ne!(ended.code, Some(0));
    ended.said("UNREPRESENTABLE").said("public.t").said("NaN");
}
