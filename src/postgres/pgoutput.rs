//! pgoutput messages: bytes in, [`Message`] out. Pure.
//!
//! Source of the rules: Postgres manual, "Logical Replication Message Formats" (protocol 1 to 4).
//! The bytes stay where they are: names of relations are copied because they come seldom, tuples
//! and contents are positions in the caller's bytes. A tuple is walked once, from length to length,
//! so that a message that is cut short or goes on too long is noticed before anybody reads beyond
//! it. Nothing here panics, and nothing is allocated on the word of a length field that the bytes
//! themselves do not bear out (case 167).

use std::ops::Range;

use crate::error::{Error, Result};
use crate::progress::Lsn;
pub use crate::window::relation::{OldTuple, Tuple};

/// One column of a Relation message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireColumn {
    /// Part of the replica identity; with FULL every column is (case 71).
    pub key: bool,
    /// Column name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub typmod: i32,
}

/// A Relation message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireRelation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema; Postgres sends `pg_catalog` as the empty string.
    pub namespace: String,
    /// Table.
    pub name: String,
    /// `pg_class.relreplident`: `d`, `n`, `f` or `i`.
    pub identity: u8,
    /// Published columns, in the order of tuples.
    pub columns: Vec<WireColumn>,
}

/// One pgoutput message. Times are microseconds since 2000-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `B`
    Begin {
        /// LSN of the commit record: the source transaction's `commit_lsn`.
        final_lsn: Lsn,
        /// Commit time.
        commit_time_us: i64,
        /// Transaction id.
        xid: u32,
    },
    /// `C`
    Commit {
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// End of the commit record: what is acknowledged (case 1).
        end_lsn: Lsn,
        /// Commit time.
        commit_time_us: i64,
    },
    /// `O`
    Origin {
        /// LSN of the commit on the origin.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: String,
    },
    /// `R`
    Relation(WireRelation),
    /// `Y`
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// Schema.
        namespace: String,
        /// Name.
        name: String,
    },
    /// `I`
    Insert {
        /// Relation.
        oid: u32,
        /// New row.
        new: Tuple,
    },
    /// `U`
    Update {
        /// Relation.
        oid: u32,
        /// Old key or row, where the identity asks for it.
        old: Option<(OldTuple, Tuple)>,
        /// New row.
        new: Tuple,
    },
    /// `D`
    Delete {
        /// Relation.
        oid: u32,
        /// Old key or row.
        old: (OldTuple, Tuple),
    },
    /// `T`
    Truncate {
        /// Relations that were truncated together.
        oids: Vec<u32>,
        /// CASCADE was given.
        cascade: bool,
        /// RESTART IDENTITY was given.
        restart_identity: bool,
    },
    /// `M`
    LogicalMessage {
        /// Part of its source transaction; otherwise sent even when that one rolls back (case 25).
        transactional: bool,
        /// LSN of the message.
        lsn: Lsn,
        /// Bytes of the prefix (UTF-8 was checked).
        prefix: Range<usize>,
        /// Bytes of the content.
        content: Range<usize>,
    },
    /// `S`, protocol 2: what follows belongs to `xid` until [`Message::StreamStop`].
    StreamStart {
        /// Top-level transaction id.
        xid: u32,
        /// First segment of this source transaction.
        first: bool,
    },
    /// `E`, protocol 2
    StreamStop,
    /// `c`, protocol 2
    StreamCommit {
        /// Top-level transaction id.
        xid: u32,
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// End of the commit record.
        end_lsn: Lsn,
        /// Commit time.
        commit_time_us: i64,
    },
    /// `A`, protocol 2 (4 adds position and time, sent only with `streaming 'parallel'`)
    StreamAbort {
        /// Top-level transaction id.
        xid: u32,
        /// The subtransaction that rolled back; `xid` itself for the whole.
        subxid: u32,
    },
    /// `b`, protocol 3
    BeginPrepare(Prepared),
    /// `P`, protocol 3
    Prepare(Prepared),
    /// `K`, protocol 3
    CommitPrepared(Prepared),
    /// `r`, protocol 3
    RollbackPrepared {
        /// End of the PREPARE record.
        prepare_end_lsn: Lsn,
        /// End of the ROLLBACK PREPARED record.
        end_lsn: Lsn,
        /// Time of the PREPARE.
        prepare_time_us: i64,
        /// Time of the ROLLBACK PREPARED.
        rollback_time_us: i64,
        /// Transaction id.
        xid: u32,
        /// Global id.
        gid: String,
    },
    /// `p`, protocol 3
    StreamPrepare(Prepared),
}

/// What the two-phase messages share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// LSN of the PREPARE (or COMMIT PREPARED) record.
    pub lsn: Lsn,
    /// End of that record.
    pub end_lsn: Lsn,
    /// Its time.
    pub time_us: i64,
    /// Transaction id.
    pub xid: u32,
    /// Global id.
    pub gid: String,
}

/// One field of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL NULL, or not sent (old keys)
    Null,
    /// `unchanged_toast`: the value is as before and was not sent
    UnchangedToast,
    /// Text form
    Text(&'a [u8]),
    /// Binary form
    Binary(&'a [u8]),
}

/// Parses the message in `buf[at..end]`, the body of one XLogData frame outside a stream segment.
/// Positions in the result count from the beginning of `buf`.
#[inline]
pub fn parse(buf: &[u8], at: usize, end: usize) -> Result<Message> {
    let mut cursor = Cursor::new(buf, at, end)?;
    let tag = cursor.u8()?;
    cursor.whole_message(tag)
}

/// As [`parse`], for a frame between [`Message::StreamStart`] and [`Message::StreamStop`], where
/// changes carry their (sub)transaction id; 0 for the others.
pub fn parse_streamed(buf: &[u8], at: usize, end: usize) -> Result<(u32, Message)> {
    let mut cursor = Cursor::new(buf, at, end)?;
    let tag = cursor.u8()?;
    let xid = match tag {
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => cursor.u32()?,
        _ => 0,
    };
    Ok((xid, cursor.whole_message(tag)?))
}

/// The fields of `tuple`, which must not reach beyond `end`.
pub fn fields(buf: &[u8], tuple: Tuple, end: usize) -> Result<Fields<'_>> {
    let at = usize::try_from(tuple.at).unwrap_or(usize::MAX);
    Ok(Fields { cursor: Cursor::new(buf, at, end)?, left: tuple.columns })
}

/// Iterator over a tuple's fields; ends after the first error.
#[derive(Debug)]
pub struct Fields<'a> {
    cursor: Cursor<'a>,
    left: u16,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let field = self.cursor.field();
        if field.is_err() {
            self.left = 0;
        }
        Some(field)
    }
}

/// Postgres allows 1,600 columns in a table; a target list may have 1,664.
const COLUMNS_MAX: u16 = 1_664;

#[derive(Debug)]
struct Cursor<'a> {
    /// What is left of the message.
    rest: &'a [u8],
    /// Where the message ends in the caller's bytes.
    end: usize,
}

#[cold]
fn bad(what: &str) -> Error {
    Error::fatal("BAD_MESSAGE", format!("pgoutput message: {what}"))
        .with_cure("the stream is not what this server version documents; please report it")
}

/// What follows the field that `rest` begins with, as [`Cursor::field`] has it.
#[inline(always)]
fn after_field(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b'b' | b't', a, b, c, d, rest @ ..] => {
            rest.get(usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?..)
        }
        [b'n' | b'u', rest @ ..] => Some(rest),
        _ => None,
    }
}

impl<'a> Cursor<'a> {
    #[inline]
    fn new(buf: &'a [u8], at: usize, end: usize) -> Result<Self> {
        let rest = buf.get(at..end).ok_or_else(|| bad("bounds outside the received bytes"))?;
        Ok(Self { rest, end })
    }

    fn at(&self) -> usize {
        self.end - self.rest.len()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| bad("cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    #[inline]
    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    #[inline]
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn lsn(&mut self) -> Result<Lsn> {
        Ok(Lsn(u64::from_be_bytes(self.array()?)))
    }

    #[inline]
    fn take(&mut self, length: u32) -> Result<&'a [u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (head, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| bad("a length beyond its message"))?;
        self.rest = rest;
        Ok(head)
    }

    /// A string that ends with a zero byte.
    fn text(&mut self) -> Result<&'a str> {
        let length = self.rest.iter().position(|&byte| byte == 0);
        let (head, rest) = length
            .and_then(|length| self.rest.split_at_checked(length))
            .ok_or_else(|| bad("a string without an end"))?;
        self.rest = rest.split_first().map_or(rest, |(_, rest)| rest);
        std::str::from_utf8(head).map_err(|e| bad("a string that is not UTF-8").with_source(e))
    }

    /// A message that ends where its frame does. So no field of a tuple lies elsewhere, and who
    /// reads it later, by its position alone, reads nothing that belongs to another message.
    #[inline]
    fn whole_message(&mut self, tag: u8) -> Result<Message> {
        let message = self.message(tag)?;
        // With `streaming 'parallel'` an abort says more than is asked for here.
        if !self.rest.is_empty() && tag != b'A' {
            return Err(bad("a message goes on behind its end"));
        }
        Ok(message)
    }

    #[inline]
    fn message(&mut self, tag: u8) -> Result<Message> {
        match tag {
            b'I' => self.insert(),
            b'U' => self.update(),
            b'D' => self.delete(),
            _ => self.seldom(tag),
        }
    }

    #[inline]
    fn insert(&mut self) -> Result<Message> {
        let oid = self.u32()?;
        self.expect_new()?;
        Ok(Message::Insert { oid, new: self.walk()? })
    }

    #[inline]
    fn update(&mut self) -> Result<Message> {
        let oid = self.u32()?;
        let old = match self.u8()? {
            b'N' => return Ok(Message::Update { oid, old: None, new: self.walk()? }),
            b'K' => (OldTuple::Key, self.walk()?),
            b'O' => (OldTuple::Full, self.walk()?),
            _ => return Err(bad("an UPDATE's tuple is neither old nor new")),
        };
        self.expect_new()?;
        Ok(Message::Update { oid, old: Some(old), new: self.walk()? })
    }

    #[inline]
    fn delete(&mut self) -> Result<Message> {
        let oid = self.u32()?;
        let kind = match self.u8()? {
            b'K' => OldTuple::Key,
            b'O' => OldTuple::Full,
            _ => return Err(bad("a DELETE without an old tuple")),
        };
        Ok(Message::Delete { oid, old: (kind, self.walk()?) })
    }

    #[inline]
    fn expect_new(&mut self) -> Result<()> {
        match self.u8()? {
            b'N' => Ok(()),
            _ => Err(bad("a new tuple was expected")),
        }
    }

    /// Where a tuple begins.
    #[inline]
    fn tuple(&mut self) -> Result<Tuple> {
        let columns = self.u16()?;
        if columns > COLUMNS_MAX || usize::from(columns) > self.rest.len() {
            return Err(bad("more fields than the message can hold"));
        }
        let at = u32::try_from(self.at()).map_err(|_| bad("a tuple beyond 4 GiB"))?;
        Ok(Tuple { at, columns })
    }

    /// A tuple's place, and on to what comes after it. Only where fields begin and end is looked
    /// at.
    #[inline]
    fn walk(&mut self) -> Result<Tuple> {
        let tuple = self.tuple()?;
        let mut rest = self.rest;
        for _ in 0..tuple.columns {
            let Some(after) = after_field(rest) else {
                self.rest = rest;
                // It says what is wrong.
                self.field()?;
                return Err(bad("a field that is none"));
            };
            rest = after;
        }
        self.rest = rest;
        Ok(tuple)
    }

    #[inline]
    fn field(&mut self) -> Result<Field<'a>> {
        match self.u8()? {
            b'n' => Ok(Field::Null),
            b'u' => Ok(Field::UnchangedToast),
            b't' => self.u32().and_then(|length| self.take(length)).map(Field::Text),
            b'b' => self.u32().and_then(|length| self.take(length)).map(Field::Binary),
            _ => Err(bad("an unknown kind of field")),
        }
    }

    fn seldom(&mut self, tag: u8) -> Result<Message> {
        match tag {
            b'B' => self.begin(),
            b'C' => self.commit(),
            b'O' => Ok(Message::Origin { commit_lsn: self.lsn()?, name: self.text()?.to_owned() }),
            b'R' => self.relation().map(Message::Relation),
            b'Y' => Ok(Message::Type {
                oid: self.u32()?,
                namespace: self.text()?.to_owned(),
                name: self.text()?.to_owned(),
            }),
            b'T' => self.truncate(),
            b'M' => self.logical_message(),
            b'S' => Ok(Message::StreamStart { xid: self.u32()?, first: self.u8()? == 1 }),
            b'E' => Ok(Message::StreamStop),
            b'c' => self.stream_commit(),
            b'A' => Ok(Message::StreamAbort { xid: self.u32()?, subxid: self.u32()? }),
            _ => self.two_phase(tag),
        }
    }

    fn two_phase(&mut self, tag: u8) -> Result<Message> {
        match tag {
            b'b' => self.prepared().map(Message::BeginPrepare),
            b'P' => self.flags().and_then(|()| self.prepared()).map(Message::Prepare),
            b'K' => self.flags().and_then(|()| self.prepared()).map(Message::CommitPrepared),
            b'p' => self.flags().and_then(|()| self.prepared()).map(Message::StreamPrepare),
            b'r' => self.rollback_prepared(),
            other => Err(bad(&format!("unknown type byte 0x{other:02x}"))),
        }
    }

    /// A flags byte, for which no value but 0 is defined.
    fn flags(&mut self) -> Result<()> {
        self.u8().map(|_| ())
    }

    fn begin(&mut self) -> Result<Message> {
        Ok(Message::Begin { final_lsn: self.lsn()?, commit_time_us: self.i64()?, xid: self.u32()? })
    }

    fn commit(&mut self) -> Result<Message> {
        self.flags()?;
        Ok(Message::Commit {
            commit_lsn: self.lsn()?,
            end_lsn: self.lsn()?,
            commit_time_us: self.i64()?,
        })
    }

    fn stream_commit(&mut self) -> Result<Message> {
        let xid = self.u32()?;
        self.flags()?;
        Ok(Message::StreamCommit {
            xid,
            commit_lsn: self.lsn()?,
            end_lsn: self.lsn()?,
            commit_time_us: self.i64()?,
        })
    }

    fn relation(&mut self) -> Result<WireRelation> {
        let oid = self.u32()?;
        let namespace = self.text()?.to_owned();
        let name = self.text()?.to_owned();
        let identity = self.u8()?;
        let count = self.u16()?;
        // A column takes 10 bytes at least, so the count is checked before it sizes anything.
        if count > COLUMNS_MAX || usize::from(count) * 10 > self.rest.len() {
            return Err(bad("more columns than the message can hold"));
        }
        let columns = (0..count).map(|_| self.wire_column()).collect::<Result<_>>()?;
        Ok(WireRelation { oid, namespace, name, identity, columns })
    }

    fn wire_column(&mut self) -> Result<WireColumn> {
        Ok(WireColumn {
            key: self.u8()? & 1 == 1,
            name: self.text()?.to_owned(),
            type_oid: self.u32()?,
            typmod: i32::from_be_bytes(self.array()?),
        })
    }

    fn truncate(&mut self) -> Result<Message> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let options = self.u8()?;
        if count > self.rest.len() / 4 {
            return Err(bad("more relations than the message can hold"));
        }
        let oids = (0..count).map(|_| self.u32()).collect::<Result<_>>()?;
        Ok(Message::Truncate {
            oids,
            cascade: options & 1 != 0,
            restart_identity: options & 2 != 0,
        })
    }

    fn logical_message(&mut self) -> Result<Message> {
        let transactional = self.u8()? & 1 == 1;
        let lsn = self.lsn()?;
        let start = self.at();
        let prefix = start..start + self.text()?.len();
        let length = self.u32()?;
        let start = self.at();
        let content = start..start + self.take(length)?.len();
        Ok(Message::LogicalMessage { transactional, lsn, prefix, content })
    }

    fn prepared(&mut self) -> Result<Prepared> {
        Ok(Prepared {
            lsn: self.lsn()?,
            end_lsn: self.lsn()?,
            time_us: self.i64()?,
            xid: self.u32()?,
            gid: self.text()?.to_owned(),
        })
    }

    fn rollback_prepared(&mut self) -> Result<Message> {
        self.flags()?;
        Ok(Message::RollbackPrepared {
            prepare_end_lsn: self.lsn()?,
            end_lsn: self.lsn()?,
            prepare_time_us: self.i64()?,
            rollback_time_us: self.i64()?,
            xid: self.u32()?,
            gid: self.text()?.to_owned(),
        })
    }
}
