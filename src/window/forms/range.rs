//! Ranges and multiranges: rangetypes.c, multirangetypes.c.

use crate::error::Result;
use crate::window::reader::Reader;
use crate::window::record::field_of_text;
use crate::window::relation::PgType;
use crate::window::render::render;
use crate::window::scalar::bad_value;

const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;
const LOWER_NULL: u8 = 0x20;
const UPPER_NULL: u8 = 0x40;

/// A range whose bounds are values of `T`: binary or text. No bound: infinite.
pub(crate) struct Bounds<T> {
    pub(crate) empty: bool,
    pub(crate) lower: Option<T>,
    pub(crate) upper: Option<T>,
    pub(crate) lower_inclusive: bool,
    pub(crate) upper_inclusive: bool,
}

/// A range from its binary form.
pub(crate) type Range<'a> = Bounds<&'a [u8]>;

/// A range from its text form, bounds without their quotes.
pub(crate) type RangeText = Bounds<Vec<u8>>;

impl<'a> Range<'a> {
    /// Flags, then each bound that is there with its length.
    pub(crate) fn read(v: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(v, "range");
        let flags = reader.u8()?;
        let has = |flag: u8| flags & flag != 0;
        let mut bound = |absent: u8| match has(EMPTY | absent) {
            true => Ok(None),
            false => reader.value()?.map(Some).ok_or_else(|| bad_value("range")),
        };
        let lower = bound(LOWER_INFINITE | LOWER_NULL)?;
        let upper = bound(UPPER_INFINITE | UPPER_NULL)?;
        reader.end()?;
        Ok(Self {
            empty: has(EMPTY),
            lower_inclusive: has(LOWER_INCLUSIVE) && lower.is_some(),
            upper_inclusive: has(UPPER_INCLUSIVE) && upper.is_some(),
            lower,
            upper,
        })
    }
}

impl RangeText {
    /// `empty`, `[1,5)`, `("a b",]`.
    pub(crate) fn read(text: &[u8]) -> Result<Self> {
        let bad = || bad_value("range");
        if text == b"empty" {
            let (lower, upper) = (None, None);
            return Ok(Self {
                empty: true,
                lower,
                upper,
                lower_inclusive: false,
                upper_inclusive: false,
            });
        }
        let (&first, rest) = text.split_first().ok_or_else(bad)?;
        let (&last, inside) = rest.split_last().ok_or_else(bad)?;
        if !matches!(first, b'[' | b'(') || !matches!(last, b']' | b')') {
            return Err(bad());
        }
        let (lower, rest) = field_of_text(inside).ok_or_else(bad)?;
        let rest = rest.strip_prefix(b",").ok_or_else(bad)?;
        let (upper, rest) = field_of_text(rest).ok_or_else(bad)?;
        if !rest.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            empty: false,
            lower_inclusive: first == b'[',
            upper_inclusive: last == b']',
            lower,
            upper,
        })
    }
}

/// Appends the text of a binary range over `element`.
pub(crate) fn render_range(element: &PgType, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let range = Range::read(v)?;
    if range.empty {
        out.extend_from_slice(b"empty");
        return Ok(());
    }
    out.push(if range.lower_inclusive { b'[' } else { b'(' });
    push_bound(element, range.lower, out)?;
    out.push(b',');
    push_bound(element, range.upper, out)?;
    out.push(if range.upper_inclusive { b']' } else { b')' });
    Ok(())
}

fn push_bound(element: &PgType, v: Option<&[u8]>, out: &mut Vec<u8>) -> Result<()> {
    let Some(v) = v else { return Ok(()) };
    let mut text = Vec::new();
    render(element, v, &mut text)?;
    let special = |b: &u8| b"\"\\()[],".contains(b) || is_space(*b);
    push_quoted(&text, text.is_empty() || text.iter().any(special), out);
    Ok(())
}

/// `isspace` in the C locale.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Appends `text`, in quotes where it needs them; quotes and backslashes in them twice.
pub(crate) fn push_quoted(text: &[u8], quotes: bool, out: &mut Vec<u8>) {
    if !quotes {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Appends the text of a binary multirange: `{[1,3),[5,8)}`.
pub(super) fn multirange(element: &PgType, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "multirange");
    let count = reader.count(5)?;
    out.push(b'{');
    for n in 0..count {
        if n > 0 {
            out.push(b',');
        }
        let range = reader.value()?.ok_or_else(|| bad_value("multirange"))?;
        render_range(element, range, out)?;
    }
    out.push(b'}');
    reader.end()
}
