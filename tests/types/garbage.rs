//! Bytes that Postgres never sends: a typed error or a value, never a panic, never a huge
//! allocation.

use frazil::window::decode::TupleDecoder;
use frazil::window::relation::{Attribute, PgType, TextForm};
use frazil::window::render::render;
use frazil::window::wire::{CopyTuple, Framing, WalTuple, has_unchanged};
use proptest::prelude::*;

use super::oracle::column;

/// Every type, and an array of each.
pub(crate) fn every_type() -> Vec<PgType> {
    let scalars = vec![
        PgType::Bool,
        PgType::Int2,
        PgType::Int4,
        PgType::Int8,
        PgType::Oid,
        PgType::Xid8,
        PgType::Float4,
        PgType::Float8,
        PgType::Numeric { precision: 38, scale: 0 },
        PgType::Numeric { precision: 5, scale: 5 },
        PgType::Numeric { precision: 38, scale: 38 },
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
        PgType::Json,
        PgType::Money { scale: 2 },
        PgType::Point,
        PgType::Hstore,
        PgType::Vector,
        PgType::HalfVector,
        PgType::Geometry { srid: None },
        PgType::Geometry { srid: Some(4326) },
        PgType::Trimmed,
        PgType::BitBoolean,
        PgType::IntervalIso,
        PgType::AsText(Box::new(PgType::Uuid)),
    ];
    let nested = nested(&scalars);
    let scalars: Vec<_> = scalars.into_iter().chain(forms()).chain(nested).collect();
    let arrays = scalars.iter().map(|t| PgType::Array(Box::new(t.clone()))).collect::<Vec<_>>();
    scalars.into_iter().chain(arrays).collect()
}

fn forms() -> Vec<PgType> {
    let forms = [
        TextForm::Bits,
        TextForm::Network,
        TextForm::Mac,
        TextForm::Lsn,
        TextForm::Tid,
        TextForm::Line,
        TextForm::Segment,
        TextForm::Box,
        TextForm::Path,
        TextForm::Polygon,
        TextForm::Circle,
        TextForm::Words(PgType::Oid),
        TextForm::TsVector,
        TextForm::TsQuery,
        TextForm::Versioned,
        TextForm::Snapshot,
        TextForm::SparseVector,
        TextForm::Range(PgType::Date),
        TextForm::Multirange(PgType::Int4),
    ];
    forms.into_iter().map(PgType::written).collect()
}

fn nested(scalars: &[PgType]) -> Vec<PgType> {
    let attribute = |(n, t): (usize, &PgType)| Attribute {
        name: format!("a{n}"),
        type_oid: 23,
        pg_type: t.clone(),
    };
    let attributes: Vec<_> = scalars.iter().take(3).enumerate().map(attribute).collect();
    vec![
        PgType::Composite(attributes.clone()),
        PgType::Struct(attributes),
        PgType::RangeStruct(Box::new(PgType::Date)),
        PgType::Nested(Box::new(PgType::Int4), 2),
        PgType::Nested(Box::new(PgType::Date), 3),
    ]
}

/// One field as a tuple of its own.
fn decode<F: Framing>(t: &PgType, tuple: &[u8]) {
    let mut decoder = TupleDecoder::new(vec![Some(column(t))]).unwrap();
    match decoder.decode::<F>(tuple, &mut [0]).and_then(|()| decoder.finish()) {
        Ok(decoded) => assert_eq!(decoded.columns[0].len(), 1),
        Err(e) => assert!(!e.code().is_empty()),
    }
}

fn decode_every_way(value: &[u8]) {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let field = [&length, value].concat();
    for t in every_type() {
        decode::<CopyTuple>(&t, &field);
        decode::<WalTuple>(&t, &[b"b", field.as_slice()].concat());
        decode::<WalTuple>(&t, &[b"t", field.as_slice()].concat());
        drop(render(&t, value, &mut Vec::new()));
    }
}

/// Bytes that look like an array's header, or a numeric's, more often than chance has it.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => (0_u32..3).prop_map(|n| n.to_be_bytes().to_vec()),
        1 => any::<u32>().prop_map(|n| n.to_be_bytes().to_vec()),
        1 => Just(u32::MAX.to_be_bytes().to_vec()),
        1 => (0_u16..10_001).prop_map(|n| n.to_be_bytes().to_vec()),
        1 => prop::sample::select(vec![0_u16, 0x4000, 0xC000, 0xD000, 0xF000, 0x7fff])
            .prop_map(|n| n.to_be_bytes().to_vec()),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn bytes(value in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), likely()]) {
        decode_every_way(&value);
    }

    #[test]
    fn characters(value in r#"[-+0-9:. {}()<>\[\],;$/"'\\abceinfxytdomsrNUL=]{0,30}"#) {
        decode_every_way(value.as_bytes());
    }

    // cases: 167 holds
    #[test]
    fn tuples(tuple in prop::collection::vec(any::<u8>(), 0..40), at in any::<u32>()) {
        for at in [at, at % 40] {
            drop(has_unchanged(&tuple, at, 9));
            drop(CopyTuple::next(&tuple, &mut at.clone()));
            drop(WalTuple::next(&tuple, &mut at.clone()));
        }
    }
}
