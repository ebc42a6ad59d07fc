//! Composite values as JSON: the text of Postgres's `row_to_json` under the pinned settings, from
//! the binary and the text form.
//!
//! Source: postgres/src/backend/utils/adt/json.c (`datum_to_json_internal`): numbers that JSON has
//! no word for are strings, times are ISO 8601, `json` stands as it is, a type without a rule is a
//! string with its text.

use super::array::{Array, ArrayText};
use super::hstore;
use super::record;
use super::relation::PgType;
use super::render::render;
use crate::error::Result;

/// Appends a binary value.
pub(crate) fn push_json(t: &PgType, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match t {
        PgType::Composite(attributes) | PgType::Struct(attributes) => {
            let mut object = Object::begin(out);
            record::try_each(attributes, v, |_, attribute, value| {
                let out = object.key(&attribute.name);
                push_or_null(value, out, |v, out| push_json(&attribute.pg_type, v, out))
            })?;
            out.push(b'}');
        }
        PgType::Array(element) | PgType::Nested(element, _) => {
            Array::read(v)?.brackets(out, |v, out| push_json(element, v, out))?;
        }
        PgType::Hstore => {
            let mut pairs = Pairs::begin(out);
            hstore::try_each(v, |key, value| pairs.push(key, value))?;
            out.push(b'}');
        }
        _ => {
            let mut text = Vec::new();
            render(t, v, &mut text)?;
            push_scalar(t, &text, out);
        }
    }
    Ok(())
}

/// Appends a value in its text form.
pub(crate) fn push_json_of_text(t: &PgType, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match t {
        PgType::Composite(attributes) | PgType::Struct(attributes) => {
            let mut object = Object::begin(out);
            record::try_each_of_text(attributes, text, |_, attribute, value| {
                let out = object.key(&attribute.name);
                push_or_null(value, out, |v, out| push_json_of_text(&attribute.pg_type, v, out))
            })?;
            out.push(b'}');
        }
        PgType::Array(element) | PgType::Nested(element, _) => {
            let array = ArrayText::read(text, element.delimiter())?;
            array.brackets(out, |v, out| push_json_of_text(element, v, out))?;
        }
        PgType::Hstore => {
            let mut pairs = Pairs::begin(out);
            hstore::try_each_of_text(text, |key, value| pairs.push(key, value))?;
            out.push(b'}');
        }
        _ => push_scalar(t, text, out),
    }
    Ok(())
}

fn push_or_null(
    value: Option<&[u8]>,
    out: &mut Vec<u8>,
    push: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<bool> {
    match value {
        Some(v) => push(v, out)?,
        None => out.extend_from_slice(b"null"),
    }
    Ok(true)
}

/// An object as `row_to_json` writes it: no blanks.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        push_string(name.as_bytes(), self.out);
        self.out.push(b':');
        self.out
    }
}

/// An object as `hstore_to_json` writes it: with blanks.
struct Pairs<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Pairs<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.extend_from_slice(b", ");
        }
        push_string(key, self.out);
        self.out.extend_from_slice(b": ");
        match value {
            Some(value) => push_string(value, self.out),
            None => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }
}

fn push_scalar(t: &PgType, text: &[u8], out: &mut Vec<u8>) {
    let is_number = || text.iter().any(u8::is_ascii_digit);
    match t {
        PgType::Bool => out.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
        PgType::Int2 | PgType::Int4 | PgType::Int8 => out.extend_from_slice(text),
        PgType::Float4 | PgType::Float8 | PgType::Numeric { .. } | PgType::NumericText
            if is_number() =>
        {
            out.extend_from_slice(text);
        }
        PgType::Json | PgType::Jsonb => out.extend_from_slice(text),
        PgType::Timestamp | PgType::TimestampTz => push_string(&iso_8601(text), out),
        _ => push_string(text, out),
    }
}

/// `2024-01-01 00:00:00+00 BC` with a T, and minutes in the zone.
fn iso_8601(text: &[u8]) -> Vec<u8> {
    let mut iso = Vec::with_capacity(text.len() + 3);
    let mut first = true;
    for (at, &byte) in text.iter().enumerate() {
        let between = byte == b' ' && std::mem::take(&mut first);
        iso.push(if between { b'T' } else { byte });
        if at >= 2 && text.get(at - 2..=at) == Some(b"+00") {
            iso.extend_from_slice(b":00");
        }
    }
    iso
}

/// `escape_json`.
fn push_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
