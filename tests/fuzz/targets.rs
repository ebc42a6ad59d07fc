//! The targets: whatever the bytes are, there is a value or an error with a code. Also built, by
//! its path, into the coverage-guided targets of `fuzz/`.

use std::str::FromStr;

use frazil::config::{Config, Patterns, RawConfig};
use frazil::error::Error;
use frazil::postgres::dsn::Source;
use frazil::postgres::pgoutput::{Message, Tuple, fields, parse, parse_streamed};
use frazil::postgres::stream::{Frame, missing, next_frame};
use frazil::progress::Lsn;
use frazil::window::decode::{Decoded, DecodedColumn, TupleDecoder, arrow_type};
use frazil::window::relation::PgType;
use frazil::window::render::render;
use frazil::window::wire::{CopyTuple, Field, Framing, WalTuple, be16, be32, has_unchanged, skip};

/// What is done with the bytes, by name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("pgoutput", pgoutput),
    ("copy_binary", copy_binary),
    ("numeric", numeric),
    ("arrays", arrays),
    ("text_values", text_values),
    ("config", config),
];

/// The largest message that is accepted here.
const MESSAGE_BYTES_MAX: usize = 1 << 16;

/// Every type that a field may have, and an array of each. A new type is one line here.
pub fn types() -> Vec<PgType> {
    let decimal = |precision, scale| PgType::Numeric { precision, scale };
    let scalars = vec![
        PgType::Bool,
        PgType::Int2,
        PgType::Int4,
        PgType::Int8,
        PgType::Oid,
        PgType::Xid8,
        PgType::Float4,
        PgType::Float8,
        decimal(38, 0),
        decimal(9, 2),
        decimal(5, 5),
        decimal(38, 38),
        PgType::NumericText,
        PgType::Text,
        PgType::Jsonb,
        PgType::Bytea,
        PgType::Date,
        PgType::Time,
        PgType::TimeTz,
        PgType::Timestamp,
        PgType::TimestampTz,
        PgType::Interval,
        PgType::Uuid,
        PgType::Opaque,
    ];
    let arrays = scalars.iter().map(|t| PgType::Array(Box::new(t.clone()))).collect::<Vec<_>>();
    scalars.into_iter().chain(arrays).collect()
}

fn column(t: &PgType) -> DecodedColumn {
    DecodedColumn { name: "v".to_owned(), pg_type: t.clone(), data_type: arrow_type(t) }
}

#[track_caller]
fn told<T>(outcome: Result<T, Error>) -> Option<T> {
    outcome.map_err(|e| assert!(!e.code().is_empty() && !e.to_string().is_empty())).ok()
}

/// One message of pgoutput (the first byte even), or a stretch of the stream.
pub fn pgoutput(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    if mode & 1 == 0 {
        return message(bytes, 0, bytes.len());
    }
    let mut pos = 0;
    while let Some(Some(frame)) = told(next_frame(bytes, &mut pos, MESSAGE_BYTES_MAX)) {
        assert!(pos <= bytes.len());
        if let Frame::XLogData { body, .. } = frame {
            assert!(body.end == pos);
            message(bytes, body.start, body.end);
        }
    }
    let _ = missing(bytes, pos);
}

/// Every field that a parsed message names lies within the message, one after the other up to its
/// end.
fn message(buf: &[u8], at: usize, end: usize) {
    let streamed = told(parse_streamed(buf, at, end)).map(|parsed| parsed.1);
    for message in told(parse(buf, at, end)).into_iter().chain(streamed) {
        let tuples: Vec<Tuple> = match &message {
            Message::Insert { new, .. } => vec![*new],
            Message::Update { old, new, .. } => {
                old.map(|(_, old)| old).into_iter().chain([*new]).collect()
            }
            Message::Delete { old, .. } => vec![old.1],
            _ => Vec::new(),
        };
        for tuple in &tuples {
            assert!(fields(buf, *tuple, end).unwrap().all(|field| field.is_ok()));
            let mut cursor = tuple.at;
            skip::<WalTuple>(buf, &mut cursor, tuple.columns.into()).unwrap();
            assert!(cursor as usize <= end);
            assert!(tuples.last() != Some(tuple) || cursor as usize == end);
            told(has_unchanged(buf, tuple.at, tuple.columns.into()));
        }
        if let Message::LogicalMessage { prefix, content, .. } = message {
            assert!(at <= prefix.start && prefix.end < content.start && content.end == end);
        }
    }
}

/// Rows of COPY's binary format: how many columns, their types, then the rows.
pub fn copy_binary(data: &[u8]) {
    let types = types();
    let Some((count, rest)) = data.split_first() else { return };
    let count = usize::from(count % 8) + 1;
    let Some((chosen, rows)) = rest.split_at_checked(count) else { return };
    let columns: Vec<_> =
        chosen.iter().map(|&t| Some(column(&types[usize::from(t) % types.len()]))).collect();
    let (mut starts, mut ends, mut at) = (Vec::new(), Vec::new(), 0_u32);
    while be16(rows, at as usize).is_ok() {
        at += 2;
        starts.push(at);
        if skip::<CopyTuple>(rows, &mut at, count).is_err() {
            break;
        }
        ends.push(at);
    }
    let mut decoder = TupleDecoder::new(columns.clone()).unwrap();
    let complete = &mut starts[..ends.len()];
    if told(decoder.decode::<CopyTuple>(rows, complete)).is_some() {
        assert_eq!(complete, ends);
        if let Some(decoded) = told(decoder.finish()) {
            assert!(decoded.rows == ends.len() && decoded.columns.len() == count);
            assert!(decoded.columns.iter().all(|column| column.len() == ends.len()));
        }
    }
    // The same bytes where the stream's tuples are expected, the last row's rest included.
    let mut decoder = TupleDecoder::new(columns).unwrap();
    told(decoder.decode::<WalTuple>(rows, &mut starts).and_then(|()| decoder.finish()));
}

/// One value as a tuple of its own: `kind` is `b` or `t`.
fn decoded(t: &PgType, kind: u8, value: &[u8]) -> Option<Decoded> {
    let length = u32::try_from(value.len()).unwrap();
    let tuple = [&[kind][..], &length.to_be_bytes(), value].concat();
    let mut decoder = TupleDecoder::new(vec![Some(column(t))]).unwrap();
    let decoded =
        told(decoder.decode::<WalTuple>(&tuple, &mut [0])).and_then(|()| told(decoder.finish()))?;
    assert_eq!((decoded.rows, decoded.columns[0].len()), (1, 1));
    Some(decoded)
}

/// Whether Postgres would send it so: its numbers have no digits behind their scale, its arrays no
/// dimension of length 0, and the text of a NaN has no room for its other bits. Other forms of the
/// same are read in one way or another.
fn is_canonical(t: &PgType, value: &[u8]) -> bool {
    let word = |at| be16(value, at).unwrap_or_default();
    match t {
        PgType::Numeric { .. } | PgType::NumericText => {
            let groups = i32::from(word(0)) - 1 - i32::from(word(2).cast_signed());
            let hidden = u32::try_from(groups * 4 - i32::from(word(6))).unwrap_or_default();
            let last = value.last_chunk().map_or(0, |last| u16::from_be_bytes(*last));
            hidden == 0 || (hidden < 4 && u32::from(last) % 10_u32.pow(hidden) == 0)
        }
        PgType::Float4 => value.first_chunk().is_none_or(|v| {
            let v = f32::from_be_bytes(*v);
            !v.is_nan() || v.to_bits() == f32::NAN.to_bits()
        }),
        PgType::Float8 => value.first_chunk().is_none_or(|v| {
            let v = f64::from_be_bytes(*v);
            !v.is_nan() || v.to_bits() == f64::NAN.to_bits()
        }),
        PgType::Array(element) => {
            let dimensions = u32::from(word(2));
            let mut at = 12 + 8 * dimensions;
            let mut elements = std::iter::from_fn(|| CopyTuple::next(value, &mut at).ok());
            (0..dimensions).all(|n| be32(value, 12 + 8 * n as usize).is_ok_and(|length| length > 0))
                && elements.all(|field| match field {
                    Field::Binary(v) => is_canonical(element, v),
                    _ => true,
                })
        }
        _ => true,
    }
}

/// A binary value that is accepted has a text, and by that text it is the same value.
fn binary_and_text_agree(t: &PgType, value: &[u8]) {
    let Some(binary) = decoded(t, b'b', value) else { return };
    let mut text = Vec::new();
    told(render(t, value, &mut text)).expect("what can be stored can be written as text");
    if !is_canonical(t, value) {
        return;
    }
    let text = decoded(t, b't', &text).unwrap_or_else(|| panic!("{t:?} {value:?}: {text:?}"));
    assert_eq!(binary.raw, text.raw, "{t:?} {value:?}");
    assert_eq!(binary.columns, text.columns, "{t:?} {value:?}");
}

/// numeric's binary form, and its text.
pub fn numeric(data: &[u8]) {
    for t in types() {
        if matches!(t, PgType::Numeric { .. } | PgType::NumericText) {
            binary_and_text_agree(&t, data);
            decoded(&t, b't', data);
        }
    }
}

/// Arrays: the element's type, then the binary form, which is tried as text too.
pub fn arrays(data: &[u8]) {
    let Some((chosen, value)) = data.split_first() else { return };
    let arrays: Vec<_> = types()
        .into_iter()
        .filter(|t| matches!(t, PgType::Array(_)) && t.has_binary_form())
        .collect();
    let t = &arrays[usize::from(*chosen) % arrays.len()];
    binary_and_text_agree(t, value);
    decoded(t, b't', value);
}

/// Any type: its text form, and the same bytes as binary form.
pub fn text_values(data: &[u8]) {
    let Some((chosen, value)) = data.split_first() else { return };
    let types = types();
    let t = &types[usize::from(*chosen) % types.len()];
    decoded(t, b't', value);
    decoded(t, b'b', value);
    told(render(t, value, &mut Vec::new()));
}

/// What a person types: a file of settings, a DSN, patterns, environment, LSNs.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(raw) = told(RawConfig::parse(&text, "fuzz.yaml")) {
        told(Config::resolve(raw));
    }
    told(Source::parse_in(&text, &|_| None));
    if let Some(patterns) = told(Patterns::parse(&text)) {
        patterns.selects("public", "t");
        patterns.unmatched(&[("public".to_owned(), "t".to_owned())]);
        assert!(!patterns.to_string().is_empty() || text.trim().is_empty());
    }
    if let Some(lsn) = told(Lsn::from_str(&text)) {
        assert_eq!(Lsn::from_str(&lsn.to_string()).unwrap(), lsn);
    }
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(key, value)| (format!("FRAZIL_{key}"), value.to_owned()));
    if let Some(raw) = told(RawConfig::from_environment(variables)) {
        told(Config::resolve(raw));
    }
}
