//! The text of a value, from its binary form: the same bytes as the type's output function gives
//! under the pinned settings (DateStyle ISO, IntervalStyle postgres, `bytea_output` hex,
//! `extra_float_digits` 3, TimeZone UTC).

use super::array::Array;
use super::float::{render_float4, render_float8};
use super::forms::vector::render_vector;
use super::forms::{bit, render_form, render_point, render_range};
use super::hstore::render_hstore;
use super::interval::render_interval;
use super::record::render_record;
use super::relation::PgType;
use super::scalar::{bad_value, boolean, exact};
use super::{datetime, numeric};
use crate::error::{Error, Result};

/// Appends the text of `v`, a value of type `t` in its binary form. `BAD_VALUE` where it isn't one;
/// `BINARY_FORM_UNKNOWN` for [`PgType::Opaque`]. Text is not checked to be UTF-8.
pub fn render(t: &PgType, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match t {
        PgType::Bool => out.push(if boolean(v)? { b't' } else { b'f' }),
        PgType::Int2 => push(i16::from_be_bytes(exact(v, "int2")?), out),
        PgType::Int4 => push(i32::from_be_bytes(exact(v, "int4")?), out),
        PgType::Int8 => push(i64::from_be_bytes(exact(v, "int8")?), out),
        PgType::Oid => push(u32::from_be_bytes(exact(v, "oid")?), out),
        PgType::Xid8 => push(u64::from_be_bytes(exact(v, "xid8")?), out),
        PgType::Float4 => render_float4(f32::from_be_bytes(exact(v, "float4")?), out),
        PgType::Float8 => render_float8(f64::from_be_bytes(exact(v, "float8")?), out),
        PgType::Numeric { .. } | PgType::NumericText => numeric::render(v, out)?,
        PgType::Text | PgType::Json | PgType::Trimmed => out.extend_from_slice(text(v)),
        PgType::Jsonb => out.extend_from_slice(jsonb(v)?),
        PgType::Bytea => push_hex(v, out),
        PgType::Date => datetime::render_date(v, out)?,
        PgType::Time => datetime::render_time(v, out)?,
        PgType::TimeTz => datetime::render_timetz(v, out)?,
        PgType::Timestamp => datetime::render_timestamp(v, b"", out)?,
        PgType::TimestampTz => datetime::render_timestamp(v, b"+00", out)?,
        PgType::Interval | PgType::IntervalIso => render_interval(v, out)?,
        PgType::Uuid => push_uuid(exact(v, "uuid")?, out),
        PgType::Array(element) | PgType::Nested(element, _) => {
            let delimiter = element.delimiter();
            Array::read(v)?.render(delimiter, out, |v, out| render(element, v, out))?;
        }
        PgType::Money { .. } => numeric::render_money(v, out)?,
        PgType::BitBoolean => out.push(if bit(v)? { b'1' } else { b'0' }),
        PgType::Point => render_point(v, out)?,
        PgType::Hstore => render_hstore(v, out)?,
        PgType::Vector => render_vector(v, false, out)?,
        PgType::HalfVector => render_vector(v, true, out)?,
        PgType::Geometry { .. } => out.extend(v.iter().flat_map(|b| capitals(*b))),
        PgType::Composite(attributes) | PgType::Struct(attributes) => {
            render_record(attributes, v, out)?;
        }
        PgType::RangeStruct(element) => render_range(element, v, out)?,
        PgType::Written(form) => render_form(form, v, out)?,
        PgType::AsText(t) => render(t, v, out)?,
        PgType::Opaque => return Err(binary_form_unknown()),
    }
    Ok(())
}

/// The text of a type whose binary form is its text. The `"char"` of code 0 is the exception: its
/// text is empty. No other text can hold that code.
#[inline(always)]
pub(crate) fn text(v: &[u8]) -> &[u8] {
    if v == [0] { &[] } else { v }
}

/// A `jsonb` behind its version.
pub(crate) fn jsonb(v: &[u8]) -> Result<&[u8]> {
    v.strip_prefix(&[1]).ok_or_else(|| bad_value("jsonb"))
}

/// Only a stream in text mode may have such a column.
#[cold]
pub(crate) fn binary_form_unknown() -> Error {
    Error::fatal(
        "BINARY_FORM_UNKNOWN",
        "a value came in binary form, which is not known for its type",
    )
    .with_cure("leave the column out by a publication column list, and report it")
}

fn push(number: impl ToString, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn push_hex(v: &[u8], out: &mut Vec<u8>) {
    out.reserve(2 + 2 * v.len());
    out.extend_from_slice(b"\\x");
    out.extend(v.iter().flat_map(|b| [hex_digit(b >> 4), hex_digit(b & 15)]));
}

/// Two digits, as PostGIS writes them.
fn capitals(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|nibble| hex_digit(nibble).to_ascii_uppercase())
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn push_uuid(bytes: [u8; 16], out: &mut Vec<u8>) {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = uuid::Uuid::from_bytes(bytes).as_hyphenated().encode_lower(&mut text);
    out.extend_from_slice(text.as_bytes());
}
