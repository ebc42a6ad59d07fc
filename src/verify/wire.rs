//! pgoutput in text mode, protocol 1, read by code of its own: the proof shares no decoder with the
//! path it proves.
//!
//! Source of the rules: Postgres manual, "Logical Replication Message Formats".

use bytes::Bytes;

use crate::error::{Error, Result};

/// One value of a tuple.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Cell {
    /// SQL NULL, or a column that an old key does not hold.
    Null,
    /// Its text.
    Text(Bytes),
    /// Unchanged TOAST: the value is the one the row had before.
    Unchanged,
}

impl Cell {
    /// The text; `None` for the others.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Unchanged => None,
        }
    }

    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        self.text().map_or(0, <[u8]>::len)
    }
}

/// A row as it is sent.
pub(super) type Tuple = Vec<Cell>;

/// A table as a Relation message describes it: names and types of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) oid: u32,
    pub(super) columns: Vec<(String, u32)>,
}

/// An old row: its key only, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Old {
    Key(Tuple),
    Full(Tuple),
}

impl Old {
    pub(super) fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// What matters of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Relation(Described),
    Insert(u32, Tuple),
    Update(u32, Option<Old>, Tuple),
    Delete(u32, Old),
    Truncate(Vec<u32>),
    /// Types, origins, messages.
    Other,
}

impl Change {
    /// The tables whose rows it changes.
    pub(super) fn tables(&self) -> Vec<u32> {
        match self {
            Self::Insert(oid, _) | Self::Update(oid, _, _) | Self::Delete(oid, _) => vec![*oid],
            Self::Truncate(oids) => oids.clone(),
            Self::Relation(_) | Self::Other => Vec::new(),
        }
    }
}

/// Reads one message.
///
/// # Errors
/// `VERIFY_STREAM` (fatal) where it is not laid out as documented.
pub(super) fn parse(message: &Bytes) -> Result<Change> {
    let mut reader = Reader { message, at: 0 };
    Ok(match reader.byte()? {
        b'R' => Change::Relation(reader.relation()?),
        b'I' => {
            let oid = reader.u32()?;
            reader.expect(b'N')?;
            Change::Insert(oid, reader.tuple()?)
        }
        b'U' => reader.update()?,
        b'D' => {
            let oid = reader.u32()?;
            let kind = reader.byte()?;
            let old = reader.old(kind)?.ok_or_else(|| bad("a DELETE without old row"))?;
            Change::Delete(oid, old)
        }
        b'T' => {
            let count = reader.u32()?;
            reader.byte()?;
            Change::Truncate((0..count).map(|_| reader.u32()).collect::<Result<_>>()?)
        }
        _ => Change::Other,
    })
}

fn bad(what: &str) -> Error {
    Error::fatal("VERIFY_STREAM", format!("the replication stream has {what}"))
}

struct Reader<'a> {
    message: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<Bytes> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.message.len());
        let end = end.ok_or_else(|| bad("a message cut short"))?;
        let taken = self.message.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.as_ref().try_into().map_err(|_| bad("a message cut short"))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn expect(&mut self, kind: u8) -> Result<()> {
        match self.byte()? == kind {
            true => Ok(()),
            false => Err(bad("another tuple than expected")),
        }
    }

    fn name(&mut self) -> Result<String> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).ok_or_else(|| bad("an endless name"))?;
        let name = self.take(end)?;
        self.byte()?;
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    fn relation(&mut self) -> Result<Described> {
        let oid = self.u32()?;
        let (_, _) = (self.name()?, self.name()?);
        self.byte()?;
        let count = self.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            self.byte()?;
            let name = self.name()?;
            let type_oid = self.u32()?;
            self.u32()?;
            columns.push((name, type_oid));
        }
        Ok(Described { oid, columns })
    }

    fn update(&mut self) -> Result<Change> {
        let oid = self.u32()?;
        let kind = self.byte()?;
        let old = self.old(kind)?;
        if old.is_some() {
            self.expect(b'N')?;
        } else if kind != b'N' {
            return Err(bad("an UPDATE without new row"));
        }
        Ok(Change::Update(oid, old, self.tuple()?))
    }

    fn old(&mut self, kind: u8) -> Result<Option<Old>> {
        Ok(match kind {
            b'K' => Some(Old::Key(self.tuple()?)),
            b'O' => Some(Old::Full(self.tuple()?)),
            _ => None,
        })
    }

    fn tuple(&mut self) -> Result<Tuple> {
        let count = self.u16()?;
        (0..count).map(|_| self.cell()).collect()
    }

    fn cell(&mut self) -> Result<Cell> {
        Ok(match self.byte()? {
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            b't' => {
                let length = usize::try_from(self.u32()?).map_err(|_| bad("a long value"))?;
                Cell::Text(self.take(length)?)
            }
            _ => return Err(bad("a value that is not text")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        [&b"t"[..], &length, value.as_bytes()].concat()
    }

    #[test]
    fn an_update_with_an_old_key_is_read() {
        let old = [&b"K\0\x02"[..], &text("1"), b"n"].concat();
        let new = [&b"N\0\x02"[..], &text("2"), b"u"].concat();
        let message = [&b"U\0\0\0\x09"[..], &old, &new].concat();
        let one = |t: &str| Cell::Text(Bytes::copy_from_slice(t.as_bytes()));
        let change = parse(&Bytes::from(message.clone())).unwrap();
        let old = Old::Key(vec![one("1"), Cell::Null]);
        assert_eq!(change, Change::Update(9, Some(old), vec![one("2"), Cell::Unchanged]));
        for cut in 1..message.len() {
            assert!(parse(&Bytes::copy_from_slice(&message[..cut])).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_truncate_names_all_its_tables() {
        let message = Bytes::from_static(b"T\0\0\0\x02\x01\0\0\0\x07\0\0\0\x08");
        assert_eq!(parse(&message).unwrap(), Change::Truncate(vec![7, 8]));
    }
}
