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
use arrow_schema::{DataType, TimeUnit};

use crate::error::{Error, Result};
use crate::verify::render::{self, put};
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
    /// `char(n)` without its padding.
    Trimmed,
    /// `bit(1)`
    Bit,
    List(Box<Form>),
}

impl Form {
    /// The form of a column of this Postgres type in a lake field of this type; `None` where the
    /// two cannot be compared.
    pub(super) fn of(pg_type: &PgType, data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 => return Self::of_text(pg_type),
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
                _ => return None,
            },
            DataType::Struct(_) => match pg_type {
                PgType::Interval => Self::Interval,
                PgType::Point => Self::Point,
                _ => return None,
            },
            DataType::Map(..) if *pg_type == PgType::Hstore => Self::Hstore,
            DataType::List(element) => match pg_type {
                PgType::Vector | PgType::HalfVector => Self::Vector,
                PgType::Array(of) => Self::List(Box::new(Self::of(of, element.data_type())?)),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Texts that are not Postgres's own cannot be compared.
    fn of_text(pg_type: &PgType) -> Option<Self> {
        match pg_type {
            PgType::Trimmed => Some(Self::Trimmed),
            PgType::IntervalIso | PgType::Composite(_) => None,
            _ => Some(Self::Text),
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
            Self::Hstore => hstore_from_text(text, into),
            Self::Ewkb => into.extend(text.iter().map(u8::to_ascii_lowercase)),
            Self::Trimmed => into.extend_from_slice(trim_spaces(text)),
            Self::Bit => into.push(if text == b"1" { b't' } else { b'f' }),
            Self::List(element) => {
                let start = into.len();
                if array_from_text(element, text, into).is_none() {
                    // More dimensions, or other bounds: it is compared as it is written.
                    into.truncate(start);
                    into.extend_from_slice(text);
                }
            }
            _ => into.extend_from_slice(text),
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
            (Self::Text | Self::Trimmed, DataType::Utf8) => {
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
            (Self::List(element), DataType::List(_)) => {
                array_from_lake(element, &array.as_list::<i32>().value(row), into)?;
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
            (Self::Hstore, DataType::Map(..)) => hstore_from_lake(array, row, into)?,
            _ => return self.moment_or_bytes(array, row, into),
        }
        Ok(())
    }

    fn moment_or_bytes(&self, array: &ArrayRef, row: usize, into: &mut Vec<u8>) -> Result<()> {
        match (self, array.data_type()) {
            (Self::Bytea, DataType::Binary) => {
                render::bytea(array.as_binary::<i32>().value(row), into);
            }
            (Self::Ewkb, DataType::Binary) => {
                render::hex(array.as_binary::<i32>().value(row), into);
            }
            (Self::Ewkb, DataType::LargeBinary) => {
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

fn other_type(array: &ArrayRef) -> Error {
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

/// Key and value.
type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Pairs by key: `"a"=>"1","b"=>NULL`.
fn hstore(mut pairs: Vec<Pair>, into: &mut Vec<u8>) {
    pairs.sort();
    for (nth, (key, value)) in pairs.iter().enumerate() {
        if nth > 0 {
            into.push(b',');
        }
        quoted(key, into);
        into.extend_from_slice(b"=>");
        match value {
            Some(value) => quoted(value, into),
            None => into.extend_from_slice(b"NULL"),
        }
    }
}

fn hstore_from_text(text: &[u8], into: &mut Vec<u8>) {
    fn pairs(mut rest: &[u8]) -> Option<Vec<Pair>> {
        let mut pairs = Vec::new();
        while !rest.is_empty() {
            let (key, after) = array_element(rest)?;
            let after = after.strip_prefix(b"=>")?;
            let (value, after) = match after.strip_prefix(b"NULL") {
                Some(after) => (None, after),
                None => array_element(after)?,
            };
            pairs.push((key?, value));
            rest = after.strip_prefix(b", ").unwrap_or(after);
        }
        Some(pairs)
    }
    match pairs(text) {
        Some(pairs) => hstore(pairs, into),
        None => into.extend_from_slice(text),
    }
}

fn hstore_from_lake(array: &ArrayRef, row: usize, into: &mut Vec<u8>) -> Result<()> {
    let entries = array.as_map().value(row);
    let strings = |at: usize| {
        let strings = entries.columns().get(at).and_then(|c| c.as_string_opt::<i32>());
        strings.ok_or_else(|| other_type(array))
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    let pairs = strings(0)?.iter().zip(strings(1)?.iter());
    let pairs = pairs.map(|(key, value)| (bytes(key.unwrap_or_default()), value.map(bytes)));
    hstore(pairs.collect(), into);
    Ok(())
}

fn array_from_lake(element: &Form, values: &ArrayRef, into: &mut Vec<u8>) -> Result<()> {
    let mut value = Vec::new();
    into.push(b'{');
    for at in 0..values.len() {
        if at > 0 {
            into.push(b',');
        }
        if values.is_null(at) {
            into.extend_from_slice(b"NULL");
            continue;
        }
        value.clear();
        element.write_lake(values, at, &mut value)?;
        quoted(&value, into);
    }
    into.push(b'}');
    Ok(())
}

/// The canonical form of a one-dimensional array's text; `None` where it is something else.
fn array_from_text(element: &Form, text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.strip_prefix(b"{")?;
    into.push(b'{');
    let mut is_first = true;
    while *rest.first()? != b'}' {
        if !is_first {
            rest = rest.strip_prefix(b",")?;
            into.push(b',');
        }
        is_first = false;
        let (value, after) = array_element(rest)?;
        match value {
            None => into.extend_from_slice(b"NULL"),
            Some(value) => {
                let mut canonical = Vec::with_capacity(value.len());
                element.write_text(&value, &mut canonical);
                quoted(&canonical, into);
            }
        }
        rest = after;
    }
    into.push(b'}');
    (rest.len() == 1).then_some(())
}

/// One element (`None` is NULL), and what follows it.
fn array_element(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let mut value = Vec::new();
    let Some(inner) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| matches!(byte, b',' | b'}' | b'{'))?;
        let (plain, after) = text.split_at(end);
        if after.first() == Some(&b'{') || plain.is_empty() {
            return None;
        }
        return Some(((plain != b"NULL").then(|| plain.to_vec()), after));
    };
    let mut at = 0;
    loop {
        match *inner.get(at)? {
            b'"' => return Some((Some(value), inner.get(at + 1..)?)),
            b'\\' => {
                value.push(*inner.get(at + 1)?);
                at += 2;
            }
            byte => {
                value.push(byte);
                at += 1;
            }
        }
    }
}

fn quoted(value: &[u8], into: &mut Vec<u8>) {
    into.push(b'"');
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            into.push(b'\\');
        }
        into.push(byte);
    }
    into.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let texts = Form::List(Box::new(Form::Text));
        assert_eq!(
            canonical(&texts, r#"{a,NULL,"NULL","","q\"\\"}"#),
            r#"{"a",NULL,"NULL","","q\"\\"}"#
        );
        assert_eq!(canonical(&texts, "{{1},{2}}"), "{{1},{2}}");
        assert_eq!(canonical(&texts, "[0:1]={1,2}"), "[0:1]={1,2}");
        assert_eq!(canonical(&texts, "{}"), "{}");
    }
}
