//! The fields of a tuple on the wire: where each one ends and how its value is written.
//!
//! Sources: Postgres manual, "Logical Replication Message Formats" (TupleData) and COPY, "Binary
//! Format". A cursor is a position in the receive buffer; it moves past one field at a time, so
//! that a tuple is never copied to be read.

use crate::error::{Error, Result};

/// One field of a tuple. Values are views into the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL NULL.
    Null,
    /// Unchanged TOAST: the value is not on the wire (pgoutput only).
    Unchanged,
    /// The type's binary form (its send function).
    Binary(&'a [u8]),
    /// The type's text form (its output function).
    Text(&'a [u8]),
}

/// How fields follow each other in a tuple.
pub trait Framing {
    /// Whether a type without a known binary form was cast to text by the query, so that its
    /// binary form is UTF-8 text.
    const OPAQUE_IS_TEXT: bool;

    /// The field at `cursor`, which moves past it. `BAD_MESSAGE` where the bytes end too early or
    /// the field's kind is unknown; the cursor then stays.
    fn next<'a>(buf: &'a [u8], cursor: &mut u32) -> Result<Field<'a>>;
}

/// pgoutput's TupleData, after the count of columns: a kind byte, then a length and the value.
#[derive(Debug)]
pub struct WalTuple;

impl Framing for WalTuple {
    const OPAQUE_IS_TEXT: bool = false;

    #[inline(always)]
    fn next<'a>(buf: &'a [u8], cursor: &mut u32) -> Result<Field<'a>> {
        let (field, bytes) = match buf.get(size(*cursor)..) {
            Some([b'b', rest @ ..]) => match sized(rest) {
                Some(v) => (Field::Binary(v), 5 + v.len()),
                None => return Err(short(rest, *cursor)),
            },
            Some([b'n', ..]) => (Field::Null, 1),
            Some([b't', rest @ ..]) => match sized(rest) {
                Some(v) => (Field::Text(v), 5 + v.len()),
                None => return Err(short(rest, *cursor)),
            },
            Some([b'u', ..]) => (Field::Unchanged, 1),
            Some([kind, ..]) => {
                return Err(bad_message(format!("field kind {kind:#04x} is not known")));
            }
            _ => return Err(short(&[], *cursor)),
        };
        *cursor = moved(*cursor, bytes)?;
        Ok(field)
    }
}

/// COPY (FORMAT binary), after the count of fields: a length, -1 for NULL, and the value.
#[derive(Debug)]
pub struct CopyTuple;

impl Framing for CopyTuple {
    const OPAQUE_IS_TEXT: bool = true;

    #[inline(always)]
    fn next<'a>(buf: &'a [u8], cursor: &mut u32) -> Result<Field<'a>> {
        let rest = buf.get(size(*cursor)..).unwrap_or_default();
        let (field, bytes) = match sized(rest) {
            Some(v) => (Field::Binary(v), 4 + v.len()),
            None if rest.starts_with(&[0xff; 4]) => (Field::Null, 4),
            None => return Err(short(rest, *cursor)),
        };
        *cursor = moved(*cursor, bytes)?;
        Ok(field)
    }
}

/// Moves `cursor` past the next `n` fields.
pub fn skip<F: Framing>(buf: &[u8], cursor: &mut u32, n: usize) -> Result<()> {
    for _ in 0..n {
        F::next(buf, cursor)?;
    }
    Ok(())
}

/// Whether the pgoutput tuple whose first field is at `at` leaves out any of its `columns` values
/// as unchanged TOAST.
pub fn has_unchanged(buf: &[u8], at: u32, columns: usize) -> Result<bool> {
    let mut cursor = at;
    for _ in 0..columns {
        if WalTuple::next(buf, &mut cursor)? == Field::Unchanged {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The unsigned 16-bit integer at `at`, most significant byte first.
pub fn be16(buf: &[u8], at: usize) -> Result<u16> {
    chunk(buf, at).map(u16::from_be_bytes)
}

/// The unsigned 32-bit integer at `at`, most significant byte first.
pub fn be32(buf: &[u8], at: usize) -> Result<u32> {
    chunk(buf, at).map(u32::from_be_bytes)
}

/// A length or position on the wire as a size in memory.
#[inline(always)]
pub(crate) fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[inline(always)]
fn chunk<const N: usize>(buf: &[u8], at: usize) -> Result<[u8; N]> {
    buf.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(|| cut(at))
}

/// The value behind a length; `None` where there is less, as there always is behind a negative one.
#[inline(always)]
fn sized(rest: &[u8]) -> Option<&[u8]> {
    let (length, rest) = rest.split_first_chunk()?;
    rest.get(..size(u32::from_be_bytes(*length)))
}

/// `cursor` and so many bytes more.
#[inline(always)]
fn moved(cursor: u32, bytes: usize) -> Result<u32> {
    u32::try_from(size(cursor) + bytes).map_err(|_| too_far())
}

/// Why there is no value where `rest` begins with its length, in the field at `at`.
#[cold]
fn short(rest: &[u8], at: u32) -> Error {
    match rest.first() {
        Some(0x80..) => {
            bad_message(format!("a value of negative length in the field at byte {at}"))
        }
        _ => bad_message(format!("the message ends inside the field at byte {at}")),
    }
}

#[cold]
fn cut(at: usize) -> Error {
    bad_message(format!("the message ends inside the number at byte {at}"))
}

#[cold]
fn too_far() -> Error {
    bad_message("a field ends beyond 4 GiB")
}

#[cold]
fn bad_message(message: impl Into<String>) -> Error {
    Error::fatal("BAD_MESSAGE", message).with_cure(
        "start again: the stream resumes at the lake's position; if it repeats, report it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUPLE: &[u8] = b"nb\0\0\0\x02abt\0\0\0\x01cu";

    #[test]
    fn wal_fields_follow_each_other() {
        let mut cursor = 0;
        let mut next = || WalTuple::next(TUPLE, &mut cursor);
        assert_eq!(next().unwrap(), Field::Null);
        assert_eq!(next().unwrap(), Field::Binary(b"ab"));
        assert_eq!(next().unwrap(), Field::Text(b"c"));
        assert_eq!(next().unwrap(), Field::Unchanged);
        assert_eq!(next().unwrap_err().code(), "BAD_MESSAGE");
    }

    #[test]
    fn unchanged_is_looked_for_within_the_tuple_only() {
        assert!(!has_unchanged(TUPLE, 0, 3).unwrap());
        assert!(has_unchanged(TUPLE, 0, 4).unwrap());
        assert!(has_unchanged(TUPLE, 0, 5).unwrap(), "found before the end is missed");
    }

    #[test]
    fn copy_fields_follow_each_other() {
        let buf = b"\xff\xff\xff\xff\0\0\0\x01x\0\0\0\0\xff\xff\xff\xfe";
        let mut cursor = 0;
        assert_eq!(CopyTuple::next(buf, &mut cursor).unwrap(), Field::Null);
        assert_eq!(CopyTuple::next(buf, &mut cursor).unwrap(), Field::Binary(b"x"));
        assert_eq!(CopyTuple::next(buf, &mut cursor).unwrap(), Field::Binary(b""));
        assert_eq!(CopyTuple::next(buf, &mut cursor).unwrap_err().code(), "BAD_MESSAGE");
        assert_eq!(cursor, 13, "an error leaves the cursor");
    }

    #[test]
    fn a_cut_tuple_is_an_error_at_every_byte() {
        for end in 0..TUPLE.len() {
            let cut = skip::<WalTuple>(&TUPLE[..end], &mut 0, 4);
            assert_eq!(cut.unwrap_err().code(), "BAD_MESSAGE", "cut at {end}");
        }
        assert!(skip::<WalTuple>(TUPLE, &mut 0, 4).is_ok());
        let mut end = u32::MAX;
        assert!(skip::<WalTuple>(TUPLE, &mut end, 1).is_err());
    }
}
