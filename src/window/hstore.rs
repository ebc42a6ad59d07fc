//! `hstore`: contrib/hstore/hstore_io.c. Binary: count of pairs, then of each the key with its
//! length and the value with its length (-1: NULL). Text: `"a"=>"1", "b"=>NULL`.

use super::reader::Reader;
use super::scalar::bad_value;
use crate::error::Result;

/// Calls `each` with every key and value, None being NULL.
pub(crate) fn try_each(
    v: &[u8],
    mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::new(v, "hstore");
    for _ in 0..reader.count(8)? {
        let key = reader.value()?.ok_or_else(|| bad_value("hstore"))?;
        each(key, reader.value()?)?;
    }
    reader.end()
}

/// As [`try_each`], of the text form.
pub(crate) fn try_each_of_text(
    text: &[u8],
    mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    let bad = || bad_value("hstore");
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(bad)?;
        let after = after.strip_prefix(b"=>").ok_or_else(bad)?;
        let (value, after) = match after.strip_prefix(b"NULL") {
            Some(after) => (None, after),
            None => quoted(after).map(|(value, after)| (Some(value), after)).ok_or_else(bad)?,
        };
        each(&key, value.as_deref())?;
        rest = match after {
            [] => after,
            _ => after.strip_prefix(b", ").filter(|rest| !rest.is_empty()).ok_or_else(bad)?,
        };
    }
    Ok(())
}

/// What stands in the quotes at the beginning of `text`, and what follows them.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut inside = Vec::new();
    let mut bytes = text.strip_prefix(b"\"")?.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((inside, text.get(at + 2..)?)),
            b'\\' => inside.push(*bytes.next()?.1),
            _ => inside.push(byte),
        }
    }
    None
}

/// Appends the text of a binary `hstore`.
pub(crate) fn render_hstore(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut first = true;
    try_each(v, |key, value| {
        if !std::mem::take(&mut first) {
            out.extend_from_slice(b", ");
        }
        push_quoted(key, out);
        out.extend_from_slice(b"=>");
        match value {
            Some(value) => push_quoted(value, out),
            None => out.extend_from_slice(b"NULL"),
        }
        Ok(())
    })
}

fn push_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
