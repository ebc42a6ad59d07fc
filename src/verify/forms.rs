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
    List(Box<Form>),
}

impl Form {
    /// The form of a column of this Postgres type in a lake field of this type; `None` where the
    /// two cannot be compared.
    pub(super) fn of(pg_type: &PgType, data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 => Self::Text,
            DataType::Boolean => Self::Bool,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Decimal128(..) => Self::Decimal,
            DataType::Binary | DataType::LargeBinary if *pg_type == PgType::Bytea => Self::Bytea,
            DataType::Date32 => Self::Date,
            DataType::Time64(TimeUnit::Microsecond) => Self::Time,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::TimestampTz,
            DataType::FixedSizeBinary(16) => Self::Uuid,
            DataType::Struct(_) if *pg_type == PgType::Interval => Self::Interval,
            DataType::List(element) => {
                let PgType::Array(pg_element) = pg_type else { return None };
                Self::List(Box::new(Self::of(pg_element, element.data_type())?))
            }
            _ => return None,
        })
    }

    /// Appends the canonical form of Postgres's text.
    pub(super) fn from_text(&self, text: &[u8], into: &mut Vec<u8>) {
        match self {
            Self::Float4 => canonical_float::<f32>(text, into),
            Self::Float8 => canonical_float::<f64>(text, into),
            Self::Decimal => into.extend_from_slice(render::trim_fraction(text)),
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
    pub(super) fn from_lake(&self, array: &ArrayRef, row: usize, into: &mut Vec<u8>) -> Result<()> {
        match (self, array.data_type()) {
            (Self::Text, DataType::Utf8) => {
                into.extend_from_slice(array.as_string::<i32>().value(row).as_bytes());
            }
            (Self::Bool, DataType::Boolean) => {
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
            (Self::Decimal, DataType::Decimal128(_, scale)) => {
                let scale = usize::try_from(*scale).unwrap_or(0);
                render::decimal(array.as_primitive::<Decimal128Type>().value(row), scale, into);
            }
            (Self::List(element), DataType::List(_)) => {
                array_from_lake(element, &array.as_list::<i32>().value(row), into)?;
            }
            _ => return self.moment_or_bytes(array, row, into),
        }
        Ok(())
    }

    fn moment_or_bytes(&self, array: &ArrayRef, row: usize, into: &mut Vec<u8>) -> Result<()> {
        match (self, array.data_type()) {
            (Self::Bytea, DataType::Binary) => {
                render::bytea(array.as_binary::<i32>().value(row), into);
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
        element.from_lake(values, at, &mut value)?;
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
                element.from_text(&value, &mut canonical);
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
        form.from_text(text.as_bytes(), &mut into);
        String::from_utf8(into).unwrap()
    }

    #[test]
    fn floats_have_one_text() {
        assert_eq!(canonical(&Form::Float8, "1e+20"), canonical(&Form::Float8, "1e20"));
        assert_eq!(canonical(&Form::Float8, "NaN"), "NaN");
        assert_ne!(canonical(&Form::Float8, "-0"), canonical(&Form::Float8, "0"));
        assert_eq!(canonical(&Form::Float8, "Infinity"), "inf");
        assert_eq!(canonical(&Form::Float4, "0.1"), "0.1");
    }

    #[test]
    fn arrays_have_one_text() {
        let texts = Form::List(Box::new(Form::Text));
        assert_eq!(canonical(&texts, r#"{a,NULL,"NULL","",x\"#), r#"{a,NULL,"NULL","",x\"#);
        assert_eq!(
            canonical(&texts, r#"{a,NULL,"NULL","","q\"\\"}"#),
            r#"{"a",NULL,"NULL","","q\"\\"}"#
        );
        assert_eq!(canonical(&texts, "{{1},{2}}"), "{{1},{2}}");
        assert_eq!(canonical(&texts, "[0:1]={1,2}"), "[0:1]={1,2}");
        assert_eq!(canonical(&texts, "{}"), "{}");
    }
}
