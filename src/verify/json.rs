//! What `row_to_json` makes of a composite value, from the value's text.
//!
//! Source of the rules: Postgres manual, "JSON Functions" (`to_json`): booleans and numbers are
//! themselves, `json` stands as it is, arrays and composite values are taken apart, a type with a
//! cast to json (hstore) is cast, times have a T, all else is a string. Numbers JSON lacks (NaN,
//! Infinity) are strings.

use crate::verify::parts::{Event, braces, hstore_pairs, record_fields};
use crate::verify::render::put;
use crate::window::relation::PgType;

/// How values of one type become JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    Bool,
    Number,
    Verbatim,
    /// A timestamp.
    Moment,
    Text,
    Hstore,
    /// Elements, and what parts them.
    Array(Box<Json>, u8),
    /// Attributes by name.
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn of(pg_type: &PgType) -> Self {
        match pg_type {
            PgType::Bool => Self::Bool,
            PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Float4 | PgType::Float8 => {
                Self::Number
            }
            PgType::Numeric { .. } | PgType::NumericText => Self::Number,
            PgType::Json | PgType::Jsonb => Self::Verbatim,
            PgType::Timestamp | PgType::TimestampTz => Self::Moment,
            PgType::Hstore => Self::Hstore,
            PgType::Array(of) | PgType::Nested(of, _) => {
                Self::Array(Box::new(Self::of(of)), of.delimiter())
            }
            PgType::Composite(attributes) | PgType::Struct(attributes) => {
                let pair =
                    |a: &crate::window::relation::Attribute| (a.name.clone(), Self::of(&a.pg_type));
                Self::Object(attributes.iter().map(pair).collect())
            }
            _ => Self::Text,
        }
    }

    /// Appends the JSON of a value's text; `None` where the text is no value of the type.
    pub(super) fn write(&self, text: &[u8], into: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Bool => into.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
            Self::Number if text.iter().any(u8::is_ascii_digit) => into.extend_from_slice(text),
            Self::Verbatim => into.extend_from_slice(text),
            Self::Moment => string(&with_t(text), into),
            Self::Number | Self::Text => string(text, into),
            Self::Hstore => hstore(text, into)?,
            Self::Array(of, delimiter) => array(of, *delimiter, text, into)?,
            Self::Object(attributes) => object(attributes, text, into)?,
        }
        Some(())
    }
}

fn object(attributes: &[(String, Json)], text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let fields = record_fields(text)?;
    if fields.len() > attributes.len().max(1) {
        return None;
    }
    for (nth, (name, json)) in attributes.iter().enumerate() {
        into.push(if nth == 0 { b'{' } else { b',' });
        string(name.as_bytes(), into);
        into.push(b':');
        match fields.get(nth).and_then(Option::as_ref) {
            Some(value) => json.write(value, into)?,
            None => into.extend_from_slice(b"null"),
        }
    }
    if attributes.is_empty() {
        into.push(b'{');
    }
    into.push(b'}');
    Some(())
}

/// `[0:1]={1,2}` and `{{1},{2}}`: bounds are not kept, dimensions are.
fn array(of: &Json, delimiter: u8, text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let start = match text.first() {
        Some(b'[') => text.iter().position(|&byte| byte == b'=')? + 1,
        _ => 0,
    };
    let text = text.get(start..)?;
    let dimensions = text.iter().take_while(|&&byte| byte == b'{').count();
    let mut is_fine = true;
    let depth = u8::try_from(dimensions).ok()?;
    let rest = braces(depth, delimiter, text, into, &mut |event, into| match event {
        Event::Open => into.push(b'['),
        Event::Comma => into.push(b','),
        Event::Close => into.push(b']'),
        Event::Value(None) => into.extend_from_slice(b"null"),
        Event::Value(Some(value)) => is_fine &= of.write(value, into).is_some(),
    })?;
    (is_fine && rest.is_empty()).then_some(())
}

/// As hstore's own cast writes it, with blanks.
fn hstore(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    into.push(b'{');
    for (nth, (key, value)) in hstore_pairs(text)?.iter().enumerate() {
        if nth > 0 {
            into.extend_from_slice(b", ");
        }
        string(key, into);
        into.extend_from_slice(b": ");
        match value {
            Some(value) => string(value, into),
            None => into.extend_from_slice(b"null"),
        }
    }
    into.push(b'}');
    Some(())
}

/// `2024-01-01 10:00:00+00` as `2024-01-01T10:00:00+00:00`; `BC` stays behind it.
fn with_t(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (&*text, ""),
    };
    let zone = if moment.ends_with("+00") { ":00" } else { "" };
    format!("{}{zone}{era}", moment.replacen(' ', "T", 1)).into_bytes()
}

fn string(text: &[u8], into: &mut Vec<u8>) {
    into.push(b'"');
    for &byte in text {
        match byte {
            b'"' => into.extend_from_slice(b"\\\""),
            b'\\' => into.extend_from_slice(b"\\\\"),
            8 => into.extend_from_slice(b"\\b"),
            9 => into.extend_from_slice(b"\\t"),
            10 => into.extend_from_slice(b"\\n"),
            12 => into.extend_from_slice(b"\\f"),
            13 => into.extend_from_slice(b"\\r"),
            0..32 => put(into, format_args!("\\u{byte:04x}")),
            byte => into.push(byte),
        }
    }
    into.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_t() {
        assert_eq!(with_t(b"2024-01-01 10:00:00+00"), b"2024-01-01T10:00:00+00:00");
        assert_eq!(with_t(b"0044-03-15 00:00:00.5 BC"), b"0044-03-15T00:00:00.5 BC");
        assert_eq!(with_t(b"-infinity"), b"-infinity");
    }

    #[test]
    fn objects_are_those_of_row_to_json() {
        let numbers = Json::Array(Box::new(Json::Number), b',');
        let json = Json::Object(vec![
            ("n".to_owned(), Json::Number),
            ("a\"".to_owned(), numbers),
            ("t".to_owned(), Json::Text),
        ]);
        let mut into = Vec::new();
        json.write(br#"(NaN,"[0:1]={{1,NULL}}","x ""\\")"#, &mut into).unwrap();
        let want = r#"{"n":"NaN","a\"":[[1,null]],"t":"x \"\\"}"#;
        assert_eq!(String::from_utf8(into).unwrap(), want);
    }
}
