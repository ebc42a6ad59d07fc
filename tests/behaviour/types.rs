//! Every type with its extreme values, copied and streamed, in binary mode and in text mode: the
//! lake holds the value, or NULL with the Postgres text in `_pg_raw`.

use super::scene::{Scene, following, stop};
use crate::support::servers;

const PRELUDE: &str = "CREATE TYPE mood AS ENUM ('sad', 'so, \"so\"', ''); \
     CREATE DOMAIN price AS numeric(12,3) CHECK (VALUE > -10); CREATE DOMAIN fee AS price; \
     CREATE TYPE pair AS (a int, b text); \
     CREATE TYPE whole AS (n numeric(9,2), f float8, p pair, l int[], j json, t timestamptz);";

/// Types with a known binary form, each with values; what the lake can't hold stands after `|`.
const KNOWN: &[(&str, &str)] = &[
    ("bool", "t;f"),
    ("int2", "-32768;32767"),
    ("int4", "-2147483648;2147483647"),
    ("int8", "-9223372036854775808;9223372036854775807"),
    ("oid", "0;4294967295"),
    ("float4", "NaN;Infinity;-Infinity;-0;1e-45;3.4028235e38;0.1"),
    ("float8", "NaN;Infinity;-Infinity;-0;5e-324;1.7976931348623157e308;0.30000000000000004"),
    ("numeric(10,2)", "99999999.99;-99999999.99;0.01;-0.10|NaN"),
    ("numeric(38,0)", "99999999999999999999999999999999999999;-1|NaN"),
    ("numeric(38,38)", "-0.99999999999999999999999999999999999999;0|NaN"),
    ("numeric(3,-2)", "99900;-12345"),
    ("numeric(3,5)", "0.00999;-0.00001"),
    ("numeric(39,1)", "99999999999999999999999999999999999999.9;NaN"),
    ("numeric", "1e131071;-1e-16383;0.10;0.00;NaN;Infinity;-Infinity;12345.678900"),
    ("text", ";~NULL~;żółw 🐢;a,\"b\"\\c"),
    ("varchar(5)", "ab   ;żżżżż"),
    ("char(4)", "ab;    ;żó"),
    ("bytea", "\\x;\\x00;\\x00ff5c27"),
    ("date", "2000-01-01;4713-11-24 BC;5874897-12-31;0001-01-01|infinity;-infinity"),
    ("time", "00:00;23:59:59.999999|24:00"),
    (
        "timestamp",
        "2000-01-01 00:00:00.000001;4713-11-24 BC;294246-12-31;1582-10-10|infinity;-infinity;294276-12-31",
    ),
    (
        "timestamptz",
        "1999-12-31 23:59:59.999999+00;4714-11-24 00:00:00+00 BC;2024-02-29 12:00+05:30|infinity;-infinity;294276-12-31 00:00+00",
    ),
    ("interval", "1 year -2 mons +3 days -04:05:06.789;178000000 years;-178000000 years;0;-1 us"),
    ("uuid", "00000000-0000-0000-0000-000000000000;ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ("json", "{\"a\" : 1,  \"a\":2};null;[]"),
    ("jsonb", "{\"b\": 1e400, \"a\": [null, \"ż\"]};null"),
    ("mood", "sad;so, \"so\";"),
    ("price", "-9.999;123456789.123|NaN"),
    ("fee", "0.001|NaN"),
    ("bool[]", "{t,f,NULL};{}"),
    ("int2[]", "{-32768,NULL};{}|{{1,2},{3,4}};[0:1]={7,8};[2:2]={5}"),
    ("int4[]", "{1};{NULL}|{{{1}}}"),
    ("int8[]", "{9223372036854775807}"),
    ("float8[]", "{NaN,-0,Infinity,NULL}"),
    ("float4[]", "{1e-45}"),
    ("numeric(5,2)[]", "{1.50,-999.99,NULL}|{1.5,NaN}"),
    ("numeric[]", "{1.50,NaN,Infinity,1e300}"),
    ("text[]", "{\"\",NULL,\"NULL\",\"a,b\\\"\\\\\"};{}|{{a,b}}"),
    ("char(3)[]", "{a,\"bc \"}"),
    ("bytea[]", "{\"\\\\x00\",\"\\\\x\"}"),
    ("date[]", "{2000-01-01,NULL}|{infinity,2000-01-01}"),
    ("time[]", "{12:00}|{24:00}"),
    ("timestamp[]", "{2000-01-01}|{2000-01-01,infinity}"),
    ("timestamptz[]", "{\"2000-01-01 00:00+00\",NULL}|{-infinity}"),
    ("interval[]", "{1 mon,-1 us}"),
    ("uuid[]", "{00000000-0000-0000-0000-000000000000}"),
    ("jsonb[]", "{\"{\\\"a\\\": 1}\"}"),
    ("mood[]", "{sad,\"so, \\\"so\\\"\",\"\"}"),
];

/// Types whose text frazil writes from the binary form, and other shapes.
const WRITTEN: &[(&str, &str)] = &[
    ("inet", "10.0.0.1/8;::1;10.0.0.1;::ffff:1.2.3.4"),
    ("cidr", "10.0.0.0/8;::/0"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("macaddr8", "08:00:2b:01:02:03:04:05"),
    ("int4range", "[1,5);empty;(,)"),
    ("numrange", "[1.50,);(,NaN]"),
    ("int4range[]", "{\"[1,5)\",empty}"),
    ("nummultirange", "{[1.5,2],[3,4)};{}"),
    ("tstzrange", "[2000-01-01 00:00+00,infinity)"),
    ("point", "(1.5,-0);(NaN,Infinity)"),
    ("point[]", "{\"(1,2)\",NULL};{}"),
    ("line", "{1,2,3}"),
    ("lseg", "[(1,2),(3,4)]"),
    ("path", "((1,2),(3,4));[(1,2)]"),
    ("circle", "<(1,2),0.5>"),
    ("box", "(2,2),(1,1)"),
    ("box[]", "{(2,2),(1,1)}"),
    ("polygon", "((0,0),(1,1),(1,0))"),
    ("bit(3)", "101"),
    ("varbit", "10110;"),
    ("tsvector", "'a':1A 'b c':2"),
    ("tsquery", "!(a & b:*A) & c <-> d;"),
    ("xml", "<a>ż</a>"),
    ("timetz", "24:00:00+15:59:59;00:00:00-15:59"),
    ("pg_lsn", "FFFFFFFF/FFFFFFFF;0/0"),
    ("pg_snapshot", "10:20:10,14"),
    ("tid", "(1,2)"),
    ("money", "-92233720368547758.08;0.05"),
    ("money[]", "{1.50,NULL}"),
    ("pair", "(1,\"a \"\"b\"\"\");(,)"),
    ("pair[]", "{\"(1,x)\",NULL}"),
    (
        "whole",
        "(1.50,NaN,\"(1,\"\"a b\"\")\",\"{1,NULL}\",\"{\"\"a\"\" :1}\",2000-01-01 00:00:00+00)",
    ),
    ("inet[]", "{10.0.0.1/8,NULL}"),
    ("name", "pg_class"),
    ("\"char\"", "x"),
    ("xid", "4294967295"),
    ("xid8", "18446744073709551615"),
    ("int2vector", "1 2;"),
    ("jsonpath", "$.\"a\"[*]"),
];

/// Types that frazil knows by their text only; one of them and the whole stream is text.
const OPAQUE: &[(&str, &str)] = &[("regclass", "pg_class"), ("aclitem", "postgres=r/postgres")];

/// What the server knows of them: numeric got infinity with 14, and other scales than 0 to its
/// precision with 15; multiranges came with 14.
fn known_here(types: &[(&str, &str)]) -> Vec<(String, String)> {
    let (no_infinity, no_scale) = (servers::major() < 14, servers::major() < 15);
    let is_new = |kind: &str| {
        (no_scale && ["numeric(3,-2)", "numeric(3,5)"].contains(&kind))
            || (no_infinity && kind == "nummultirange")
    };
    let mut known = Vec::new();
    for (kind, text) in types.iter().filter(|(kind, _)| !is_new(kind)) {
        let mut text = (*text).to_owned();
        if no_infinity && kind.starts_with("numeric") {
            for infinity in [";Infinity", ";-Infinity", "Infinity,"] {
                text = text.replace(infinity, "");
            }
        }
        known.push(((*kind).to_owned(), text));
    }
    known
}

/// Binary mode came with 14.
fn binary() -> &'static str {
    if servers::major() < 14 { "binary=false" } else { "binary=true" }
}

fn values(text: &str) -> Vec<String> {
    let all = text.split('|').flat_map(|part| part.split(';'));
    all.map(|value| format!("'{}'", value.replace('\'', "''"))).collect()
}

/// `table(id, c0, c1, ...)` and rows in which each column goes through its values.
fn table(name: &str, types: &[(String, String)]) -> (String, Vec<String>) {
    let columns: Vec<_> =
        types.iter().enumerate().map(|(at, (kind, _))| format!("c{at} {kind}")).collect();
    let ddl = format!("CREATE TABLE {name}(id int PRIMARY KEY, {});", columns.join(", "));
    let of: Vec<_> = types.iter().map(|(_, text)| values(text)).collect();
    let rows = of.iter().map(Vec::len).max().unwrap();
    let row = |at: usize| {
        let cells: Vec<_> = of.iter().map(|values| values[at % values.len()].clone()).collect();
        format!("INSERT INTO {name} VALUES ({at}, {});", cells.join(", "))
    };
    let nulls = format!("INSERT INTO {name}(id) VALUES (-1);");
    (ddl, (0..rows).map(row).chain([nulls]).collect())
}

/// A table `copied` with a column and all values of every type, those of `more` too.
pub(crate) fn every_type(prelude: &str, more: &[(&str, &str)]) -> String {
    let (table, rows) = table("copied", &known_here(&[KNOWN, WRITTEN, OPAQUE, more].concat()));
    format!("{PRELUDE}{prelude}{table}{}", rows.concat())
}

async fn copied_and_streamed(extra: &[(&str, &str)], mode: &str) {
    let types = [KNOWN, WRITTEN, extra].concat();
    the_same_either_way(PRELUDE, &types, mode).await;
}

/// Copies and streams every value of `types`, inserts and updates; the lake is the source then.
pub(crate) async fn the_same_either_way(prelude: &str, types: &[(&str, &str)], mode: &str) {
    let types = known_here(types);
    let (copied, copied_rows) = table("copied", &types);
    let (streamed, streamed_rows) = table("streamed", &types);
    let mut scene =
        Scene::new(&format!("{prelude}{copied}{streamed}{}", copied_rows.concat())).await;
    // Settings of the role must not change what is read (case 59).
    scene
        .sql(
            "ALTER ROLE postgres SET datestyle = 'SQL, DMY'; ALTER ROLE postgres SET intervalstyle = 'iso_8601'; \
             ALTER ROLE postgres SET extra_float_digits = 0; ALTER ROLE postgres SET bytea_output = 'escape'; \
             ALTER ROLE postgres SET timezone = 'Asia/Kolkata'",
        )
        .await;
    let running = scene.started();
    let stderr = running.stderr();
    assert!(stderr.contains(mode), "not {mode}:\n{stderr}");
    scene.assert_equal(&["public.copied"]).await;
    scene.sql(&streamed_rows.concat()).await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.copied", "public.streamed"]).await;
    if types.iter().any(|(_, text)| text.contains('|')) {
        raw_texts(&mut scene, &types);
    }
    // Every value once more as an update, of a row that was copied and of one that was streamed.
    let sets: Vec<_> = (0..types.len()).map(|at| format!("c{at} = s.c{at}")).collect();
    for name in ["copied", "streamed"] {
        scene
            .sql(&format!(
                "UPDATE {name} t SET {} FROM {name} s WHERE s.id = (t.id + 1) % 9 AND t.id >= 0; \
                 DELETE FROM {name} WHERE id = 3; UPDATE {name} SET id = id + 100 WHERE id < 3",
                sets.join(", ")
            ))
            .await;
    }
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.copied", "public.streamed"]).await;
    stop(running);
}

/// `_pg_raw` has exactly the values after the `|`, by column.
fn raw_texts(scene: &mut Scene, types: &[(String, String)]) {
    for (at, (kind, text)) in types.iter().enumerate() {
        let expected = text.split_once('|').is_some();
        let sql =
            format!("SELECT count(*) FROM {{public.streamed}} WHERE _pg_raw['c{at}'] IS NOT NULL");
        let found = scene.lake.query_now(&sql)[0][0].as_deref() != Some("0");
        assert_eq!(found, expected, "_pg_raw of {kind}");
        let both = format!("{sql} AND c{at} IS NOT NULL");
        assert_eq!(scene.lake.query_now(&both)[0][0].as_deref(), Some("0"), "{kind}");
    }
}

// cases: 28 29 30 31 32 35 36 37 38 39 40 41 42 45 46 49 51 53 59 60 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_known_type_in_binary_mode() {
    copied_and_streamed(&[], binary()).await;
}

// cases: 28 29 30 31 32 34 35 36 37 38 39 40 41 42 45 46 49 51 53 56 59 60 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_type_in_text_mode() {
    copied_and_streamed(OPAQUE, "binary=false").await;
}

const KEYS: &[(&str, &str)] = &[
    ("bool", "t;f"),
    ("int2", "-32768;32767"),
    ("int8", "-9223372036854775808;9223372036854775807;0"),
    ("oid", "0;4294967295"),
    ("numeric(10,2)", "99999999.99;-0.10;0"),
    ("numeric", "1e40;0.10;NaN;-Infinity"),
    ("text", ";żółw 🐢;~NULL~"),
    ("varchar(9)", "a;a "),
    ("char(4)", "ab;    "),
    ("bytea", "\\x;\\x00;\\x00ff"),
    ("date", "4713-11-24 BC;5874897-12-31;2000-01-01"),
    ("time", "00:00;23:59:59.999999"),
    ("timestamp", "2000-01-01 00:00:00.000001;4713-11-24 BC;294246-12-31"),
    ("timestamptz", "1999-12-31 23:59:59.999999+00;2024-02-29 12:00+05:30"),
    ("uuid", "00000000-0000-0000-0000-000000000000;ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ("jsonb", "{\"a\": 1.50};null"),
    ("mood", "sad;so, \"so\";"),
    ("fee", "0.001;5"),
];

const WRITTEN_KEYS: &[(&str, &str)] = &[
    ("inet", "10.0.0.1/8;10.0.0.1;::1"),
    ("timetz", "24:00:00+15:59:59;00:00+00"),
    ("int4range", "[1,5);empty"),
    ("pg_lsn", "FFFFFFFF/FFFFFFFF;0/0"),
    ("varbit", "101;"),
    ("pair", "(1,x);(,)"),
    ("money", "1.50;-1"),
    ("macaddr", "08:00:2b:01:02:03"),
];

const OPAQUE_KEYS: &[(&str, &str)] = &[("regclass", "pg_class;pg_type")];

async fn keyed(keys: &[(&str, &str)], mode: &str) {
    let mut schema = String::from(PRELUDE);
    let mut fill = String::new();
    let mut work = String::new();
    let mut tables = Vec::new();
    let keys = known_here(keys);
    for (at, (kind, text)) in keys.iter().enumerate() {
        schema.push_str(&format!("CREATE TABLE k{at}(id {kind} PRIMARY KEY, v int);"));
        for value in values(text) {
            fill.push_str(&format!("INSERT INTO k{at} VALUES ({value}, 1);"));
        }
        let first = &values(text)[0];
        work.push_str(&format!(
            "UPDATE k{at} SET v = v + 1; DELETE FROM k{at} WHERE id = {first}::{kind}; \
             INSERT INTO k{at} VALUES ({first}, 9);"
        ));
        tables.push(format!("public.k{at}"));
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut scene = Scene::new(&format!("{schema}{fill}")).await;
    let running = following(scene.run().spawn());
    assert!(running.stderr().contains(mode), "{}", running.stderr());
    for round in 0..3 {
        // The third round's deletes stand in a window of their own.
        for part in work.split(';').filter(|part| round > 0 || !part.trim().is_empty()) {
            if round == 2 || round == 0 {
                scene.sql(part).await;
            }
        }
        if round == 1 {
            scene.sql(&work).await;
        }
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(&tables).await;
    }
    let deletes: Vec<_> = (0..keys.len()).map(|at| format!("DELETE FROM k{at}")).collect();
    scene.sql(&deletes.join(";")).await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&tables).await;
    stop(running);
}

// cases: 35 holds
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_known_type() {
    keyed(&[KEYS, WRITTEN_KEYS].concat(), binary()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_in_text_mode() {
    keyed(&[KEYS, WRITTEN_KEYS, OPAQUE_KEYS].concat(), "binary=false").await;
}

/// Arrays over what the comparison has no canonical text for: of a domain, and of a type that is
/// known by its text only, which is then the text of the whole array.
// cases: 45 49 56 holds
#[tokio::test(flavor = "multi_thread")]
async fn arrays_of_domains_and_of_opaque_types() {
    let schema = "CREATE TABLE a(id int PRIMARY KEY, p price[], i aclitem[], r regclass[]);";
    let row = |id: i32| {
        format!(
            "INSERT INTO a VALUES ({id}, '{{1.5,NULL,2}}', '{{postgres=r/postgres,NULL}}', '{{pg_class}}');"
        )
    };
    let mut scene = Scene::new(&format!("{PRELUDE}{schema}{}", row(1))).await;
    scene.catch_up().succeeded();
    scene.sql(&row(2)).await;
    scene.catch_up().succeeded();
    let rows = scene.lake.query_now("SELECT p::VARCHAR, i, r FROM {public.a}");
    let row = ["[1.500, NULL, 2.000]", "{postgres=r/postgres,NULL}", "{pg_class}"];
    let row: Vec<_> = row.iter().map(|text| Some((*text).to_string())).collect();
    assert_eq!(rows, [row.clone(), row]);
}
