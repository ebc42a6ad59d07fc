//! Arrays: their elements from the binary and the text form, and their text.
//!
//! Source: postgres/src/backend/utils/adt/arrayfuncs.c (`array_send`, `array_out`). Binary: count
//! of dimensions, a flag for NULLs, the element type's oid, then length and lower bound of each
//! dimension, then each element as in COPY; all 32 bits. Text: `[0:1]={7,NULL,"a b"}`.

use super::scalar::bad_value;
use super::wire::{CopyTuple, Field, Framing, be32, size};
use crate::error::Result;

/// `MAXDIM` of Postgres.
const DIMENSIONS_MAX: usize = 6;

/// A binary array whose header was checked.
pub(crate) struct Array<'a> {
    /// Length and lower bound of each dimension; no dimension: an empty array.
    dimensions: Vec<(u32, i32)>,
    /// Elements in all, which `v` is long enough for.
    count: usize,
    v: &'a [u8],
    cursor: u32,
}

impl<'a> Array<'a> {
    /// Reads the header. `BAD_VALUE` where there are more elements than bytes.
    pub(crate) fn read(v: &'a [u8]) -> Result<Self> {
        let bad = || bad_value("array");
        let word = |n: usize| be32(v, n * 4).map_err(|_| bad());
        let dimension_count = size(word(0)?);
        if dimension_count > DIMENSIONS_MAX || word(1)? > 1 {
            return Err(bad());
        }
        word(2)?;
        let dimension = |n| Ok((word(3 + 2 * n)?, word(4 + 2 * n)?.cast_signed()));
        let dimensions = (0..dimension_count).map(dimension).collect::<Result<Vec<_>>>()?;
        let lengths = dimensions.iter().map(|(length, _)| size(*length));
        let count = lengths.reduce(usize::saturating_mul).unwrap_or_default();
        let start = 12 + 8 * dimension_count;
        if count > v.len().saturating_sub(start) / 4 {
            return Err(bad());
        }
        let cursor = u32::try_from(start).map_err(|_| bad())?;
        Ok(Self { dimensions, count, v, cursor })
    }

    /// Whether it is what a list can hold: one dimension that begins at 1, or empty.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.dimensions.as_slice(), [] | [(_, 1)] | [(0, _)])
    }

    /// The next element; None is NULL.
    fn element(&mut self) -> Result<Option<&'a [u8]>> {
        match CopyTuple::next(self.v, &mut self.cursor).map_err(|_| bad_value("array"))? {
            Field::Binary(v) => Ok(Some(v)),
            _ => Ok(None),
        }
    }

    /// Calls `each` for every element, None being NULL, until it gives false.
    #[inline(always)]
    pub(crate) fn try_each(
        mut self,
        mut each: impl FnMut(Option<&'a [u8]>) -> Result<bool>,
    ) -> Result<bool> {
        for _ in 0..self.count {
            if !each(self.element()?)? {
                return Ok(false);
            }
        }
        if size(self.cursor) == self.v.len() { Ok(true) } else { Err(bad_value("array")) }
    }

    /// Appends the array's text; `each` appends that of an element.
    pub(crate) fn render(
        mut self,
        delimiter: u8,
        out: &mut Vec<u8>,
        each: impl Fn(&[u8], &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if self.count == 0 {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        if self.dimensions.iter().any(|(_, lower)| *lower != 1) {
            self.render_bounds(out);
        }
        let mut element = Vec::new();
        for n in 0..self.count {
            if n > 0 {
                out.push(delimiter);
            }
            push_braces(self.lengths(), n, b'{', out);
            match self.element()? {
                None => out.extend_from_slice(b"NULL"),
                Some(v) => {
                    element.clear();
                    each(v, &mut element)?;
                    push_element(&element, delimiter, out);
                }
            }
            push_braces(self.lengths(), n + 1, b'}', out);
        }
        Ok(())
    }

    /// Appends the array as JSON does, lower bounds apart; `each` appends an element.
    pub(crate) fn brackets(
        mut self,
        out: &mut Vec<u8>,
        each: impl Fn(&[u8], &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if self.count == 0 {
            out.extend_from_slice(b"[]");
        }
        for n in 0..self.count {
            if n > 0 {
                out.push(b',');
            }
            push_braces(self.lengths(), n, b'[', out);
            match self.element()? {
                None => out.extend_from_slice(b"null"),
                Some(v) => each(v, out)?,
            }
            push_braces(self.lengths(), n + 1, b']', out);
        }
        Ok(())
    }

    /// The length of each dimension, the innermost first.
    fn lengths(&self) -> impl Iterator<Item = usize> {
        self.dimensions.iter().rev().map(|(length, _)| size(*length))
    }

    /// The lengths of `depth` dimensions, the outermost first, all from 1; none of an empty array.
    /// `None`, where it has another shape.
    pub(crate) fn shape(&self, depth: usize) -> Option<Vec<usize>> {
        let plain = self.dimensions.iter().all(|(_, lower)| *lower == 1);
        match self.dimensions.len() {
            _ if self.count == 0 => Some(Vec::new()),
            n if n == depth && plain => {
                Some(self.dimensions.iter().map(|(length, _)| size(*length)).collect())
            }
            _ => None,
        }
    }

    fn render_bounds(&self, out: &mut Vec<u8>) {
        for &(length, lower) in &self.dimensions {
            let upper = i64::from(lower) + i64::from(length) - 1;
            out.extend_from_slice(format!("[{lower}:{upper}]").as_bytes());
        }
        out.push(b'=');
    }
}

/// Before element `n`: opens the braces of each dimension that begins there. Before the one behind
/// it: closes those that end there. `lengths`: of the dimensions, the innermost first.
fn push_braces(lengths: impl Iterator<Item = usize>, n: usize, brace: u8, out: &mut Vec<u8>) {
    let mut inner = 1_usize;
    for length in lengths {
        inner = inner.saturating_mul(length);
        if n.is_multiple_of(inner) {
            out.push(brace);
        }
    }
}

/// Appends an element's text, in quotes where it could be read as something else.
fn push_element(text: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}') || is_space(*b);
    let special = |b: &u8| *b == delimiter || special(b);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"NULL") && !text.iter().any(special) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &b in text {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(b);
    }
    out.push(b'"');
}

/// `array_isspace`.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Calls `each` for every element of an array in text, None being NULL. False, where the array is
/// not a list (see [`Array::is_list`]) or `each` gives false.
pub(crate) fn try_each_of_text(
    text: &[u8],
    delimiter: u8,
    mut each: impl FnMut(Option<&[u8]>) -> Result<bool>,
) -> Result<bool> {
    let bad = || bad_value("array");
    if text.first() == Some(&b'[') {
        return Ok(false);
    }
    let inside = text.strip_prefix(b"{").and_then(|t| t.strip_suffix(b"}")).ok_or_else(bad)?;
    let mut rest = inside;
    let mut element = Vec::new();
    while !rest.is_empty() {
        if rest.first() == Some(&b'{') {
            return Ok(false);
        }
        element.clear();
        let quoted = rest.first() == Some(&b'"');
        let taken = match quoted {
            true => take_quoted(rest, &mut element),
            false => take_bare(rest, delimiter, &mut element),
        };
        let end = taken.ok_or_else(bad)?;
        let null = !quoted && element == b"NULL";
        if !each((!null).then_some(element.as_slice()))? {
            return Ok(false);
        }
        rest = match rest.get(end..).unwrap_or_default() {
            [] => break,
            [first, after @ ..] if *first == delimiter && !after.is_empty() => after,
            _ => return Err(bad()),
        };
    }
    Ok(true)
}

/// Appends what stands in the quotes at the beginning of `text`; where they end, if they do.
fn take_quoted(text: &[u8], element: &mut Vec<u8>) -> Option<usize> {
    let mut bytes = text.iter().enumerate().skip(1);
    while let Some((at, &b)) = bytes.next() {
        match b {
            b'"' => return Some(at + 1),
            b'\\' => element.push(*bytes.next()?.1),
            _ => element.push(b),
        }
    }
    None
}

/// Appends what stands before the next delimiter or brace: something plain.
fn take_bare(text: &[u8], delimiter: u8, element: &mut Vec<u8>) -> Option<usize> {
    let ends = |b: &u8| *b == delimiter || *b == b'}';
    let end = text.iter().position(ends).unwrap_or(text.len());
    element.extend_from_slice(text.get(..end)?);
    let plain = |b: &u8| !matches!(b, b'"' | b'\\' | b'{' | b'}');
    (end > 0 && element.iter().all(plain)).then_some(end)
}

/// An array in text, of any shape.
pub(crate) struct ArrayText {
    /// Length of each dimension, the innermost first; none where it is empty.
    lengths: Vec<usize>,
    /// Whether every dimension begins at 1.
    plain: bool,
    /// Elements in order, None being NULL.
    pub(crate) elements: Vec<Option<Vec<u8>>>,
}

impl ArrayText {
    /// Reads `text`. `BAD_VALUE` where it is no array. Postgres's arrays are rectangular, so the
    /// lengths are those of the first of each dimension.
    pub(crate) fn read(text: &[u8], delimiter: u8) -> Result<Self> {
        let bad = || bad_value("array");
        let begin = text.iter().position(|&b| b == b'{').ok_or_else(bad)?;
        let mut rest = text.get(begin..).unwrap_or_default();
        let mut elements = Vec::new();
        // Of each open dimension: how many it has so far.
        let mut open: Vec<usize> = Vec::new();
        let mut lengths: Vec<usize> = Vec::new();
        let mut deepest = None;
        while let Some((&first, after)) = rest.split_first() {
            match first {
                b'{' => open.push(0),
                b'}' => {
                    let depth = open.len();
                    let length = open.pop().ok_or_else(bad)?;
                    if let Some(outer) = open.last_mut() {
                        *outer += 1;
                    }
                    if deepest.get_or_insert(depth).checked_sub(depth) == Some(lengths.len()) {
                        lengths.push(length);
                    }
                }
                _ if first == delimiter => {}
                _ => {
                    let mut element = Vec::new();
                    let taken = match first {
                        b'"' => take_quoted(rest, &mut element),
                        _ => take_bare(rest, delimiter, &mut element),
                    };
                    rest = rest.get(taken.ok_or_else(bad)?..).unwrap_or_default();
                    let null = first != b'"' && element == b"NULL";
                    elements.push((!null).then_some(element));
                    *open.last_mut().ok_or_else(bad)? += 1;
                    continue;
                }
            }
            if open.len() > DIMENSIONS_MAX {
                return Err(bad());
            }
            rest = after;
        }
        if !open.is_empty() {
            return Err(bad());
        }
        let count = lengths.iter().copied().reduce(usize::saturating_mul).unwrap_or_default();
        match elements.len() {
            0 => lengths.clear(),
            n if n == count => {}
            _ => return Err(bad()),
        }
        Ok(Self { lengths, plain: begin == 0, elements })
    }

    /// As [`Array::shape`].
    pub(crate) fn shape(&self, depth: usize) -> Option<Vec<usize>> {
        match self.lengths.len() {
            _ if self.elements.is_empty() => Some(Vec::new()),
            n if n == depth && self.plain => Some(self.lengths.iter().rev().copied().collect()),
            _ => None,
        }
    }

    /// As [`Array::brackets`].
    pub(crate) fn brackets(
        &self,
        out: &mut Vec<u8>,
        each: impl Fn(&[u8], &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if self.elements.is_empty() {
            out.extend_from_slice(b"[]");
        }
        let lengths = || self.lengths.iter().copied();
        for (n, element) in self.elements.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            push_braces(lengths(), n, b'[', out);
            match element {
                None => out.extend_from_slice(b"null"),
                Some(v) => each(v, out)?,
            }
            push_braces(lengths(), n + 1, b']', out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> Result<Option<Vec<Option<String>>>> {
        let mut all = Vec::new();
        let list = try_each_of_text(text.as_bytes(), b',', |v| {
            all.push(v.map(|v| String::from_utf8(v.to_vec()).unwrap()));
            Ok(true)
        })?;
        Ok(list.then_some(all))
    }

    #[test]
    fn text_elements_are_unquoted() {
        let some = |s: &str| Some(s.to_owned());
        let read = elements(r#"{a,NULL,"NULL","","b\"\\,{"}"#).unwrap().unwrap();
        assert_eq!(read, [some("a"), None, some("NULL"), some(""), some("b\"\\,{")]);
        assert_eq!(elements("{}").unwrap().unwrap(), []);
    }

    #[test]
    fn other_shapes_are_not_lists() {
        assert_eq!(elements("[0:1]={7,8}").unwrap(), None);
        assert_eq!(elements("{{1,2},{3,4}}").unwrap(), None);
    }

    #[test]
    fn malformed_texts_are_refused() {
        for bad in ["", "{", "}", "{,}", "{a,}", "{a", "{\"a}", "{\"a\"b}", "{a}b}", "{\"a\\\"}"] {
            assert!(elements(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn more_elements_than_bytes_are_refused() {
        let header = |dimensions: &[u32]| {
            let count = u32::try_from(dimensions.len()).unwrap();
            let bounds = dimensions.iter().flat_map(|&n| [n, 1]);
            let words = [count, 0, 23].into_iter().chain(bounds);
            words.flat_map(u32::to_be_bytes).collect::<Vec<_>>()
        };
        assert!(Array::read(&header(&[u32::MAX])).is_err());
        assert!(Array::read(&header(&[u32::MAX; 6])).is_err());
        assert!(Array::read(&header(&[1; 7])).is_err());
        assert!(Array::read(&header(&[0])).is_ok_and(|a| a.is_list()));
        assert!(Array::read(&[0; 11]).is_err());
    }
}
