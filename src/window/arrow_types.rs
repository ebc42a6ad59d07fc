//! The Arrow types of columns.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, TimeUnit};

use super::relation::{Attribute, PgType};

/// The Arrow type of a Postgres type, without the lake's field ids. Times are in microseconds, as
/// Iceberg's.
pub fn arrow_type(t: &PgType) -> DataType {
    match t {
        PgType::Bool | PgType::BitBoolean => DataType::Boolean,
        PgType::Int2 | PgType::Int4 => DataType::Int32,
        PgType::Int8 | PgType::Oid => DataType::Int64,
        PgType::Xid8 => DataType::Decimal128(20, 0),
        PgType::Float4 => DataType::Float32,
        PgType::Float8 => DataType::Float64,
        &PgType::Numeric { precision, scale } => DataType::Decimal128(precision, scale),
        PgType::NumericText | PgType::Text | PgType::Json | PgType::Jsonb | PgType::TimeTz => {
            DataType::Utf8
        }
        PgType::Trimmed | PgType::IntervalIso | PgType::Composite(_) => DataType::Utf8,
        PgType::Written(_) | PgType::AsText(_) | PgType::Opaque => DataType::Utf8,
        PgType::Money { scale } => DataType::Decimal128(19, *scale),
        PgType::Bytea | PgType::Geometry { .. } => DataType::LargeBinary,
        PgType::Date => DataType::Date32,
        PgType::Time => DataType::Time64(TimeUnit::Microsecond),
        PgType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PgType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        PgType::Interval => structure(&[
            ("months", DataType::Int32),
            ("days", DataType::Int32),
            ("micros", DataType::Int64),
        ]),
        PgType::Point => structure(&[("x", DataType::Float64), ("y", DataType::Float64)]),
        PgType::Struct(attributes) => {
            let part = |a: &Attribute| ArrowField::new(&a.name, arrow_type(&a.pg_type), true);
            DataType::Struct(attributes.iter().map(part).collect())
        }
        PgType::RangeStruct(element) => structure(&[
            ("empty", DataType::Boolean),
            ("lower", arrow_type(element)),
            ("upper", arrow_type(element)),
            ("lower_inc", DataType::Boolean),
            ("upper_inc", DataType::Boolean),
        ]),
        PgType::Hstore => string_map(),
        PgType::Vector | PgType::HalfVector => list(DataType::Float32),
        PgType::Uuid => DataType::FixedSizeBinary(16),
        PgType::Array(element) => list(arrow_type(element)),
        PgType::Nested(element, depth) => {
            (0..*depth).fold(arrow_type(element), |inner, _| list(inner))
        }
    }
}

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(ArrowField::new("element", element, true)))
}

fn structure(parts: &[(&str, DataType)]) -> DataType {
    let part = |(name, t): &(&str, DataType)| ArrowField::new(*name, t.clone(), true);
    DataType::Struct(parts.iter().map(part).collect())
}

fn string_map() -> DataType {
    let pair = vec![
        ArrowField::new("key", DataType::Utf8, false),
        ArrowField::new("value", DataType::Utf8, true),
    ];
    let entries = ArrowField::new("key_value", DataType::Struct(pair.into()), false);
    DataType::Map(Arc::new(entries), false)
}
