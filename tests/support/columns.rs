//! How each Postgres type is compared: its kind in the lake and its canonical text in SQL.
//!
//! Written from `docs/types.md` alone and not from the product's decoders, so that a mistake there
//! cannot be made here too. `duck.py` makes the same texts from the lake's side.

use serde_json::{Value, json};

use super::postgres::{Postgres, TextRow};

/// A source column and how it is compared.
#[derive(Debug, Clone)]
pub struct CanonicalColumn {
    /// Its name in Postgres.
    pub name: String,
    /// What `duck.py` is told about it: name, kind, precision, scale, element.
    pub description: Value,
    /// SQL for its canonical text; NULL stays NULL; what the lake cannot hold is `raw:` + its text.
    pub text_sql: String,
}

/// All live, stored columns of `table` (`schema.name`), by attnum; domains are resolved.
const COLUMNS_SQL: &str = "
WITH RECURSIVE base(attnum, attname, typ, typmod) AS (
  SELECT a.attnum, a.attname, a.atttypid, a.atttypmod FROM pg_attribute a
  WHERE a.attrelid = $TABLE$::regclass AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = ''
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN t.typtypmod = -1 THEN b.typmod
    ELSE t.typtypmod END
  FROM base b JOIN pg_type t ON t.oid = b.typ WHERE t.typtype = 'd')
SELECT b.attname, t.typname, b.typmod, e.typname, t.typtype, e.typtype
FROM base b JOIN pg_type t ON t.oid = b.typ
LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
WHERE t.typtype <> 'd' ORDER BY b.attnum";

/// The columns of `table`, quoted as SQL needs it.
pub async fn columns_of(postgres: &Postgres, table: &str) -> Vec<CanonicalColumn> {
    let table = format!("'{}'", table.replace('\'', "''"));
    let rows = postgres.sql(&COLUMNS_SQL.replace("$TABLE$", &table)).await;
    rows.iter().map(canonical_column).collect()
}

fn canonical_column(row: &TextRow) -> CanonicalColumn {
    let field = |i: usize| row[i].clone();
    let (name, type_name) = (field(0).unwrap(), field(1).unwrap());
    let typmod: i32 = field(2).unwrap().parse().unwrap();
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let (mut description, text_sql) = match field(3) {
        Some(element) if type_name.starts_with('_') => {
            array(kind_of((&element, &field(5).unwrap()), typmod), &quoted)
        }
        _ if matches!(type_name.as_str(), "vector" | "halfvec") => {
            array(json!({ "kind": "float4" }), &format!("({quoted}::real[])"))
        }
        _ => {
            let kind = kind_of((&type_name, &field(4).unwrap()), typmod);
            let text =
                with_raw(&raw_condition(&kind, &quoted), &canonical(&kind, &quoted), &quoted);
            (kind, text)
        }
    };
    description["name"] = json!(name);
    CanonicalColumn { name, description, text_sql }
}

/// The kind `duck.py` knows a type by; an unknown type is stored as its text.
fn kind_of((type_name, typtype): (&str, &str), typmod: i32) -> Value {
    let kind = match type_name {
        _ if typtype == "c" => "composite",
        "point" | "hstore" => type_name,
        "geometry" | "geography" if typmod > 0 => "wkb",
        "geometry" | "geography" => "ewkb",
        // The tests' servers have two places.
        "money" => return json!({ "kind": "money", "precision": 19, "scale": 2 }),
        "bool" | "int2" | "int4" | "int8" | "oid" | "xid8" | "float4" | "float8" | "bytea"
        | "date" | "time" | "timestamp" | "timestamptz" | "interval" | "uuid" => type_name,
        "xid" | "cid" => "oid",
        "numeric" => return numeric(typmod),
        _ => "text",
    };
    json!({ "kind": kind })
}

/// `numeric(p,s)` in the lake's terms: at most 38 digits, 0 <= scale <= precision, else text.
fn numeric(typmod: i32) -> Value {
    if typmod < 4 {
        return json!({ "kind": "text" });
    }
    let digits = ((typmod - 4) >> 16) & 0xffff;
    let scale = (((typmod - 4) & 0x7ff) ^ 0x400) - 0x400;
    let (precision, scale) = match scale {
        s if s < 0 => (digits - s, 0),
        s if s > digits => (s, s),
        s => (digits, s),
    };
    match precision {
        1..=38 => json!({ "kind": "numeric", "precision": precision, "scale": scale }),
        _ => json!({ "kind": "text" }),
    }
}

fn array(kind: Value, value: &str) -> (Value, String) {
    let text = canonical(&kind, "e");
    let canonical = format!(
        "(SELECT coalesce(string_agg(CASE WHEN e IS NULL THEN '~' ELSE length({text}) || ':' || \
         {text} END, ',' ORDER BY i), '') \
         FROM generate_subscripts({value}, 1) AS i, LATERAL (SELECT {value}[i]) AS u(e))"
    );
    let raw = format!(
        "coalesce(array_ndims({value}) > 1, false) OR coalesce(array_lower({value}, 1) <> 1, false) \
         OR EXISTS (SELECT FROM unnest({value}) AS u(e) WHERE {})",
        raw_condition(&kind, "e")
    );
    (json!({ "kind": "array", "element": kind }), with_raw(&raw, &canonical, value))
}

fn with_raw(condition: &str, canonical: &str, value: &str) -> String {
    format!(
        "CASE WHEN num_nulls({value}) = 1 THEN NULL WHEN {condition} THEN 'raw:' || concat({value}) \
         ELSE {canonical} END"
    )
}

/// Whether the lake's type cannot hold `value` (docs/types.md, column "limits").
fn raw_condition(kind: &Value, value: &str) -> String {
    match kind["kind"].as_str().unwrap() {
        "date" => format!("NOT isfinite({value})"),
        "time" => format!("{value} = '24:00:00'"),
        "numeric" => format!("{value} = 'NaN'"),
        "timestamp" => {
            format!("NOT isfinite({value}) OR {value} > timestamp '294247-01-10 04:00:54.775807'")
        }
        "timestamptz" => format!(
            "NOT isfinite({value}) OR {value} > timestamptz '294247-01-10 04:00:54.775807+00'"
        ),
        "interval" => format!("NOT isfinite({value})"),
        _ => "false".into(),
    }
}

/// The canonical text of a representable, non-NULL value.
fn canonical(kind: &Value, value: &str) -> String {
    match kind["kind"].as_str().unwrap() {
        "bool" => format!("{value}::text"),
        "float4" => format!("('x' || encode(float4send({value}), 'hex'))::bit(32)::text"),
        "float8" => format!("('x' || encode(float8send({value}), 'hex'))::bit(64)::text"),
        "bytea" => format!("encode({value}, 'hex')"),
        "date" => format!("({value} - date '1970-01-01')::text"),
        "time" => format!("round(extract(epoch FROM {value}) * 1000000)::bigint::text"),
        // In two parts: before Postgres 14 `extract` gives a double, too coarse for this.
        "timestamp" | "timestamptz" => format!(
            "(extract(epoch FROM date_trunc('second', {value}))::bigint * 1000000 \
             + extract(microseconds FROM {value})::bigint % 1000000)::text"
        ),
        "interval" => interval(value),
        "money" => format!("({value}::numeric(19,2))::text"),
        "composite" => format!("row_to_json({value})::text"),
        "point" => {
            let part = |n| format!("('x' || encode(float8send({value}[{n}]), 'hex'))::bit(64)");
            format!("concat({}, ' ', {})", part(0), part(1))
        }
        "hstore" => format!(
            "(SELECT coalesce(string_agg(concat(length(k), ':', k, '=', \
             CASE WHEN v IS NULL THEN '~' ELSE length(v) || ':' || v END), ',' ORDER BY i), '') \
             FROM each({value}) WITH ORDINALITY AS h(k, v, i))"
        ),
        "ewkb" => format!("encode(geometry_send({value}::geometry), 'hex')"),
        "wkb" => format!("encode(ST_AsBinary({value}::geometry, 'NDR'), 'hex')"),
        // `concat` uses the type's output function, as the stream does; a cast to text can differ
        // (char(n) loses its padding, inet gains a mask).
        _ => format!("concat({value})"),
    }
}

fn interval(value: &str) -> String {
    let field = |name: &str| format!("extract({name} FROM {value})::numeric");
    format!(
        "concat(({} * 12 + {})::bigint, ' ', {}::bigint, ' ', \
         ({} * 3600000000 + {} * 60000000 + {})::bigint)",
        field("year"),
        field("month"),
        field("day"),
        field("hour"),
        field("minute"),
        field("microseconds")
    )
}
