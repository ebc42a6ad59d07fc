//! The comparer against itself: DuckDB literals stand for the lake.

use super::*;
use crate::support::postgres::PostgresOptions;

/// Column, its type, its value in Postgres, the value the lake must show (DuckDB).
const VALUES: &[(&str, &str, &str)] = &[
    ("bool", "true", "true"),
    ("int2", "-32768", "-32768::INT"),
    ("int4", "2147483647", "2147483647::INT"),
    ("int8", "-9223372036854775808", "(-9223372036854775808)::BIGINT"),
    ("oid", "4294967295", "4294967295::BIGINT"),
    ("xid8", "'18446744073709551615'", "18446744073709551615::DECIMAL(20,0)"),
    ("float4", "'-0'", "'-0'::FLOAT"),
    ("float4", "0.1", "0.1::FLOAT"),
    ("float8", "'NaN'", "'nan'::DOUBLE"),
    ("float8", "'-Infinity'", "'-inf'::DOUBLE"),
    ("float8", "5e-324", "5e-324::DOUBLE"),
    ("numeric(12,2)", "-0.5", "'-0.50'::DECIMAL(12,2)"),
    ("numeric(3,5)", "0.00123", "0.00123::DECIMAL(5,5)"),
    ("numeric(3,-2)", "12345", "12300::DECIMAL(5,0)"),
    ("numeric", "0.10", "'0.10'"),
    ("numeric", "'NaN'", "'NaN'"),
    ("numeric(50,2)", "1", "'1.00'"),
    ("text", "''", "''"),
    ("text", "E'a,\"b\"\\n\\r\\n\\\\.'", "'a,\"b\"' || chr(10) || chr(13) || chr(10) || '\\.'"),
    ("text", "'~NULL~'", "'~NULL~'"),
    ("varchar(9)", "'żółw 🐢'", "'żółw 🐢'"),
    ("char(4)", "'ab'", "'ab  '"),
    ("bytea", "'\\x00ff'", "'\\x00\\xFF'::BLOB"),
    ("bytea", "''", "''::BLOB"),
    ("date", "'4713-01-01 BC'", "DATE '4713-01-01 (BC)'"),
    ("date", "'1969-12-31'", "DATE '1969-12-31'"),
    ("time", "'23:59:59.999999'", "TIME '23:59:59.999999'"),
    ("timestamp", "'0044-03-15 01:00:00 BC'", "TIMESTAMP '0044-03-15 (BC) 01:00:00'"),
    ("timestamp", "'1969-12-31 23:59:59.999999'", "TIMESTAMP '1969-12-31 23:59:59.999999'"),
    ("timestamptz", "'2024-02-29 12:00:00+02'", "TIMESTAMPTZ '2024-02-29 10:00:00+00'"),
    (
        "interval",
        "'-1 year +2 mons -3 days +04:05:06.789'",
        "{'months': -10::INT, 'days': -3::INT, 'micros': 14706789000::BIGINT}",
    ),
    (
        "interval",
        "'30 hours'",
        "{'months': 0::INT, 'days': 0::INT, 'micros': 108000000000::BIGINT}",
    ),
    (
        "uuid",
        "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::UUID",
    ),
    ("json", "'{\"a\" : 1,  \"a\":2}'", "'{\"a\" : 1,  \"a\":2}'"),
    ("jsonb", "'{\"b\":1,\"a\":[1.0]}'", "'{\"a\": [1.0], \"b\": 1}'"),
    ("mood", "'so so'", "'so so'"),
    ("price", "7.5", "7.50::DECIMAL(6,2)"),
    ("inet", "'10.0.0.1'", "'10.0.0.1'"),
    ("int4[]", "'{1,NULL,3}'", "[1::INT, NULL, 3]"),
    ("text[]", "'{}'", "[]::VARCHAR[]"),
    ("text[]", "'{\"a,b\",NULL,\"\",ż}'", "['a,b', NULL, '', 'ż']"),
    ("float8[]", "'{NaN,-0}'", "['nan'::DOUBLE, '-0'::DOUBLE]"),
    ("numeric(5,1)[]", "'{1,2.5}'", "[1.0::DECIMAL(5,1), 2.5]"),
    ("uuid[]", "NULL", "NULL::UUID[]"),
    ("timestamptz[]", "'{2000-01-01 00:00:00+00}'", "[TIMESTAMPTZ '2000-01-01 00:00:00+00']"),
    // What the lake's type cannot hold: NULL, and the text in _pg_raw (DuckDB part after `=>`).
    ("date", "'infinity'", "NULL::DATE => infinity"),
    ("time", "'24:00:00'", "NULL::TIME => 24:00:00"),
    ("timestamp", "'-infinity'", "NULL::TIMESTAMP => -infinity"),
    ("timestamptz", "'294270-01-01 00:00:00+00'", "NULL::TIMESTAMPTZ => 294270-01-01 00:00:00+00"),
    ("numeric(12,2)", "'NaN'", "NULL::DECIMAL(12,2) => NaN"),
    ("int4[]", "'{{1,2},{3,4}}'", "NULL::INT[] => {{1,2},{3,4}}"),
    ("int4[]", "'[0:1]={7,8}'", "NULL::INT[] => [0:1]={7,8}"),
    ("date[]", "'{infinity}'", "NULL::DATE[] => {infinity}"),
];

async fn source_with_all_values() -> Postgres {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE TYPE mood AS ENUM ('so so'); CREATE DOMAIN price AS numeric(6,2)").await;
    let each = |f: &dyn Fn(usize, &str, &str) -> String| {
        let all = VALUES.iter().enumerate().map(|(i, (t, v, _))| f(i, t, v));
        all.collect::<Vec<_>>().join(", ")
    };
    let columns = each(&|i, type_name, _| format!("c{i} {type_name}"));
    postgres.sql(&format!("CREATE TABLE v({columns})")).await;
    let values = each(&|_, _, value| value.to_string());
    postgres.sql(&format!("INSERT INTO v VALUES ({values}); INSERT INTO v DEFAULT VALUES")).await;
    postgres
}

/// The right lake for it, with column `changed` replaced by another DuckDB value.
fn lake_relation(changed: Option<(usize, &str)>) -> String {
    let (mut row, mut nulls, mut raw) = (vec![], vec![], vec![]);
    for (i, (_, _, lake)) in VALUES.iter().enumerate() {
        let (value, raw_text) =
            lake.split_once(" => ").map_or((*lake, None), |(v, r)| (v, Some(r)));
        let value = changed.filter(|(at, _)| *at == i).map_or(value, |(_, other)| other);
        row.push(format!("{value} AS c{i}"));
        nulls.push(String::from("NULL"));
        raw.extend(raw_text.map(|text| format!("'c{i}': '{text}'")));
    }
    let (row, nulls) = (row.join(", "), nulls.join(", "));
    let raw = raw.join(", ");
    format!("(SELECT {row}, MAP {{{raw}}} AS _pg_raw UNION ALL SELECT {nulls}, NULL)")
}

#[tokio::test]
async fn equal_values_of_every_type_compare_equal_and_others_do_not() {
    let postgres = source_with_all_values().await;
    let mut lake = Lake::open(Path::new("/nonexistent"));
    let found = lake.compare_with(&lake_relation(None), &postgres, "public.v").await.unwrap();
    assert!(found.is_equal(), "{found:#?}");
    assert_eq!(found.source.rows, 2);
    assert_eq!(found.other_columns, ["_pg_raw"]);

    let at = |name: &str, value: &str| {
        VALUES.iter().position(|(t, v, _)| *t == name && *v == value).unwrap()
    };
    for (column, wrong) in [
        (at("float4", "'-0'"), "0::FLOAT"),
        (at("float8", "'NaN'"), "NULL::DOUBLE"),
        (at("text", "''"), "NULL::VARCHAR"),
        (at("text", "'~NULL~'"), "NULL::VARCHAR"),
        (at("char(4)", "'ab'"), "'ab'"),
        (at("numeric", "0.10"), "'0.1'"),
        (at("text[]", "'{}'"), "NULL::VARCHAR[]"),
        (at("date", "'infinity'"), "DATE '2000-01-01'"),
        (at("timestamptz", "'2024-02-29 12:00:00+02'"), "TIMESTAMPTZ '2024-02-29 12:00:00+00'"),
    ] {
        let relation = lake_relation(Some((column, wrong)));
        let found = lake.compare_with(&relation, &postgres, "public.v").await.unwrap();
        assert!(!found.is_equal(), "c{column} = {wrong} went unnoticed");
        assert_ne!(found.source.content_hash, found.lake.content_hash);
    }
}

#[tokio::test]
async fn a_doubled_row_and_a_wrong_type_are_noticed() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE TABLE t(a int); INSERT INTO t VALUES (1), (1), (2)").await;
    let mut lake = Lake::open(Path::new("/nonexistent"));
    let rows =
        |values: &str, kind: &str| format!("(SELECT a::{kind} AS a FROM (VALUES {values}) v(a))");
    let equal = lake.compare_with(&rows("(2), (1), (1)", "INT"), &postgres, "t").await.unwrap();
    assert!(equal.is_equal(), "{equal:#?}");
    let short = lake.compare_with(&rows("(2), (1)", "INT"), &postgres, "t").await.unwrap();
    assert_eq!(short.missing, json!([["1"]]));
    let doubled = lake.compare_with(&rows("(2), (1), (1), (1)", "INT"), &postgres, "t").await;
    assert_eq!(doubled.unwrap().unexpected, json!([["1"]]));
    let wrong = lake.compare_with(&rows("(2), (1), (1)", "BIGINT"), &postgres, "t").await;
    assert!(wrong.unwrap_err().contains("a: BIGINT, not INTEGER"));
}
