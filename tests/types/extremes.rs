//! Cases 28 to 49 and 53: the ends of every type's range, by all ways, with Postgres as the oracle.

use frazil::window::relation::PgType;

use super::oracle::{Case, check};
use super::postgres::with_postgres;
use crate::support::servers;

fn array(element: PgType) -> PgType {
    PgType::Array(Box::new(element))
}

fn numeric(precision: u8, scale: i8) -> PgType {
    PgType::Numeric { precision, scale }
}

// cases: 28 29 30 31 32 36 37 38 39 40 41 42 45 49 holds
#[test]
fn extremes_are_exact_or_raw() {
    if servers::is_before(15, "what the oracle is asked with") {
        return;
    }
    with_postgres(async |client| {
        let types = "CREATE TYPE mood AS ENUM ('sad', 'so, \"so\"', ''); \
            CREATE DOMAIN price AS numeric(12,3) CHECK (VALUE > -10); CREATE DOMAIN fee AS price;";
        client.batch_execute(types).await.unwrap();
        let all = [numbers(), decimals(), texts(), times(), timestamps(), arrays(), more_arrays()];
        for (case, raw) in all.into_iter().flatten() {
            assert_eq!(check(&client, &case).await, raw, "raw values of {}", case.sql);
        }
    });
}

type Expected = (Case, Vec<&'static str>);

fn exact(sql: &str, t: PgType, values: &[&str]) -> Expected {
    (Case::new(sql, t, values), Vec::new())
}

fn raw(sql: &str, t: PgType, values: &[&str], raw: &[&'static str]) -> Expected {
    (Case::new(sql, t, values), raw.to_vec())
}

fn numbers() -> Vec<Expected> {
    let floats = [
        "NaN",
        "Infinity",
        "-Infinity",
        "0",
        "-0",
        "1",
        "-1.5",
        "0.1",
        "1e-4",
        "1e-5",
        "123456",
        "1234567",
        "3404477.25",
        "1e15",
        "1e14",
        "1e22",
        "3e10",
        "16777216",
        "8388608.5",
    ];
    let doubles = [
        "1e23",
        "5e22",
        "5e-324",
        "1.7976931348623157e308",
        "2.2250738585072014e-308",
        "0.30000000000000004",
        "999999999999999",
        "9007199254740993",
        "123456789012345678",
    ];
    let wide = [floats.as_slice(), &doubles].concat();
    let narrow = [floats.as_slice(), &["1e-45", "3.4028235e38", "1.1754944e-38"]].concat();
    vec![
        exact("bool", PgType::Bool, &["t", "f"]),
        exact("int2", PgType::Int2, &["-32768", "32767", "0"]),
        exact("int4", PgType::Int4, &["-2147483648", "2147483647", "0"]),
        exact("int8", PgType::Int8, &["-9223372036854775808", "9223372036854775807", "0"]),
        exact("oid", PgType::Oid, &["0", "4294967295"]),
        exact("xid", PgType::Oid, &["0", "4294967295"]),
        exact("cid", PgType::Oid, &["0", "4294967295"]),
        exact("xid8", PgType::Xid8, &["0", "18446744073709551615"]),
        exact("float4", PgType::Float4, &narrow),
        exact("float8", PgType::Float8, &wide),
    ]
}

fn decimals() -> Vec<Expected> {
    let nines = "9".repeat(38);
    let many = format!("-{}.{}", "9".repeat(37), 9);
    let small = format!("0.{}1", "0".repeat(37));
    vec![
        raw(
            "numeric(38,0)",
            numeric(38, 0),
            &[&nines, &format!("-{nines}"), "0", "1", "10000", "NaN"],
            &["NaN"],
        ),
        exact(
            "numeric(38,1)",
            numeric(38, 1),
            &[&many, "0.1", "1000000000000000000000000000000000000"],
        ),
        exact(
            "numeric(38,38)",
            numeric(38, 38),
            &[&small, "-0.99999999999999999999999999999999999999"],
        ),
        exact("numeric(3,-2)", numeric(5, 0), &["99900", "-12345", "49", "51"]),
        exact("numeric(3,5)", numeric(5, 5), &["0.00999", "-0.00001", "0"]),
        exact(
            "numeric(10,2)",
            numeric(10, 2),
            &["99999999.99", "0.01", "-0.10", "1234.5", "10000"],
        ),
        raw(
            "numeric",
            numeric(6, 2),
            &[
                "1234.560000",
                "12345.6",
                "0.001",
                "Infinity",
                "-Infinity",
                "-9999.99",
                "1e30",
                "0.00",
            ],
            &["12345.6", "0.001", "Infinity", "-Infinity", "1000000000000000000000000000000"],
        ),
        exact(
            "numeric",
            PgType::NumericText,
            &[
                "0",
                "0.00",
                "1e131071",
                "-1e-16383",
                "NaN",
                "Infinity",
                "-Infinity",
                "0.10",
                "10000",
                "100000.0001",
                "-0.00010000",
                "1234567890.12345678901234567890",
            ],
        ),
        exact("price", numeric(12, 3), &["123456789.123", "-9.999"]),
        exact("fee", numeric(12, 3), &["123456789.123", "-9.999"]),
    ]
}

fn texts() -> Vec<Expected> {
    let strings = ["", " ", "NULL", "a'b\"c\\d", "\u{10FFFF}\u{7f}é\n\t", "{1,2}"];
    let blob = format!("\\x{}", (0..=255).map(|b| format!("{b:02x}")).collect::<String>());
    vec![
        exact("text", PgType::Text, &strings),
        exact("varchar(9)", PgType::Text, &strings),
        exact("char(6)", PgType::Text, &["", "ab", "  x"]),
        exact("name", PgType::Text, &["", "a b"]),
        exact("\"char\"", PgType::Text, &["", "x"]),
        exact(
            "xml",
            PgType::Text,
            &["<a b='c'> </a>", "<?xml version='1.1' encoding='UTF-8' standalone='yes'?><é/>"],
        ),
        exact("mood", PgType::Text, &["sad", "so, \"so\"", ""]),
        exact("json", PgType::Json, &["{\"b\": 1,  \"a\":2, \"b\":null}", " [ ] "]),
        exact(
            "jsonb",
            PgType::Jsonb,
            &["{\"b\": 1,  \"a\":2, \"b\":null}", "[]", "1e400", "\"\\u00e9\""],
        ),
        exact("bytea", PgType::Bytea, &["", "\\x00", &blob]),
        exact(
            "uuid",
            PgType::Uuid,
            &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-fffffffffffe"],
        ),
    ]
}

fn times() -> Vec<Expected> {
    vec![
        raw(
            "date",
            PgType::Date,
            &[
                "4714-11-24 BC",
                "5874897-12-31",
                "0001-12-31 BC",
                "0001-01-01",
                "1970-01-01",
                "2024-02-29",
                "infinity",
                "-infinity",
                "10000-01-01",
            ],
            &["infinity", "-infinity"],
        ),
        raw(
            "time",
            PgType::Time,
            &["00:00", "23:59:59.999999", "12:30:00.5", "24:00:00"],
            &["24:00:00"],
        ),
        exact(
            "timetz",
            PgType::TimeTz,
            &[
                "24:00:00+15:59:59",
                "00:00:00-15:59:59",
                "12:00:00.100+05:30",
                "12:00:00-08",
                "01:02:03+00",
            ],
        ),
        exact(
            "interval",
            PgType::Interval,
            &[
                "0",
                "1 year",
                "-1 year",
                "1 mon",
                "-1 mon 1 day",
                "1 year -2 mons 3 days -04:05:06.7",
                "-1 days +00:00:01",
                "1 day 00:00:00.000001",
                "-00:00:00.5",
                "178000000 years",
                "-178000000 years",
                "2147483647 days",
                "-2147483648 days",
                "2 years 3 days",
                "2562047788:00:54.775807",
                "-2562047788:00:54.775807",
                "-1 mons 10:00:00",
            ],
        ),
    ]
}

fn timestamps() -> Vec<Expected> {
    let last = "294247-01-10 04:00:54.775807";
    let stamps = [
        "4714-11-24 00:00:00 BC",
        "0001-01-01 00:00:00",
        "0001-12-31 23:59:59.999999 BC",
        "1969-12-31 23:59:59.999999",
        "1970-01-01",
        "2000-01-01 00:00:00.1",
        "2024-02-29 12:34:56.7890",
        "10000-01-01",
        last,
    ];
    let beyond =
        ["294247-01-10 04:00:54.775808", "294276-12-31 23:59:59.999999", "infinity", "-infinity"];
    let all = [stamps.as_slice(), &beyond].concat();
    let zoned = [
        "294247-01-10 04:00:54.775808+00",
        "294276-12-31 23:59:59.999999+00",
        "infinity",
        "-infinity",
    ];
    vec![
        raw("timestamp", PgType::Timestamp, &all, &beyond),
        raw("timestamptz", PgType::TimestampTz, &all, &zoned),
        exact("timestamptz", PgType::TimestampTz, &["2024-01-01 00:00:00+05:30"]),
    ]
}

fn arrays() -> Vec<Expected> {
    let shapes = [
        "{}",
        "{1}",
        "{1,NULL,-3}",
        "[0:1]={7,8}",
        "{{1,2},{3,4}}",
        "[2:3][-1:0]={{1,NULL},{3,4}}",
        "{NULL}",
        "{{{1},{2}},{{3},{4}}}",
    ];
    let odd =
        ["[0:1]={7,8}", "{{1,2},{3,4}}", "[2:3][-1:0]={{1,NULL},{3,4}}", "{{{1},{2}},{{3},{4}}}"];
    vec![
        raw("int4[]", array(PgType::Int4), &shapes, &odd),
        raw("int8[]", array(PgType::Int8), &shapes, &odd),
        raw(
            "numeric(4,1)[]",
            array(numeric(4, 1)),
            &["{1,2.5,NULL}", "{1,NaN,2}", "{3}"],
            &["{1.0,NaN,2.0}"],
        ),
        raw(
            "text[]",
            array(PgType::Text),
            &[
                r#"{"",NULL,"NULL","null",a,"b c","d,e","f\"g","h\\i","{j}"," ","é"}"#,
                "{{a,\"\"},{NULL,\"x y\"}}",
                "{\"a\nb\",\"a\tb\"}",
            ],
            &["{{a,\"\"},{NULL,\"x y\"}}"],
        ),
        raw(
            "bytea[]",
            array(PgType::Bytea),
            &[r#"{"\\x00ff","",NULL}"#, r#"[0:0]={"\\x00"}"#],
            &[r#"[0:0]={"\\x00"}"#],
        ),
        raw(
            "date[]",
            array(PgType::Date),
            &["{2024-01-01,0001-01-01 BC}", "{2024-01-01,infinity}", "{1999-09-09}"],
            &["{2024-01-01,infinity}"],
        ),
        raw(
            "timestamptz[]",
            array(PgType::TimestampTz),
            &["{2024-01-01 10:00:00+00,NULL}", "{2024-01-01 10:00:00+00,-infinity}"],
            &["{\"2024-01-01 10:00:00+00\",-infinity}"],
        ),
    ]
}

fn more_arrays() -> Vec<Expected> {
    vec![
        raw("bool[]", array(PgType::Bool), &["{t,f,NULL}", "{{t,f}}"], &["{{t,f}}"]),
        raw(
            "float8[]",
            array(PgType::Float8),
            &["{1e23,-0,NaN,0.1}", "{{1e23,-0},{NaN,Infinity}}"],
            &["{{9.999999999999999e+22,-0},{NaN,Infinity}}"],
        ),
        exact(
            "uuid[]",
            array(PgType::Uuid),
            &["{00000000-0000-0000-0000-000000000001,NULL}", "{}"],
        ),
        raw(
            "interval[]",
            array(PgType::Interval),
            &["{1 day,NULL,-1 mons +00:00:01}", "{{1 day}}"],
            &["{{\"1 day\"}}"],
        ),
        raw("time[]", array(PgType::Time), &["{10:00,24:00}", "{10:00}"], &["{10:00:00,24:00:00}"]),
        exact("jsonb[]", array(PgType::Jsonb), &[r#"{"{\"a\": [1, \"x\"]}",null,"null"}"#]),
        exact("numeric[]", array(PgType::NumericText), &["{NaN,0.00,1e30}"]),
        exact("timetz[]", array(PgType::TimeTz), &["{10:00+01}"]),
        exact("mood[]", array(PgType::Text), &[r#"{sad,"so, \"so\"",""}"#]),
        raw("inet[]", array(PgType::Opaque), &["{10.0.0.1/8,::1}", "{{::1}}"], &["{{::1}}"]),
    ]
}
