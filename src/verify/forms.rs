//! The canonical form of a column's values: one text that both sides come to, the source from
//! Postgres's text, the lake from its Arrow value. The one place that knows the types.
//!
//! Most lake values are rendered as Postgres writes them. Where one value has several texts, both
//! sides go to one of our own: floats by their shortest digits, decimals without the zeros that end
//! their fraction, arrays with every element in quotes.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Fields, TimeUnit};

use crate::error::{Error, Result};
use crate::verify::json::Json;
use crate::verify::parts;
use crate::verify::render::{self, put};
use crate::verify::wkb;
use crate::window::relation::PgType;

/// How a column's values are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Bool,
    Int32,
    Int64,
    Float4,
    Float8,
    Decimal,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    /// Units of 10^-scale; the text is that of `lc_monetary` C.
    Money(usize),
    Point,
    Hstore,
    /// pgvector: `[1,2.5]`
    Vector,
    /// PostGIS: EWKB.
    Ewkb,
    /// PostGIS where the SRID is fixed: ISO WKB.
    IsoWkb,
    /// `char(n)` without its padding.
    Trimmed,
    /// `bit(1)`
    Bit,
    /// `interval` as ISO 8601.
    IntervalIso,
    /// An array of that many dimensions, and what parts its elements.
    List(Box<Form>, u8, u8),
    /// A composite type as the object of `row_to_json`.
    Json(Json),
    /// A composite type, by its attributes.
    Record(Vec<Form>),
    /// A range over such bounds.
    Range(Box<Form>),
}

impl Form {
    /// The form of a column of this Postgres type in a lake field of this type; `None` where the
    /// two cannot be compared.
    pub(super) fn of(pg_type: &PgType, data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 => Self::of_text(pg_type),
            DataType::Boolean if *pg_type == PgType::BitBoolean => Self::Bit,
            DataType::Boolean => Self::Bool,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Decimal128(_, scale) => match pg_type {
                PgType::Money { .. } => Self::Money(usize::try_from(*scale).ok()?),
                _ => Self::Decimal,
            },
            DataType::Binary | DataType::LargeBinary if *pg_type == PgType::Bytea => Self::Bytea,
            DataType::Date32 => Self::Date,
            DataType::Time64(TimeUnit::Microsecond) => Self::Time,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::TimestampTz,
            DataType::FixedSizeBinary(16) => Self::Uuid,
            DataType::Binary | DataType::LargeBinary => match pg_type {
                PgType::Geometry { srid: None } => Self::Ewkb,
                PgType::Geometry { srid: Some(_) } => Self::IsoWkb,
                _ => return None,
            },
            DataType::Struct(fields) => return Self::of_struct(pg_type, fields),
            DataType::Map(..) if *pg_type == PgType::Hstore => Self::Hstore,
            DataType::List(element) => match pg_type {
                PgType::Vector | PgType::HalfVector => Self::Vector,
                PgType::Array(of) => {
                    Self::List(Box::new(Self::of(of, element.data_type())?), 1, of.delimiter())
                }
                PgType::Nested(of, depth) => {
                    let element = innermost(data_type, *depth)?;
                    Self::List(Box::new(Self::of(of, element)?), *depth, of.delimiter())
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Some texts of the lake are not Postgres's own.
    fn of_text(pg_type: &PgType) -> Self {
        match pg_type {
            PgType::Trimmed => Self::Trimmed,
            PgType::IntervalIso => Self::IntervalIso,
            PgType::Composite(_) => Self::Json(Json::of(pg_type)),
            _ => Self::Text,
        }
    }

    fn of_struct(pg_type: &PgType, fields: &Fields) -> Option<Self> {
        match pg_type {
            PgType::Interval => Some(Self::Interval),
            PgType::Point => Some(Self::Point),
            PgType::Struct(attributes) if attributes.len() == fields.len() => {
                let pairs = attributes.iter().zip(fields);
                let forms = pairs.map(|(a, field)| Self::of(&a.pg_type, field.data_type()));
                Some(Self::Record(forms.collect::<Option<_>>()?))
            }
            PgType::RangeStruct(of) => {
                Some(Self::Range(Box::new(Self::of(of, fields.get(1)?.data_type())?)))
            }
            _ => None,
        }
    }

    /// Appends the canonical form of Postgres's text.
    pub(super) fn write_text(&self, text: &[u8], into: &mut Vec<u8>) {
        match self {
            Self::Float4 => canonical_float::<f32>(text, into),
            Self::Float8 => canonical_float::<f64>(text, into),
            Self::Decimal => into.extend_from_slice(render::trim_fraction(text)),
            Self::Money(scale) => money(text, *scale, into),
            Self::Point => numbers(text, b"(", b")", into, canonical_float::<f64>),
            Self::Vector => numbers(text, b"[", b"]", into, canonical_float::<f32>),
            Self::Ewkb => into.extend(text.iter().map(u8::to_ascii_lowercase)),
            Self::Trimmed => into.extend_from_slice(trim_spaces(text)),
            Self::Bit => into.push(if text == b"1" { b't' } else { b'f' }),
            Self::Hstore
            | Self::IsoWkb
            | Self::IntervalIso
            | Self::List(..)
            | Self::Json(_)
            | Self::Record(_)
            | Self::Range(_) => {
                let start = into.len();
                if self.take_apart(text, into).is_none() {
                    // Of another shape than the lake can hold: it is compared as it is written.
                    into.truncate(start);
                    into.extend_from_slice(text);
                }
            }
            _ => into.extend_from_slice(text),
        }
    }

    /// Appends the canonical form of a text that has parts; `None` where it has not these.
    fn take_apart(&self, text: &[u8], into: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Hstore => parts::hstore_from_text(text, into),
            Self::IsoWkb => wkb::iso_from_ewkb(text, into),
            Self::IntervalIso => render::iso_interval(text, into),
            Self::List(element, depth, delimiter) => {
                parts::array_from_text(element, (*depth, *delimiter), text, into)
            }
            Self::Json(json) => json.write(text, into),
            Self::Record(forms) => parts::record_from_text(forms, text, into),
            Self::Range(bound) => parts::range_from_text(bound, text, into),
            _ => None,
        }
    }

    /// Appends the canonical form of a lake value that is not NULL.
    ///
    /// # Errors
    /// `VERIFY_VALUE` (fatal) where the array is of another type than the form.
    pub(super) fn write_lake(
        &self,
        array: &ArrayRef,
        row: usize,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        match (self, array.data_type()) {
            (Self::Text | Self::Trimmed | Self::IntervalIso | Self::Json(_), DataType::Utf8) => {
                into.extend_from_slice(array.as_string::<i32>().value(row).as_bytes());
            }
            (Self::Bool | Self::Bit, DataType::Boolean) => {
                into.push(if array.as_boolean().value(row) { b't' } else { b'f' });
            }
            (Self::Int32, DataType::Int32) => {
                put(into, format_args!("{}", array.as_primitive::<Int32Type>().value(row)));
            }
            (Self::Int64, DataType::Int64) => {
                put(into, format_args!("{}", array.as_primitive::<Int64Type>().value(row)));
            }
            (Self::Float4, DataType::Float32) => {
                put(into, format_args!("{:?}", array.as_primitive::<Float32Type>().value(row)));
            }
            (Self::Float8, DataType::Float64) => {
                put(into, format_args!("{:?}", array.as_primitive::<Float64Type>().value(row)));
            }
            (Self::Decimal | Self::Money(_), DataType::Decimal128(_, scale)) => {
                let scale = usize::try_from(*scale).unwrap_or(0);
                render::decimal(array.as_primitive::<Decimal128Type>().value(row), scale, into);
            }
            (Self::List(element, depth, _), DataType::List(_)) => {
                parts::array_from_lake(element, *depth, &array.as_list::<i32>().value(row), into)?;
            }
            (Self::Record(forms), DataType::Struct(_)) => {
                parts::record_from_lake(forms, array, row, into)?;
            }
            (Self::Range(bound), DataType::Struct(_)) => {
                parts::range_from_lake(bound, array, row, into)?;
            }
            (Self::Vector, DataType::List(_)) => {
                let list = array.as_list::<i32>().value(row);
                let floats = list.as_primitive_opt::<Float32Type>();
                joined(floats.ok_or_else(|| other_type(array))?.values(), into);
            }
            (Self::Point, DataType::Struct(_)) => {
                let part = |at: usize| {
                    let column = array.as_struct().columns().get(at);
                    let floats = column.and_then(|column| column.as_primitive_opt::<Float64Type>());
                    floats.map(|floats| floats.value(row))
                };
                let parts = [part(0), part(1)].map(|part| part.ok_or_else(|| other_type(array)));
                let [x, y] = parts;
                joined(&[x?, y?], into);
            }
            (Self::Hstore, DataType::Map(..)) => parts::hstore_from_lake(array, row, into)?,
            _ => return self.moment_or_bytes(array, row, into),
        }
        Ok(())
    }

    fn moment_or_bytes(&self, array: &ArrayRef, row: usize, into: &mut Vec<u8>) -> Result<()> {
        match (self, array.data_type()) {
            (Self::Bytea, DataType::Binary) => {
                render::bytea(array.as_binary::<i32>().value(row), into);
            }
            (Self::Ewkb | Self::IsoWkb, DataType::Binary) => {
                render::hex(array.as_binary::<i32>().value(row), into);
            }
            (Self::Ewkb | Self::IsoWkb, DataType::LargeBinary) => {
                render::hex(array.as_binary::<i64>().value(row), into);
            }
            (Self::Bytea, DataType::LargeBinary) => {
                render::bytea(array.as_binary::<i64>().value(row), into);
            }
            (Self::Uuid, DataType::FixedSizeBinary(_)) => {
                render::uuid(array.as_fixed_size_binary().value(row), into);
            }
            (Self::Date, DataType::Date32) => {
                render::date(i64::from(array.as_primitive::<Date32Type>().value(row)), into);
            }
            (Self::Time, DataType::Time64(_)) => {
                render::time(array.as_primitive::<Time64MicrosecondType>().value(row), into);
            }
            (Self::Timestamp | Self::TimestampTz, DataType::Timestamp(_, _)) => {
                let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
                let zone = if *self == Self::TimestampTz { "+00" } else { "" };
                render::timestamp(us, zone, into);
            }
            (Self::Interval, DataType::Struct(_)) => {
                let parts = array.as_struct().columns();
                let [months, days, micros] = parts else { return Err(other_type(array)) };
                let part = |array: &ArrayRef| -> Result<i32> {
                    let ints = array.as_primitive_opt::<Int32Type>();
                    Ok(ints.ok_or_else(|| other_type(array))?.value(row))
                };
                let micros = micros.as_primitive_opt::<Int64Type>();
                let micros = micros.ok_or_else(|| other_type(array))?.value(row);
                render::interval(part(months)?, part(days)?, micros, into);
            }
            _ => return Err(other_type(array)),
        }
        Ok(())
    }
}

/// The type of the elements of lists in lists.
fn innermost(data_type: &DataType, depth: u8) -> Option<&DataType> {
    match (data_type, depth) {
        (_, 0) => Some(data_type),
        (DataType::List(element), _) => innermost(element.data_type(), depth - 1),
        _ => None,
    }
}

pub(super) fn other_type(array: &ArrayRef) -> Error {
    let what = format!("a lake column changed its type to {} meanwhile", array.data_type());
    Error::fatal("VERIFY_VALUE", what).with_cure("verify again")
}

/// The shortest digits of a float; what is no float stays as it is.
fn canonical_float<F: std::str::FromStr + std::fmt::Debug>(text: &[u8], into: &mut Vec<u8>) {
    match std::str::from_utf8(text).ok().and_then(|text| text.parse::<F>().ok()) {
        Some(value) => put(into, format_args!("{value:?}")),
        None => into.extend_from_slice(text),
    }
}

/// `-$1,234.56` under `lc_monetary` C: what counts is the digits, in units of 10^-`scale`.
fn money(text: &[u8], scale: usize, into: &mut Vec<u8>) {
    let digits: String =
        text.iter().filter(|byte| byte.is_ascii_digit()).map(|&byte| char::from(byte)).collect();
    let sign = if text.starts_with(b"-") || text.starts_with(b"(") { -1 } else { 1 };
    match digits.parse::<i128>() {
        Ok(units) => render::decimal(sign * units, scale, into),
        Err(_) => into.extend_from_slice(text),
    }
}

/// Numbers between `open` and `close`, joined by commas.
fn numbers(
    text: &[u8],
    open: &[u8],
    close: &[u8],
    into: &mut Vec<u8>,
    number: fn(&[u8], &mut Vec<u8>),
) {
    let inner = text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
    let parts = inner.unwrap_or(text).split(|&byte| byte == b',');
    for (nth, part) in parts.filter(|part| !part.is_empty()).enumerate() {
        if nth > 0 {
            into.push(b',');
        }
        number(part, into);
    }
}

fn joined<F: std::fmt::Debug>(numbers: &[F], into: &mut Vec<u8>) {
    for (nth, number) in numbers.iter().enumerate() {
        put(into, format_args!("{}{number:?}", if nth > 0 { "," } else { "" }));
    }
}

fn trim_spaces(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::layout::arrow_schema;
    use crate::iceberg::schema::iceberg_type;
    use crate::window::relation::{Attribute, Column, TextForm};
    use iceberg::spec::{NestedField, Schema};

    fn canonical(form: &Form, text: &str) -> String {
        let mut into = Vec::new();
        form.write_text(text.as_bytes(), &mut into);
        String::from_utf8(into).unwrap()
    }

    #[test]
    fn floats_have_one_text() {
        assert_eq!(canonical(&Form::Float8, "1e+20"), canonical(&Form::Float8, "1e20"));
        assert_eq!(canonical(&Form::Float8, "NaN"), "NaN");
        assert_ne!(canonical(&Form::Float8, "-0"), canonical(&Form::Float8, "0"));
        assert_eq!(canonical(&Form::Float8, "Infinity"), "inf");
        assert_eq!(canonical(&Form::Float4, "0.1"), "0.1");
        assert_eq!(canonical(&Form::Point, "(1,-2.5e+20)"), "1.0,-2.5e20");
        assert_eq!(canonical(&Form::Vector, "[1,0.1]"), "1.0,0.1");
    }

    #[test]
    fn money_is_its_digits() {
        assert_eq!(canonical(&Form::Money(2), "-$1,234.50"), "-1234.5");
        assert_eq!(canonical(&Form::Money(0), "$1,234.50"), "123450");
    }

    #[test]
    fn pairs_are_sorted() {
        let text = r#""b"=>NULL, "a\"x"=>"1,2", "c"=>"NULL""#;
        let want = r#""a\"x"=>"1,2","b"=>NULL,"c"=>"NULL""#;
        assert_eq!(canonical(&Form::Hstore, text), want);
        assert_eq!(canonical(&Form::Hstore, ""), "");
    }

    #[test]
    fn arrays_have_one_text() {
        let texts = Form::List(Box::new(Form::Text), 1, b',');
        assert_eq!(
            canonical(&texts, r#"{a,NULL,"NULL","","q\"\\"}"#),
            r#"{"a",NULL,"NULL","","q\"\\"}"#
        );
        assert_eq!(canonical(&texts, "{{1},{2}}"), "{{1},{2}}");
        assert_eq!(canonical(&texts, "[0:1]={1,2}"), "[0:1]={1,2}");
        assert_eq!(canonical(&texts, "{}"), "{}");
        let boxes = Form::List(Box::new(Form::Text), 1, b';');
        assert_eq!(canonical(&boxes, "{(2,2),(1,1);NULL}"), r#"{"(2,2),(1,1)",NULL}"#);
        let nested = Form::List(Box::new(Form::Int32), 2, b',');
        assert_eq!(canonical(&nested, "{{1,2},{3,NULL}}"), r#"{{"1","2"},{"3",NULL}}"#);
        assert_eq!(canonical(&nested, "{1}"), "{1}");
    }

    #[test]
    fn records_and_ranges_have_one_text() {
        let record = Form::Record(vec![Form::Decimal, Form::Text, Form::Text]);
        assert_eq!(canonical(&record, r#"(1.50,"a ""b"" \\",)"#), r#"("1.5","a \"b\" \\",)"#);
        // From before ADD ATTRIBUTE.
        assert_eq!(canonical(&record, "(,x)"), r#"(,"x",)"#);
        let range = Form::Range(Box::new(Form::Decimal));
        assert_eq!(canonical(&range, "[1.50,)"), r#"["1.5",)"#);
        assert_eq!(canonical(&range, "empty"), "empty");
        let range = Form::Range(Box::new(Form::Text));
        assert_eq!(canonical(&range, r#"("a,""b",c]"#), r#"("a,\"b","c"]"#);
    }

    /// A type without a form is a type that nobody proves.
    #[test]
    fn every_type_has_a_form() {
        let point = PgType::Geometry { srid: Some(4326) };
        let attributes = |of: &PgType| {
            vec![Attribute { name: "a".to_owned(), type_oid: 0, pg_type: of.clone() }]
        };
        let mut types = scalars();
        for of in [scalars(), vec![point]].concat() {
            let of = || Box::new(of.clone());
            types.extend([PgType::Array(of()), PgType::Nested(of(), 3), PgType::RangeStruct(of())]);
            types.extend([PgType::Struct(attributes(&of())), PgType::Composite(attributes(&of()))]);
        }
        for one in &types {
            let column = Column {
                name: "c".to_owned(),
                attnum: 1,
                type_oid: 0,
                typmod: -1,
                pg_type: one.clone(),
                toastable: false,
                field_version: 0,
            };
            let id = column.field_id();
            let field = NestedField::optional(id, "c", iceberg_type(id, one));
            let schema = Schema::builder().with_fields(vec![field.into()]).build().unwrap();
            let arrow = arrow_schema(&schema).unwrap();
            assert!(Form::of(one, arrow.field(0).data_type()).is_some(), "{one:?} has no form");
        }
    }

    /// The types without parts.
    fn scalars() -> Vec<PgType> {
        let all = vec![
            PgType::Bool,
            PgType::Int2,
            PgType::Int4,
            PgType::Int8,
            PgType::Oid,
            PgType::Xid8,
            PgType::Float4,
            PgType::Float8,
            PgType::Numeric { precision: 9, scale: 2 },
            PgType::NumericText,
            PgType::Text,
            PgType::Json,
            PgType::Jsonb,
            PgType::Bytea,
            PgType::Date,
            PgType::Time,
            PgType::TimeTz,
            PgType::Timestamp,
            PgType::TimestampTz,
            PgType::Interval,
            PgType::Uuid,
            PgType::Money { scale: 2 },
            PgType::Point,
            PgType::Hstore,
            PgType::Vector,
            PgType::HalfVector,
            PgType::Geometry { srid: None },
            PgType::Geometry { srid: Some(4326) },
            PgType::BitBoolean,
            PgType::Trimmed,
            PgType::IntervalIso,
            PgType::written(TextForm::Box),
            PgType::Opaque,
            PgType::AsText(Box::new(PgType::Uuid)),
        ];
        all.iter().for_each(assert_scalar);
        all
    }

    /// A new type does not compile here before it has a place above.
    fn assert_scalar(one: &PgType) {
        match one {
            PgType::Bool
            | PgType::Int2
            | PgType::Int4
            | PgType::Int8
            | PgType::Oid
            | PgType::Xid8
            | PgType::Float4
            | PgType::Float8
            | PgType::Numeric { .. }
            | PgType::NumericText
            | PgType::Text
            | PgType::Json
            | PgType::Jsonb
            | PgType::Bytea
            | PgType::Date
            | PgType::Time
            | PgType::TimeTz
            | PgType::Timestamp
            | PgType::TimestampTz
            | PgType::Interval
            | PgType::Uuid
            | PgType::Money { .. }
            | PgType::Point
            | PgType::Hstore
            | PgType::Vector
            | PgType::HalfVector
            | PgType::Geometry { .. }
            | PgType::BitBoolean
            | PgType::Trimmed
            | PgType::IntervalIso
            | PgType::Written(_)
            | PgType::AsText(_)
            | PgType::Opaque => {}
            // Those with parts are made of these above.
            PgType::Array(_)
            | PgType::Nested(..)
            | PgType::Composite(_)
            | PgType::Struct(_)
            | PgType::RangeStruct(_) => unreachable!(),
        }
    }
}
