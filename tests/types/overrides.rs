//! `types:` in the configuration: another lake type for a column, copied and streamed, in binary
//! mode and in text mode; a lake written by other settings is copied afresh.

use serde_json::Value;

use crate::behaviour::scene::{Scene, following, metadata, stop};
use crate::support::frazil::{Frazil, Running};

const TABLE: &str = "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN fee AS numeric; \
     CREATE TABLE t(id int PRIMARY KEY, n numeric, fee fee, ns numeric[], whole int, u uuid, \
         day date, flag bit(1), code char(4), wait interval, p pair, r int4range, a int[], \
         spot point, ints int[], price numeric(10,2));";

const TYPES: &str = "
  public.t.n: decimal(38,9)
  public.t.fee: decimal(5, 2)
  public.t.ns: decimal(9,1)
  public.t.whole: string
  public.t.u: string
  public.t.day: string
  public.t.flag: boolean
  public.t.code: trim
  public.t.wait: iso8601
  public.t.p: struct
  public.t.r: struct
  public.t.a: list<list>
  public.t.spot: string
  public.t.ints: string
  public.t.price: string
";

/// A row as values, and as the lake has it.
const ROW: (&str, &[&str]) = (
    "1.5, -12.34, '{1.5,NULL}', -7, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'infinity', B'1', 'ab', \
     '1 year 2 mons -3 days 04:05:06.5', '(1,\"x y\")', '[1,5)', '{{1,2},{3,NULL}}', '(1.5,2)', \
     '[0:1]={1,2}', 'NaN'",
    &[
        "1.500000000",
        "-12.34",
        "[1.5, NULL]",
        "-7",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "infinity",
        "true",
        "ab",
        "P1Y2M-3DT4H5M6.5S",
        "{'a': 1, 'b': x y}",
        "{'empty': false, 'lower': 1, 'upper': 5, 'lower_inc': true, 'upper_inc': false}",
        "[[1, 2], [3, NULL]]",
        "(1.5,2)",
        "[0:1]={1,2}",
        "NaN",
    ],
);

/// What goes to `_pg_raw`: fewer digits or dimensions than the value has.
const RAW_ROW: &str = "'NaN', 12345.6, '{1.55}', 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{1}', \
     NULL, NULL, 1.50";
const RAW_TEXTS: &str = "{n=NaN, fee=12345.6, ns='{1.55}', a='{1}'}";

const COLUMNS: [&str; 15] = [
    "n", "fee", "ns", "whole", "u", "day", "flag", "code", "wait", "p", "r", "a", "spot", "ints",
    "price",
];

fn run(scene: &Scene, types: &str) -> Frazil {
    let path = scene.path("config.yaml");
    std::fs::write(&path, format!("types:\n{types}\n")).unwrap();
    scene.run().arg("--config").arg(path.to_str().unwrap())
}

fn followed(scene: &Scene, types: &str) -> Running {
    following(run(scene, types).spawn())
}

fn row(scene: &mut Scene, id: i32) -> Vec<Option<String>> {
    let texts = COLUMNS.map(|column| format!("{column}::varchar"));
    let sql = format!("SELECT {} FROM {{public.t}} WHERE id = {id}", texts.join(", "));
    scene.lake.query_now(&sql).pop().unwrap()
}

fn assert_rows(scene: &mut Scene, ids: &[i32]) {
    for id in ids {
        let found = row(scene, *id);
        let found: Vec<_> = found.iter().map(|text| text.as_deref().unwrap_or("NULL")).collect();
        assert_eq!(found, ROW.1, "row {id}");
    }
    let sql = "SELECT _pg_raw::varchar FROM {public.t} WHERE id IN (2, 4)";
    let texts = [vec![Some(RAW_TEXTS.to_owned())], vec![Some(RAW_TEXTS.to_owned())]];
    assert_eq!(scene.lake.query_now(sql), texts);
}

/// The table's columns, present and past, by name, with their lake types.
fn lake_type(scene: &mut Scene, column: &str) -> Value {
    let table = metadata(&scene.lake.state(), "public.t");
    let current = &table["current-schema-id"];
    let schemas = table["schemas"].as_array().unwrap();
    let schema = schemas.iter().find(|schema| &schema["schema-id"] == current).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    fields.iter().find(|field| field["name"] == column).unwrap()["type"].clone()
}

async fn copied_and_streamed(more: &str, mode: &str) {
    let mut scene =
        Scene::new(&format!("{TABLE}{more} INSERT INTO t VALUES (1, {}), (2, {RAW_ROW})", ROW.0))
            .await;
    let running = followed(&scene, TYPES);
    assert!(running.stderr().contains(mode), "{}", running.stderr());
    scene.sql(&format!("INSERT INTO t VALUES (3, {}), (4, {RAW_ROW})", ROW.0)).await;
    scene.wait_until_the_lake_holds_it().await;
    assert_rows(&mut scene, &[1, 3]);
    scene.sql("UPDATE t SET id = id + 10 WHERE id IN (1, 3)").await;
    scene.wait_until_the_lake_holds_it().await;
    assert_rows(&mut scene, &[11, 13]);
    stop(running);
    assert_eq!(lake_type(&mut scene, "n"), "decimal(38, 9)");
    assert_eq!(lake_type(&mut scene, "whole"), "string");
}

// cases: 33 35 46 holds
#[tokio::test(flavor = "multi_thread")]
async fn other_lake_types_in_binary_mode() {
    copied_and_streamed("", "binary=true").await;
}

// cases: 33 35 46 holds
#[tokio::test(flavor = "multi_thread")]
async fn other_lake_types_in_text_mode() {
    copied_and_streamed("CREATE TABLE other(id int PRIMARY KEY, r regclass);", "binary=false")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_copy_the_table_afresh() {
    let table = format!("{TABLE} INSERT INTO t VALUES (1, {})", ROW.0);
    let mut scene = Scene::new(&table).await;
    stop(scene.started());
    assert_eq!(lake_type(&mut scene, "n"), "string");
    // What is committed while nothing runs comes by the stream, in the old shape.
    scene.sql("UPDATE t SET code = 'abc', n = 2.50").await;
    let running = followed(&scene, "  public.t.n: decimal(12,4)\n  public.t.code: trim");
    scene.sql(&format!("INSERT INTO t VALUES (3, {})", ROW.0)).await;
    scene.wait_until_the_lake_holds_it().await;
    assert_eq!(lake_type(&mut scene, "n"), "decimal(12, 4)");
    let sql = "SELECT id, n::varchar, code FROM {public.t} ORDER BY id";
    let of =
        |id: &str, n: &str, code: &str| [id, n, code].map(|text| Some(text.to_owned())).to_vec();
    let expected = [of("1", "2.5000", "abc"), of("3", "1.5000", "ab")];
    assert_eq!(scene.lake.query_now(sql), expected);
    assert!(stop(running).stderr.contains("another lake type"), "says why");
    // The same settings again: nothing is copied.
    let running = followed(&scene, "  public.t.n: decimal(12,4)\n  public.t.code: trim");
    scene.sql("UPDATE t SET n = 3 WHERE id = 3").await;
    scene.wait_until_the_lake_holds_it().await;
    assert!(!stop(running).stderr.contains("another lake type"));
    // And without them it is as it was.
    let running = scene.started();
    scene.sql("UPDATE t SET n = 4 WHERE id = 3").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    assert_eq!(lake_type(&mut scene, "n"), "string");
    stop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_refused_before_anything_is_made() {
    let scene = Scene::new(TABLE).await;
    let refused = |types: &str, code: &str, text: &str| {
        let finished = run(&scene, types).finish();
        assert_ne!(finished.code, Some(0));
        finished.said(code).said(text);
    };
    refused("  public.t.n: boolean", "TYPE_OVERRIDE", "only bit(1) can be a boolean, not numeric");
    refused("  public.t.whole: 'decimal(9,2)'", "TYPE_OVERRIDE", "public.t");
    refused("  public.t.gone: string", "TYPE_OVERRIDE", "public.t.gone");
    refused("  public.t.n: decimal(39,1)", "BAD_SETTING", "1 to 38 digits");
    refused("  t.n: string", "BAD_SETTING", "schema.table.column");
    assert_eq!(scene.postgres.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}
