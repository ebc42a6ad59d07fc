//! The decoder around the values: skipped columns, blocks, mixed forms, the lake's exact types,
//! errors that name the column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_schema::{DataType, Field};
use frazil::window::decode::{DecodedColumn, RawValue, TupleDecoder};
use frazil::window::relation::PgType;
use frazil::window::wire::{CopyTuple, WalTuple};

use super::oracle::{column, decode};

/// Appends one field of a pgoutput tuple.
fn push(buf: &mut Vec<u8>, kind: u8, v: &[u8]) {
    buf.push(kind);
    if matches!(kind, b'b' | b't') {
        buf.extend_from_slice(&u32::try_from(v.len()).unwrap().to_be_bytes());
        buf.extend_from_slice(v);
    }
}

#[test]
fn rows_of_many_blocks_keep_their_order() {
    let (mut buf, mut cursors) = (Vec::new(), Vec::new());
    for n in 0..5000_i64 {
        cursors.push(u32::try_from(buf.len()).unwrap());
        push(&mut buf, b'b', b"skipped");
        push(&mut buf, if n % 7 == 0 { b'u' } else { b'b' }, &n.to_be_bytes());
        let date = if n == 3000 { i32::MAX } else { 0 };
        push(&mut buf, b'b', &date.to_be_bytes());
    }
    let columns = vec![None, Some(column(&PgType::Int8)), Some(column(&PgType::Date))];
    let mut decoder = TupleDecoder::new(columns).unwrap();
    let (first, second) = cursors.split_at_mut(1500);
    decoder.decode::<WalTuple>(&buf, first).unwrap();
    decoder.decode::<WalTuple>(&buf, second).unwrap();
    let decoded = decoder.finish().unwrap();
    assert_eq!((decoded.rows, decoded.columns.len()), (5000, 2));
    let numbers = decoded.columns[0].as_primitive::<Int64Type>();
    for n in 0..5000_usize {
        assert_eq!(numbers.is_null(n), n % 7 == 0);
        assert!(numbers.is_null(n) || numbers.value(n) == i64::try_from(n).unwrap());
    }
    let raw = RawValue { row: 3000, column: 2, text: "infinity".to_owned() };
    assert_eq!(decoded.raw, [raw]);
    let ends = cursors.iter().copied();
    assert_eq!(ends.last(), u32::try_from(buf.len()).ok(), "cursors stand behind their tuples");
    assert_eq!(decoder.finish().unwrap().rows, 0, "finish leaves an empty decoder");
}

#[test]
fn text_and_binary_mix_in_one_column() {
    let mut buf = Vec::new();
    push(&mut buf, b't', b"7");
    push(&mut buf, b'b', &8_i32.to_be_bytes());
    let decoded = decode::<WalTuple>(vec![Some(column(&PgType::Int4))], &buf, &mut [0, 6]);
    assert_eq!(decoded.columns[0].as_primitive::<Int32Type>().values(), &[7, 8]);
}

#[test]
fn arrays_have_the_lakes_own_type() {
    let id = |n: &str| HashMap::from([("PARQUET:field_id".to_owned(), n.to_owned())]);
    let part = |name, t, n| Field::new(name, t, true).with_metadata(id(n));
    let fields = vec![
        part("months", DataType::Int32, "8"),
        part("days", DataType::Int32, "9"),
        part("micros", DataType::Int64, "10"),
    ];
    let interval = DataType::Struct(fields.into());
    let list = DataType::List(Arc::new(part("element", interval, "7")));
    let pg_type = PgType::Array(Box::new(PgType::Interval));
    let about = DecodedColumn { name: "v".to_owned(), pg_type, data_type: list.clone() };
    let mut buf = Vec::new();
    push(&mut buf, b't', b"{\"1 day\",NULL}");
    let decoded = decode::<WalTuple>(vec![Some(about)], &buf, &mut [0]);
    assert_eq!(decoded.columns[0].data_type(), &list);
    assert_eq!(decoded.columns[0].as_list::<i32>().values().len(), 2);
}

#[test]
fn another_type_in_the_lake_is_refused() {
    let about = DecodedColumn { data_type: DataType::Int64, ..column(&PgType::Int4) };
    let error = TupleDecoder::new(vec![Some(about)]).err().unwrap();
    assert_eq!(error.code(), "TYPE_MISMATCH");
    assert!(error.to_string().contains("[column v]"), "{error}");
}

#[test]
fn an_array_that_does_not_fit_leaves_nothing_behind() {
    let mut buf = Vec::new();
    let mut cursors = Vec::new();
    for text in ["{1999-09-09}", "{2024-01-01,infinity}", "{2000-01-01}"] {
        cursors.push(u32::try_from(buf.len()).unwrap());
        push(&mut buf, b't', text.as_bytes());
    }
    let t = PgType::Array(Box::new(PgType::Date));
    let decoded = decode::<WalTuple>(vec![Some(column(&t))], &buf, &mut cursors);
    assert_eq!(decoded.columns[0].as_list::<i32>().values().len(), 2);
    assert_eq!(decoded.raw[0].text, "{2024-01-01,infinity}");
}

#[track_caller]
fn refused(t: &PgType, kind: u8, v: &[u8]) -> String {
    let mut buf = Vec::new();
    push(&mut buf, kind, v);
    let mut decoder = TupleDecoder::new(vec![Some(column(t))]).unwrap();
    let decoded = decoder.decode::<WalTuple>(&buf, &mut [0]).and_then(|()| decoder.finish());
    let error = decoded.unwrap_err();
    assert!(error.to_string().contains("[column v]"), "{error}");
    error.code().to_owned()
}

#[test]
fn errors_name_the_column() {
    let text_array = PgType::Array(Box::new(PgType::Text));
    assert_eq!(refused(&PgType::Text, b'b', b"a\xff"), "INVALID_UTF8");
    assert_eq!(refused(&PgType::Text, b't', b"a\xff"), "INVALID_UTF8");
    assert_eq!(refused(&text_array, b't', b"{a\xff}"), "INVALID_UTF8");
    assert_eq!(refused(&text_array, b't', b"{{a\xff}}"), "INVALID_UTF8");
    assert_eq!(refused(&PgType::Int4, b'b', b"abc"), "BAD_VALUE");
    assert_eq!(refused(&PgType::Int4, b't', b"abc"), "BAD_VALUE");
    assert_eq!(refused(&PgType::Opaque, b'b', b"abc"), "BINARY_FORM_UNKNOWN");
    assert_eq!(refused(&PgType::Int4, b'?', b""), "BAD_MESSAGE");
}

#[test]
fn a_character_does_not_spread_over_two_values() {
    let mut buf = Vec::new();
    push(&mut buf, b't', b"\xc3");
    push(&mut buf, b't', b"\xa9");
    let mut decoder = TupleDecoder::new(vec![Some(column(&PgType::Text))]).unwrap();
    decoder.decode::<WalTuple>(&buf, &mut [0, 6]).unwrap();
    assert_eq!(decoder.finish().unwrap_err().code(), "INVALID_UTF8");
}

#[test]
fn a_copy_of_an_opaque_column_is_text() {
    let buf = b"\0\0\0\x03::1\xff\xff\xff\xff";
    let decoded = decode::<CopyTuple>(vec![Some(column(&PgType::Opaque))], buf, &mut [0, 7]);
    let array = decoded.columns[0].as_string::<i32>();
    assert_eq!((array.value(0), array.is_null(1)), ("::1", true));
}
