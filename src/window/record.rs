//! Composite values: their fields from the binary and the text form, and their text.
//!
//! Source: postgres/src/backend/utils/adt/rowtypes.c. Binary: count of fields, then of each its
//! type's oid, its length (-1: NULL) and its value. Text: `(1,"a ""b""",)`, nothing being NULL.
//!
//! ALTER TYPE sends no Relation message (case 50): a value may have fewer fields than the catalog
//! has attributes (it is from before ADD ATTRIBUTE, so the others are NULL). Where it has more, or
//! others, the catalog has to be read again.

use super::forms::{is_space, push_quoted};
use super::reader::Reader;
use super::relation::Attribute;
use super::render::render;
use super::scalar::bad_value;
use crate::error::{Error, Kind, Result};

/// Calls `each` with every attribute and its binary value, None being NULL, until it gives false.
pub(crate) fn try_each(
    attributes: &[Attribute],
    v: &[u8],
    mut each: impl FnMut(usize, &Attribute, Option<&[u8]>) -> Result<bool>,
) -> Result<bool> {
    let mut reader = Reader::new(v, "composite");
    let count = reader.count(8)?;
    if count > attributes.len() {
        return Err(other_attributes());
    }
    for (n, attribute) in attributes.iter().enumerate() {
        let mut value = None;
        if n < count {
            if reader.u32()? != attribute.type_oid {
                return Err(other_attributes());
            }
            value = reader.value()?;
        }
        if !each(n, attribute, value)? {
            return Ok(false);
        }
    }
    reader.end()?;
    Ok(true)
}

/// As [`try_each`], of the text form.
pub(crate) fn try_each_of_text(
    attributes: &[Attribute],
    text: &[u8],
    mut each: impl FnMut(usize, &Attribute, Option<&[u8]>) -> Result<bool>,
) -> Result<bool> {
    let bad = || bad_value("composite");
    let inside = text.strip_prefix(b"(").and_then(|t| t.strip_suffix(b")")).ok_or_else(bad)?;
    let mut rest = Some(inside).filter(|_| !attributes.is_empty());
    for (n, attribute) in attributes.iter().enumerate() {
        let mut value = None;
        if let Some(text) = rest {
            let (field, after) = field_of_text(text).ok_or_else(bad)?;
            value = field;
            rest = after.strip_prefix(b",");
            if rest.is_none() && !after.is_empty() {
                return Err(bad());
            }
        }
        if !each(n, attribute, value.as_deref())? {
            return Ok(false);
        }
    }
    if rest.is_some() { Err(other_attributes()) } else { Ok(true) }
}

/// A field at the beginning of `text` without its quotes (None: nothing there), and what follows:
/// a comma, or the end.
pub(crate) fn field_of_text(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let mut field = Vec::new();
    let (mut at, mut quoted, mut any) = (0, false, false);
    loop {
        match text.get(at) {
            None if quoted => return None,
            None => break,
            Some(b',') if !quoted => break,
            Some(b'"') if quoted && text.get(at + 1) == Some(&b'"') => {
                field.push(b'"');
                at += 1;
            }
            Some(b'"') => quoted = !quoted,
            Some(b'\\') => {
                field.push(*text.get(at + 1)?);
                at += 1;
            }
            Some(&byte) => field.push(byte),
        }
        any = true;
        at += 1;
    }
    Some((any.then_some(field), text.get(at..)?))
}

/// Appends the text of a binary composite value.
pub(crate) fn render_record(attributes: &[Attribute], v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.push(b'(');
    let mut text = Vec::new();
    try_each(attributes, v, |n, attribute, value| {
        if n > 0 {
            out.push(b',');
        }
        if let Some(v) = value {
            text.clear();
            render(&attribute.pg_type, v, &mut text)?;
            let special = |b: &u8| b"\"\\(),".contains(b) || is_space(*b);
            push_quoted(&text, text.is_empty() || text.iter().any(special), out);
        }
        Ok(true)
    })?;
    out.push(b')');
    Ok(())
}

#[cold]
fn other_attributes() -> Error {
    Error::new(
        Kind::Transient,
        "COMPOSITE_CHANGED",
        "a composite value has other attributes than its type had when the catalog was read",
    )
    .with_cure(
        "frazil reads the catalog again; where it repeats, attributes were dropped or altered \
         since: resync the table",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::relation::PgType;

    fn attributes(count: usize) -> Vec<Attribute> {
        let attribute =
            |n| Attribute { name: format!("a{n}"), type_oid: 25, pg_type: PgType::Text };
        (0..count).map(attribute).collect()
    }

    fn fields(count: usize, text: &str) -> Result<Vec<Option<String>>> {
        let mut all = Vec::new();
        try_each_of_text(&attributes(count), text.as_bytes(), |_, _, v| {
            all.push(v.map(|v| String::from_utf8(v.to_vec()).unwrap()));
            Ok(true)
        })?;
        Ok(all)
    }

    #[test]
    fn text_fields_are_unquoted() {
        let some = |s: &str| Some(s.to_owned());
        let read = fields(4, r#"(,"","a ""b"" \\",x)"#).unwrap();
        assert_eq!(read, [None, some(""), some("a \"b\" \\"), some("x")]);
        assert_eq!(fields(1, "()").unwrap(), [None]);
        assert_eq!(fields(0, "()").unwrap(), []);
    }

    #[test]
    fn attributes_added_since_are_null() {
        assert_eq!(fields(2, "(x)").unwrap(), [Some("x".to_owned()), None]);
        assert_eq!(fields(1, "(x,y)").unwrap_err().code(), "COMPOSITE_CHANGED");
        let two = [0, 0, 0, 2, 0, 0, 0, 25, 255, 255, 255, 255, 0, 0, 0, 25, 0, 0, 0, 0];
        let read = |count| try_each(&attributes(count), &two, |_, _, _| Ok(true));
        assert!(read(3).unwrap());
        assert_eq!(read(1).unwrap_err().code(), "COMPOSITE_CHANGED");
    }

    #[test]
    fn malformed_texts_are_refused() {
        for bad in ["", "(", "x", "(\"a)", "(a\\"] {
            assert!(fields(2, bad).is_err(), "{bad}");
        }
    }
}
