//! The differential test: one value by four ways (COPY binary, pgoutput binary, pgoutput text, our
//! own text) against what Postgres says it is.

use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use frazil::window::decode::{Decoded, DecodedColumn, TupleDecoder, arrow_type};
use frazil::window::relation::{Attribute, PgType};
use frazil::window::render::render;
use frazil::window::wire::{CopyTuple, Field, Framing, WalTuple, be16, skip};
use futures::TryStreamExt;
use tokio_postgres::Client;

/// Signature, flags, and length of the header's extension.
const COPY_HEADER: usize = 19;

/// The output function's text, as the stream has it. A cast to text is not that: inet gets `/32`,
/// bool `true`, char(n) loses its blanks. `IS NULL` is not num_nulls: a row of NULLs is no NULL.
fn output(v: &str) -> String {
    format!("CASE num_nulls({v}) WHEN 0 THEN format('%s', {v}) END")
}

/// Values of one Postgres type.
pub(crate) struct Case {
    /// The type in SQL.
    pub(crate) sql: String,
    /// How it is decoded.
    pub(crate) pg_type: PgType,
    /// The values' text, as typed by a person; None is NULL.
    pub(crate) values: Vec<Option<String>>,
}

impl Case {
    pub(crate) fn new(sql: &str, pg_type: PgType, values: &[&str]) -> Self {
        let values = values.iter().map(|v| Some((*v).to_owned())).chain([None]).collect();
        Self { sql: sql.to_owned(), pg_type, values }
    }

    fn rows(&self) -> String {
        let row = |v: &Option<String>| match v {
            Some(v) => format!("('{}'::{})", v.replace('\'', "''"), self.sql),
            None => format!("(NULL::{})", self.sql),
        };
        self.values.iter().map(row).collect::<Vec<_>>().join(",")
    }

    fn query(&self) -> String {
        let output = output("v");
        let value = if self.pg_type.has_binary_form() { "v" } else { &output };
        let native = native(&self.pg_type, "v");
        format!(
            "COPY (SELECT {value}, {output}, {native} \
             FROM (VALUES {}) AS t(v)) TO STDOUT (FORMAT binary)",
            self.rows()
        )
    }
}

/// What one row of the oracle's answer holds.
struct Answer {
    binary: Option<Vec<u8>>,
    text: Option<String>,
    native: Option<String>,
}

/// Checks every value of `case`; the rows that are raw, by their text.
pub(crate) async fn check(client: &Client, case: &Case) -> Vec<String> {
    let buf = copy_out(client, &case.query()).await;
    let (answers, mut cursors) = answers(&buf);
    assert_eq!(answers.len(), case.values.len());
    let about = || column(&case.pg_type);
    let copied = decode::<CopyTuple>(vec![Some(about()), None, None], &buf, &mut cursors);
    let texts = frame(b't', answers.iter().map(|a| a.text.as_deref().map(str::as_bytes)));
    let from_text = decode_wal(about(), texts);
    same(case, &copied, &from_text);
    if case.pg_type.has_binary_form() {
        let binaries = frame(b'b', answers.iter().map(|a| a.binary.as_deref()));
        same(case, &copied, &decode_wal(about(), binaries));
        check_rendered(case, &answers);
    }
    check_values(case, &copied, &answers);
    copied.raw.into_iter().map(|raw| raw.text).collect()
}

pub(crate) fn column(pg_type: &PgType) -> DecodedColumn {
    DecodedColumn { name: "v".to_owned(), pg_type: pg_type.clone(), data_type: arrow_type(pg_type) }
}

async fn copy_out(client: &Client, query: &str) -> Vec<u8> {
    let stream = client.copy_out(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
    let fold = stream.try_fold(Vec::new(), async |mut all, bytes| {
        all.extend_from_slice(&bytes);
        Ok(all)
    });
    fold.await.unwrap_or_else(|e| panic!("{query}: {e:?}"))
}

fn answers(buf: &[u8]) -> (Vec<Answer>, Vec<u32>) {
    let (mut answers, mut cursors) = (Vec::new(), Vec::new());
    let mut at = COPY_HEADER as u32;
    while be16(buf, at as usize).unwrap() != u16::MAX {
        at += 2;
        cursors.push(at);
        let mut field = || match CopyTuple::next(buf, &mut at).unwrap() {
            Field::Binary(v) => Some(v.to_vec()),
            _ => None,
        };
        let binary = field();
        let mut text = || field().map(|v| String::from_utf8(v).unwrap());
        answers.push(Answer { binary, text: text(), native: text() });
    }
    let mut check = cursors.first().copied().unwrap_or_default();
    skip::<CopyTuple>(buf, &mut check, 3).unwrap();
    (answers, cursors)
}

/// pgoutput tuples of one column.
fn frame<'a>(kind: u8, values: impl Iterator<Item = Option<&'a [u8]>>) -> (Vec<u8>, Vec<u32>) {
    let (mut buf, mut cursors) = (Vec::new(), Vec::new());
    for value in values {
        cursors.push(u32::try_from(buf.len()).unwrap());
        match value {
            None => buf.push(b'n'),
            Some(v) => {
                buf.push(kind);
                buf.extend_from_slice(&u32::try_from(v.len()).unwrap().to_be_bytes());
                buf.extend_from_slice(v);
            }
        }
    }
    (buf, cursors)
}

fn decode_wal(about: DecodedColumn, (buf, mut cursors): (Vec<u8>, Vec<u32>)) -> Decoded {
    decode::<WalTuple>(vec![Some(about)], &buf, &mut cursors)
}

pub(crate) fn decode<F: Framing>(
    columns: Vec<Option<DecodedColumn>>,
    buf: &[u8],
    cursors: &mut [u32],
) -> Decoded {
    let mut decoder = TupleDecoder::new(columns).unwrap();
    decoder.decode::<F>(buf, cursors).unwrap();
    decoder.finish().unwrap()
}

fn same(case: &Case, a: &Decoded, b: &Decoded) {
    assert_eq!(a.raw.len(), b.raw.len(), "{}", case.sql);
    for (a, b) in a.raw.iter().zip(&b.raw) {
        assert_eq!(a, b, "{}", case.sql);
    }
    let (a, b) = (&a.columns[0], &b.columns[0]);
    assert_eq!(a.data_type(), &arrow_type(&case.pg_type));
    for row in 0..a.len() {
        assert_eq!(&a.slice(row, 1), &b.slice(row, 1), "{} {:?}", case.sql, case.values[row]);
    }
}

fn check_rendered(case: &Case, answers: &[Answer]) {
    for answer in answers {
        let (Some(binary), Some(text)) = (&answer.binary, &answer.text) else { continue };
        let mut rendered = Vec::new();
        render(&case.pg_type, binary, &mut rendered).unwrap();
        assert_eq!(&String::from_utf8(rendered).unwrap(), text, "{} rendered", case.sql);
    }
}

/// Each value stands either in its array, and is what Postgres computes it to be, or is raw.
fn check_values(case: &Case, decoded: &Decoded, answers: &[Answer]) {
    let array = &decoded.columns[0];
    let mut raw = decoded.raw.iter().peekable();
    for (row, answer) in answers.iter().enumerate() {
        match raw.next_if(|raw| raw.row as usize == row) {
            Some(raw) => {
                assert!(array.is_null(row), "{} {}", case.sql, raw.text);
                assert_eq!(Some(&raw.text), answer.text.as_ref(), "{}", case.sql);
            }
            None if answer.text.is_none() => assert!(array.is_null(row), "{}", case.sql),
            None => {
                assert!(array.is_valid(row), "{} {:?}", case.sql, case.values[row]);
                let value = show(array, row);
                assert_eq!(Some(&value), answer.native.as_ref(), "{} {:?}", case.sql, answer.text);
            }
        }
    }
    assert_eq!(raw.next(), None);
}

/// SQL for the number or bytes that an Arrow array has for `v`; as [`show`] writes them.
fn native(t: &PgType, v: &str) -> String {
    match t {
        PgType::Float4 => format!("encode(float4send({v}), 'hex')"),
        PgType::Float8 => format!("encode(float8send({v}), 'hex')"),
        PgType::Numeric { scale, .. } => format!(
            "CASE WHEN {v}::text ~ '^[-0-9.]+$' THEN ({v} * 1e{scale})::numeric(76,0)::text END"
        ),
        PgType::Money { .. } => format!("({v}::numeric * 100)::numeric(40,0)::text"),
        PgType::Bytea => format!("encode({v}, 'hex')"),
        PgType::Uuid => format!("replace({v}::text, '-', '')"),
        PgType::Date => format!("CASE WHEN isfinite({v}) THEN ({v} - date '1970-01-01')::text END"),
        PgType::Time => format!("(extract(epoch FROM {v}) * 1000000)::bigint::text"),
        PgType::Timestamp | PgType::TimestampTz => {
            // By its parts: extract(epoch) is not exact at the far end.
            format!(
                "CASE WHEN isfinite({v}) THEN (({v}::date - date '1970-01-01')::numeric \
                 * 86400000000 + extract(epoch FROM {v}::time) * 1000000)::numeric(40,0)::text END"
            )
        }
        PgType::Interval => {
            let part = |name: &str| format!("extract({name} FROM {v})");
            format!(
                "({}::numeric * 12 + {})::text || ' ' || {} || ' ' || ({} * 3600000000 \
                 + {} * 60000000 + {})::text",
                part("year"),
                part("month"),
                part("day"),
                part("hour"),
                part("minute"),
                part("microseconds")
            )
        }
        PgType::Array(element) => format!(
            "(SELECT '[' || coalesce(string_agg(coalesce({}, '~'), ',' ORDER BY i), '') || ']' \
             FROM generate_subscripts({v}, 1) AS i)",
            native(element, &format!("({v})[i]"))
        ),
        _ => native_of_override(t, v),
    }
}

fn native_of_override(t: &PgType, v: &str) -> String {
    match t {
        PgType::Point => format!("({}) || ' ' || ({})", float(v, 0), float(v, 1)),
        PgType::Vector | PgType::HalfVector => native(
            &PgType::Array(Box::new(PgType::Float4)),
            &format!("string_to_array(btrim({v}::text, '[]'), ',')::real[]"),
        ),
        PgType::Geometry { srid: None } => format!("encode(geometry_send({v}::geometry), 'hex')"),
        PgType::Geometry { srid: Some(_) } => {
            format!("encode(ST_AsBinary({v}::geometry, 'NDR'), 'hex')")
        }
        PgType::Trimmed => format!("{v}::text"),
        PgType::BitBoolean => format!("CASE {v} WHEN '1' THEN 't' ELSE 'f' END"),
        PgType::IntervalIso => format!("iso_8601({v})"),
        PgType::Composite(_) => format!("row_to_json({v})::text"),
        PgType::Nested(..) => {
            format!("replace(translate({v}::text, '{{}}', '[]'), 'NULL', '~')")
        }
        PgType::Struct(attributes) => {
            let part = |attribute: &Attribute| {
                let v = format!("({v}).{}", attribute.name);
                format!("coalesce({}, '~')", native(&attribute.pg_type, &v))
            };
            attributes.iter().map(part).collect::<Vec<_>>().join(" || ' ' || ")
        }
        PgType::RangeStruct(element) => {
            let flag = |of: &str| format!("CASE {of}({v}) WHEN true THEN 't' ELSE 'f' END");
            let bound =
                |of: &str| format!("coalesce({}, '~')", native(element, &format!("{of}({v})")));
            format!(
                "concat_ws(' ', {}, {}, {}, {}, {})",
                flag("isempty"),
                bound("lower"),
                bound("upper"),
                flag("lower_inc"),
                flag("upper_inc")
            )
        }
        _ => output(v),
    }
}

/// A coordinate of a point.
fn float(v: &str, n: usize) -> String {
    format!("encode(float8send(({v})[{n}]), 'hex')")
}

fn show(array: &ArrayRef, row: usize) -> String {
    match array.data_type() {
        DataType::Boolean => if array.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Float32 => {
            format!("{:08x}", array.as_primitive::<Float32Type>().value(row).to_bits())
        }
        DataType::Float64 => {
            format!("{:016x}", array.as_primitive::<Float64Type>().value(row).to_bits())
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(row)),
        DataType::FixedSizeBinary(_) => hex(array.as_fixed_size_binary().value(row)),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Time64(_) => array.as_primitive::<Time64MicrosecondType>().value(row).to_string(),
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).to_string()
        }
        DataType::Struct(_) => {
            let parts = array.as_struct().columns().iter().map(|part| show_or_null(part, row));
            parts.collect::<Vec<_>>().join(" ")
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            let elements = (0..list.len()).map(|at| show_or_null(&list, at));
            format!("[{}]", elements.collect::<Vec<_>>().join(","))
        }
        DataType::Map(..) => {
            let pairs = array.as_map().value(row);
            let pair = |at| {
                let value = pairs.column(1);
                let value = value.is_valid(at).then(|| quoted(&show(value, at)));
                let value = value.unwrap_or_else(|| "NULL".to_owned());
                format!("{}=>{value}", quoted(&show(pairs.column(0), at)))
            };
            (0..pairs.len()).map(pair).collect::<Vec<_>>().join(", ")
        }
        other => panic!("{other}"),
    }
}

fn show_or_null(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) { "~".to_owned() } else { show(array, row) }
}

/// As hstore's text has it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, b| {
        write!(hex, "{b:02x}").unwrap();
        hex
    })
}
