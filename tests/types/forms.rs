//! Cases 34, 45, 50 to 55: types whose text frazil writes itself, composites, maps, vectors and the
//! overrides of types, at the ends of their ranges, by all ways, with Postgres as the oracle.

use frazil::window::relation::{Attribute, PgType, TextForm};
use tokio_postgres::Client;

use super::oracle::{Case, check};
use super::postgres::with_postgres;

const PRELUDE: &str = "\
    CREATE TYPE mood AS ENUM ('sad', 'so, \"so\"', ''); \
    CREATE TYPE pair AS (a int, b text); CREATE TYPE dated AS (a int, d date); \
    CREATE TYPE whole AS (n numeric(9,2), f float8, p pair, l int[], j json, b jsonb, d date, \
        t timestamptz, s timestamp, y bytea, o bool, m mood); \
    CREATE TYPE floats AS RANGE (subtype = float8); CREATE TYPE texts AS RANGE (subtype = text); \
    CREATE FUNCTION iso_8601(interval) RETURNS text LANGUAGE sql IMMUTABLE \
        SET intervalstyle = 'iso_8601' AS 'SELECT $1::text';";

// cases: 34 45 51 53 holds
#[test]
fn written_texts_are_postgres_own() {
    with_postgres(async |client| {
        client.batch_execute(PRELUDE).await.unwrap();
        let all = [networks(), shapes(), searches(), ranges(), others()];
        for case in all.into_iter().flatten() {
            assert_eq!(check(&client, &case).await, [""; 0], "raw values of {}", case.sql);
        }
    });
}

// cases: 45 50 51 holds
#[test]
fn composites_and_overrides() {
    with_postgres(async |client| {
        client.batch_execute(PRELUDE).await.unwrap();
        for (case, raw) in composites().into_iter().chain(overrides()) {
            assert_eq!(check(&client, &case).await, raw, "raw values of {}", case.sql);
        }
    });
}

// cases: 52 53 holds
#[test]
fn types_of_contrib() {
    with_postgres(async |client| {
        if extension(&client, "hstore").await {
            let quotes = r#""a"=>"1", "b"=>NULL, "c d"=>"NULL", "\"e\\"=>"x, y=>\"z\"""#;
            exact(&client, "hstore", PgType::Hstore, &["", quotes, "a=>\"\""]).await;
            let hstores = PgType::Array(Box::new(PgType::Hstore));
            exact(&client, "hstore[]", hstores, &["{\"a=>1\",NULL,\"\"}"]).await;
        }
        if extension(&client, "ltree").await {
            let t = || PgType::written(TextForm::Versioned);
            exact(&client, "ltree", t(), &["a.b.c", ""]).await;
            exact(&client, "lquery", t(), &["*.a.!b@|c{2,}.d"]).await;
            exact(&client, "ltxtquery", t(), &["a & b*@"]).await;
        }
        if extension(&client, "citext").await {
            exact(&client, "citext", PgType::Text, &["Ab", "aB", ""]).await;
        }
    });
}

#[test]
fn types_of_pgvector() {
    with_postgres(async |client| {
        if !extension(&client, "vector").await {
            return;
        }
        exact(&client, "vector", PgType::Vector, &["[1,2.5,-0]", "[3.4028235e38,1e-45]"]).await;
        if client.query_one("SELECT to_regtype('halfvec') IS NULL", &[]).await.unwrap().get(0) {
            return println!("NOT RUN: pgvector is too old for halfvec and sparsevec");
        }
        let halves = &["[1,-2.5,0]", "[65504,5.9604645e-08,6.1035156e-05,0.333]"];
        exact(&client, "halfvec", PgType::HalfVector, halves).await;
        let sparse = PgType::written(TextForm::SparseVector);
        exact(&client, "sparsevec", sparse, &["{1:1.5,3:-2}/5", "{}/3"]).await;
    });
}

// cases: 54 holds with FRAZIL_EXTENSIONS
#[test]
fn types_of_postgis() {
    with_postgres(async |client| {
        if !extension(&client, "postgis").await {
            return;
        }
        let shapes = [
            "POINT(1 2)",
            "POINT EMPTY",
            "POINT ZM (1 2 3 4)",
            "LINESTRING M (0 0 1,1 1 2)",
            "POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))",
            "POLYGON EMPTY",
            "MULTIPOINT Z (0 0 1,1 1 2)",
            "GEOMETRYCOLLECTION(POINT(1 2),GEOMETRYCOLLECTION(LINESTRING(0 0,1 1)),POINT EMPTY)",
            "CURVEPOLYGON(COMPOUNDCURVE(CIRCULARSTRING(0 0,2 0,2 1,2 3,4 3),(4 3,4 5,1 4,0 0)))",
            "TRIANGLE((0 0,1 0,0 1,0 0))",
            "TIN(((0 0,1 0,0 1,0 0)),((1 0,1 1,0 1,1 0)))",
            "POLYHEDRALSURFACE Z (((0 0 0,0 1 0,1 1 0,0 0 0)))",
        ];
        exact(&client, "geometry", PgType::Geometry { srid: None }, &shapes).await;
        let with_srid: Vec<String> = shapes.iter().map(|s| format!("SRID=4326;{s}")).collect();
        let with_srid: Vec<&str> = with_srid.iter().map(String::as_str).collect();
        exact(&client, "geometry", PgType::Geometry { srid: None }, &with_srid).await;
        exact(&client, "geometry", PgType::Geometry { srid: Some(4326) }, &with_srid).await;
        let fixed = PgType::Geometry { srid: Some(4326) };
        exact(&client, "geography(Point,4326)", fixed, &["POINT(1 2)"]).await;
        let array = PgType::Array(Box::new(PgType::Geometry { srid: None }));
        check_array(&client, array).await;
    });
}

/// Arrays of geometries have colons between them.
async fn check_array(client: &Client, t: PgType) {
    let row = client.query_one("SELECT ARRAY['POINT(1 2)'::geometry,NULL]::text", &[]).await;
    let text: String = row.unwrap().get(0);
    assert!(text.contains(':'), "{text}");
    exact(client, "geometry[]", t, &[&text]).await;
}

/// Whether the server has it. Says so where it hasn't.
async fn extension(client: &Client, name: &str) -> bool {
    let made = client.batch_execute(&format!("CREATE EXTENSION {name}")).await;
    if let Err(error) = &made {
        println!("NOT RUN: the extension {name} can't be had: {error:?}");
    }
    made.is_ok()
}

async fn exact(client: &Client, sql: &str, t: PgType, values: &[&str]) {
    let raw = check(client, &Case::new(sql, t, values)).await;
    assert_eq!(raw, [""; 0], "raw values of {sql}");
}

fn form(sql: &str, form: TextForm, values: &[&str]) -> Case {
    Case::new(sql, PgType::written(form), values)
}

fn networks() -> Vec<Case> {
    let v6 = [
        "::",
        "::1",
        "1::",
        "fe80::1%",
        "2001:db8::ff00:42:8329/64",
        "::ffff:1.2.3.4",
        "::1.2.3.4",
        "::0.0.0.1",
        "1:0:0:2:0:0:0:3",
        "1:0:2:3:4:5:6:7",
        "0:0:1:2:3:4:5:6",
        "1:2:3:4:5:6:0:0",
        "1:2:3:4:5:6:7:0",
        "::ffff:0:1.2.3.4/100",
        "::1:0:0",
    ];
    let v6: Vec<&str> = v6.into_iter().filter(|text| !text.contains('%')).collect();
    let v4 = ["10.0.0.1/8", "10.0.0.1", "0.0.0.0/0", "255.255.255.255"];
    vec![
        form("inet", TextForm::Network, &[v6.as_slice(), &v4].concat()),
        form("cidr", TextForm::Network, &["10.0.0.0/8", "::/0", "10.1.2.3", "2001:db8::/32"]),
        form("macaddr", TextForm::Mac, &["08:00:2b:01:02:03", "00:00:00:00:00:00"]),
        form("macaddr8", TextForm::Mac, &["08:00:2b:01:02:03:04:ff"]),
        Case::new(
            "inet[]",
            PgType::Array(Box::new(PgType::written(TextForm::Network))),
            &["{10.0.0.1/8,::1,NULL}", "{}"],
        ),
    ]
}

fn shapes() -> Vec<Case> {
    vec![
        Case::new("point", PgType::Point, &["(1,-2.5)", "(NaN,Infinity)", "(-0,5e-324)"]),
        Case::new("point", PgType::AsText(Box::new(PgType::Point)), &["(1,-2.5)", "(1e23,-0)"]),
        Case::new("point[]", PgType::Array(Box::new(PgType::Point)), &["{\"(1,2)\",NULL}"]),
        form("line", TextForm::Line, &["{1,2,3}", "{-1,0,0.1}"]),
        form("lseg", TextForm::Segment, &["[(1,2),(3,4)]"]),
        form("box", TextForm::Box, &["(2,2),(1,1)", "(NaN,1),(2,3)"]),
        Case::new(
            "box[]",
            PgType::Array(Box::new(PgType::written(TextForm::Box))),
            &["{(2,2),(1,1);(3,3),(0,0)}", "{NULL}"],
        ),
        form("path", TextForm::Path, &["((1,2),(3,4))", "[(1,2)]"]),
        form("polygon", TextForm::Polygon, &["((0,0),(1,1),(1,0))"]),
        form("circle", TextForm::Circle, &["<(1,2),0.5>"]),
    ]
}

fn searches() -> Vec<Case> {
    let queries = [
        "a",
        "!a & b",
        "!(a & b) | c",
        "a & (b | c)",
        "(a | b) <-> c",
        "a <2> (b <-> c)",
        "(a <-> b) <-> c",
        "!(a <-> b)",
        "!!a",
        "a:*AB & 'it''s \\\\ b':D",
        "a | b & c <-> !d",
        "(!a) <-> (!b)",
        "",
    ];
    let vectors = ["'a' 'b':3", "'it''s \\\\ x':1A,2B,3C,4", "a:16383", ""];
    vec![
        form("tsquery", TextForm::TsQuery, &queries),
        form("tsvector", TextForm::TsVector, &vectors),
        form("jsonpath", TextForm::Versioned, &["$.\"a\"[*] ? (@.b > 1)", "strict $"]),
    ]
}

fn ranges() -> Vec<Case> {
    let texts = ["[a,b]", "(\"a,b\",\"c \"\"d\\\\\")", "[\"\",NULL)", "empty", "(,x]"];
    let times = ["[2000-01-01 00:00+00,infinity)", "(,2000-01-01 00:00:00.5+05:30]"];
    vec![
        form(
            "int4range",
            TextForm::Range(PgType::Int4),
            &["empty", "[1,)", "(,5]", "(,)", "[1,5)"],
        ),
        form("numrange", TextForm::Range(PgType::NumericText), &["[1.50,2.0]", "[NaN,]", "(-1,0)"]),
        form("floats", TextForm::Range(PgType::Float8), &["[-0,1e23)"]),
        form("texts", TextForm::Range(PgType::Text), &texts),
        form("tstzrange", TextForm::Range(PgType::TimestampTz), &times),
        form("daterange", TextForm::Range(PgType::Date), &["[2000-01-01,infinity]"]),
        Case::new(
            "int4range[]",
            PgType::Array(Box::new(PgType::written(TextForm::Range(PgType::Int4)))),
            &["{\"[1,5)\",empty,NULL}"],
        ),
        form(
            "nummultirange",
            TextForm::Multirange(PgType::NumericText),
            &["{[1.5,2],[3,4)}", "{}", "{(,)}"],
        ),
    ]
}

fn others() -> Vec<Case> {
    let cents = PgType::Money { scale: 2 };
    let money = ["-92233720368547758.08", "92233720368547758.07", "0.05", "-0.5", "1234567.89"];
    vec![
        form("bit(5)", TextForm::Bits, &["10101"]),
        form("bit(8)", TextForm::Bits, &["10101010"]),
        form("varbit", TextForm::Bits, &["", "1", "000000001"]),
        form("pg_lsn", TextForm::Lsn, &["FFFFFFFF/FFFFFFFF", "0/0", "1/A0B"]),
        form("tid", TextForm::Tid, &["(0,1)", "(4294967295,65535)"]),
        form("pg_snapshot", TextForm::Snapshot, &["10:20:10,14,15", "1:1:"]),
        form("txid_snapshot", TextForm::Snapshot, &["10:20:10,14,15"]),
        form("int2vector", TextForm::Words(PgType::Int2), &["1 2 -3", ""]),
        form("oidvector", TextForm::Words(PgType::Oid), &["1 4294967295", ""]),
        Case::new("money", cents.clone(), &money),
        Case::new("money", PgType::AsText(Box::new(cents.clone())), &money),
        Case::new("money[]", PgType::Array(Box::new(cents)), &["{$1.50,NULL}"]),
    ]
}

fn attribute(name: &str, type_oid: u32, pg_type: PgType) -> Attribute {
    Attribute { name: name.to_owned(), type_oid, pg_type }
}

fn pair() -> Vec<Attribute> {
    vec![attribute("a", 23, PgType::Int4), attribute("b", 25, PgType::Text)]
}

/// The oids of types that the prelude makes are not known here: their fields come as text then.
fn composites() -> Vec<(Case, Vec<&'static str>)> {
    let values = ["(1,\"a \"\"b\"\" \\\\ ,\")", "(,)", "(-5,)", "(7,\"\x01\x08\t\r\x0cé{}\n\")"];
    let bounds = ["(1,infinity)", "(,2000-01-01)"];
    let dated = || vec![attribute("a", 23, PgType::Int4), attribute("d", 1082, PgType::Date)];
    vec![
        (Case::new("pair", PgType::Composite(pair()), &values), vec![]),
        (Case::new("pair", PgType::AsText(Box::new(PgType::Composite(pair()))), &values), vec![]),
        (Case::new("pair", PgType::Struct(pair()), &values), vec![]),
        (
            Case::new(
                "pair[]",
                PgType::Array(Box::new(PgType::Composite(pair()))),
                &["{\"(1,x)\",NULL}", "{}"],
            ),
            vec![],
        ),
        (Case::new("dated", PgType::Struct(dated()), &bounds), vec!["(1,infinity)"]),
    ]
}

fn overrides() -> Vec<(Case, Vec<&'static str>)> {
    let intervals = [
        "0",
        "1 year -2 mons 3 days -04:05:06.7",
        "-1 days +00:00:01",
        "178000000 years",
        "2562047788:00:54.775807",
        "-00:00:00.000001",
        "1 mon",
        "61 seconds",
    ];
    let deep = |depth| PgType::Nested(Box::new(PgType::Int4), depth);
    let as_text = |t: PgType| PgType::AsText(Box::new(t));
    let uuid = "ffffffff-ffff-ffff-ffff-fffffffffffe";
    let dates = ["empty", "[2000-01-01,2000-02-01)", "(,)", "[2000-01-01,infinity]"];
    vec![
        (Case::new("interval", PgType::IntervalIso, &intervals), vec![]),
        (Case::new("bit(1)", PgType::BitBoolean, &["1", "0"]), vec![]),
        (Case::new("char(6)", PgType::Trimmed, &["ab", "", "  x"]), vec![]),
        (Case::new("uuid", as_text(PgType::Uuid), &[uuid]), vec![]),
        (
            Case::new("int4[]", deep(2), &["{{1,2},{3,NULL}}", "{}", "{1}", "[0:0][1:1]={{1}}"]),
            vec!["{1}", "[0:0][1:1]={{1}}"],
        ),
        (Case::new("int4[]", deep(3), &["{{{1},{2}},{{3},{4}}}", "{}"]), vec![]),
        (
            Case::new(
                "int4[]",
                as_text(PgType::Array(Box::new(PgType::Int4))),
                &["{1,NULL}", "[0:1]={7,8}", "{{1,2},{3,4}}"],
            ),
            vec![],
        ),
        (
            Case::new("daterange", PgType::RangeStruct(Box::new(PgType::Date)), &dates),
            vec!["[2000-01-01,infinity]"],
        ),
        (
            Case::new("int4range", PgType::RangeStruct(Box::new(PgType::Int4)), &["[1,5)", "(,3)"]),
            vec![],
        ),
    ]
}
