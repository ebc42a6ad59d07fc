//! Canonical forms of values with parts: arrays, composite types, ranges, hstore. Each part is in
//! its own canonical form and in quotes; NULL is a bare word, or nothing.
//!
//! Source of the texts: Postgres manual, "Array Input and Output Syntax", "Composite Type Input and
//! Output Syntax", "Range Input/Output"; hstore's external representation.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};

use crate::error::Result;
use crate::verify::forms::{Form, other_type};

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

/// The pairs of an hstore's text, in its order.
pub(super) fn hstore_pairs(text: &[u8]) -> Option<Vec<Pair>> {
    let (mut rest, mut pairs) = (text, Vec::new());
    while !rest.is_empty() {
        let (key, after) = array_element(rest, b',')?;
        let after = after.strip_prefix(b"=>")?;
        let (value, after) = match after.strip_prefix(b"NULL") {
            Some(after) => (None, after),
            None => array_element(after, b',')?,
        };
        pairs.push((key?, value));
        rest = after.strip_prefix(b", ").unwrap_or(after);
    }
    Some(pairs)
}

pub(super) fn hstore_from_text(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    hstore(hstore_pairs(text)?, into);
    Some(())
}

pub(super) fn hstore_from_lake(array: &ArrayRef, row: usize, into: &mut Vec<u8>) -> Result<()> {
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

/// Lists in lists where `depth` is more than 1.
pub(super) fn array_from_lake(
    element: &Form,
    depth: u8,
    values: &ArrayRef,
    into: &mut Vec<u8>,
) -> Result<()> {
    into.push(b'{');
    for at in 0..values.len() {
        if at > 0 {
            into.push(b',');
        }
        if values.is_null(at) {
            into.extend_from_slice(b"NULL");
        } else if depth > 1 {
            let inner = values.as_list_opt::<i32>().ok_or_else(|| other_type(values))?;
            array_from_lake(element, depth - 1, &inner.value(at), into)?;
        } else {
            part_of_lake(element, values, at, into)?;
        }
    }
    into.push(b'}');
    Ok(())
}

/// The canonical form of an array's text with this many dimensions and this delimiter; `None` where
/// it is something else.
pub(super) fn array_from_text(
    element: &Form,
    (depth, delimiter): (u8, u8),
    text: &[u8],
    into: &mut Vec<u8>,
) -> Option<()> {
    let rest = braces(depth, delimiter, text, into, &mut |event, into| match event {
        Event::Open => into.push(b'{'),
        Event::Comma => into.push(b','),
        Event::Close => into.push(b'}'),
        Event::Value(None) => into.extend_from_slice(b"NULL"),
        Event::Value(Some(value)) => part_of_text(element, value, into),
    })?;
    rest.is_empty().then_some(())
}

/// What an array's text is made of.
pub(super) enum Event<'a> {
    Open,
    Comma,
    Close,
    /// `None` is NULL.
    Value(Option<&'a [u8]>),
}

/// Walks one level of braces; gives what follows it.
pub(super) fn braces<'a>(
    depth: u8,
    delimiter: u8,
    text: &'a [u8],
    into: &mut Vec<u8>,
    on: &mut dyn FnMut(Event<'_>, &mut Vec<u8>),
) -> Option<&'a [u8]> {
    let mut rest = text.strip_prefix(b"{")?;
    on(Event::Open, into);
    let mut is_first = true;
    while *rest.first()? != b'}' {
        if !std::mem::take(&mut is_first) {
            rest = rest.strip_prefix(&[delimiter])?;
            on(Event::Comma, into);
        }
        if depth > 1 {
            rest = braces(depth - 1, delimiter, rest, into, on)?;
            continue;
        }
        let (value, after) = array_element(rest, delimiter)?;
        on(Event::Value(value.as_deref()), into);
        rest = after;
    }
    on(Event::Close, into);
    rest.get(1..)
}

/// One element (`None` is NULL), and what follows it.
fn array_element(text: &[u8], delimiter: u8) -> Option<(Option<Vec<u8>>, &[u8])> {
    let mut value = Vec::new();
    let Some(inner) = text.strip_prefix(b"\"") else {
        let is_end = |byte: &u8| *byte == delimiter || matches!(byte, b'}' | b'{');
        let (plain, after) = text.split_at(text.iter().position(is_end)?);
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

/// Attributes of a composite value's text, `None` being NULL: `(1,"a ""b""",)`.
pub(super) fn record_fields(text: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut rest = text.strip_prefix(b"(")?.strip_suffix(b")")?;
    let mut fields = Vec::new();
    loop {
        let (field, after) = bare_or_quoted(rest)?;
        fields.push(field);
        match after.split_first() {
            None => return Some(fields),
            Some((_, after)) => rest = after,
        }
    }
}

/// A field up to a comma or the end, without its quotes (`None`: there is nothing), and what
/// follows. Quotes are doubled or behind a backslash.
fn bare_or_quoted(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let (mut value, mut is_quoted, mut is_any, mut at) = (Vec::new(), false, false, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b',' if !is_quoted => break,
            b'\\' => {
                at += 1;
                value.push(*text.get(at)?);
            }
            b'"' if is_quoted && text.get(at + 1) == Some(&b'"') => {
                at += 1;
                value.push(b'"');
            }
            b'"' => is_quoted = !is_quoted,
            byte => value.push(byte),
        }
        is_any = true;
        at += 1;
    }
    (!is_quoted).then_some((is_any.then_some(value), text.get(at..)?))
}

/// Attributes that a value lacks were added to its type later: they are NULL.
pub(super) fn record_from_text(forms: &[Form], text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let fields = record_fields(text)?;
    if fields.len() > forms.len().max(1) {
        return None;
    }
    into.push(b'(');
    for (nth, form) in forms.iter().enumerate() {
        if nth > 0 {
            into.push(b',');
        }
        if let Some(value) = fields.get(nth).and_then(Option::as_ref) {
            part_of_text(form, value, into);
        }
    }
    into.push(b')');
    Some(())
}

pub(super) fn record_from_lake(
    forms: &[Form],
    array: &ArrayRef,
    row: usize,
    into: &mut Vec<u8>,
) -> Result<()> {
    into.push(b'(');
    for (nth, (form, part)) in forms.iter().zip(array.as_struct().columns()).enumerate() {
        if nth > 0 {
            into.push(b',');
        }
        if part.is_valid(row) {
            part_of_lake(form, part, row, into)?;
        }
    }
    into.push(b')');
    Ok(())
}

/// `["1","5")`, `empty`; a bound that is not there is nothing.
pub(super) fn range_from_text(bound: &Form, text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    if text == b"empty" {
        into.extend_from_slice(text);
        return Some(());
    }
    let (open, rest) = text.split_first()?;
    let (close, rest) = rest.split_last()?;
    if !matches!(open, b'[' | b'(') || !matches!(close, b']' | b')') {
        return None;
    }
    let (lower, rest) = bare_or_quoted(rest)?;
    let (upper, rest) = bare_or_quoted(rest.strip_prefix(b",")?)?;
    into.push(*open);
    lower.iter().for_each(|value| part_of_text(bound, value, into));
    into.push(b',');
    upper.iter().for_each(|value| part_of_text(bound, value, into));
    into.push(*close);
    rest.is_empty().then_some(())
}

pub(super) fn range_from_lake(
    bound: &Form,
    array: &ArrayRef,
    row: usize,
    into: &mut Vec<u8>,
) -> Result<()> {
    let [empty, lower, upper, lower_inc, upper_inc] = array.as_struct().columns() else {
        return Err(other_type(array));
    };
    let flag = |of: &ArrayRef| of.as_boolean_opt().map(|of| of.value(row));
    let flag = |of: &ArrayRef| flag(of).ok_or_else(|| other_type(array));
    if flag(empty)? {
        into.extend_from_slice(b"empty");
        return Ok(());
    }
    into.push(if flag(lower_inc)? { b'[' } else { b'(' });
    if lower.is_valid(row) {
        part_of_lake(bound, lower, row, into)?;
    }
    into.push(b',');
    if upper.is_valid(row) {
        part_of_lake(bound, upper, row, into)?;
    }
    into.push(if flag(upper_inc)? { b']' } else { b')' });
    Ok(())
}

fn part_of_text(form: &Form, value: &[u8], into: &mut Vec<u8>) {
    let mut canonical = Vec::with_capacity(value.len());
    form.write_text(value, &mut canonical);
    quoted(&canonical, into);
}

fn part_of_lake(form: &Form, values: &ArrayRef, at: usize, into: &mut Vec<u8>) -> Result<()> {
    let mut canonical = Vec::new();
    form.write_lake(values, at, &mut canonical)?;
    quoted(&canonical, into);
    Ok(())
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
