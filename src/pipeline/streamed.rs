//! Source transactions that the server sends before they commit (protocol 2): chunks of several
//! interleave, and what they hold may still be rolled back, in part or whole.
//!
//! The lake's older rows and the tables' shapes are those at the commit, which nobody knows before.
//! So the changes wait as the frames they came in, in a file without a name per source transaction.
//! At the commit they are read once more as if the server had sent them only then, without those of
//! subtransactions that were rolled back. Memory does not grow with them, and of an open source
//! transaction nothing is written to the lake, nothing is acknowledged: who stops forgets it, and
//! it comes again whole.
//!
//! Source of the rules: Postgres manual, "Logical Streaming Replication Protocol" and "Logical
//! Replication Message Formats".

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use crate::error::{Error, Result};
use crate::postgres::pgoutput::Message;
use crate::progress::Lsn;

use super::held::{HEAD_BYTES, frame_head, spill_error};

/// Bytes read back at once.
const REFILL_BYTES: usize = 1 << 20;
/// Bytes of one open source transaction in memory. The server holds back smaller ones than
/// `logical_decoding_work_mem`, but many may be open.
const BUFFER_BYTES: usize = 64 << 10;
/// Before a frame stands the id of its (sub)transaction.
const XID_BYTES: usize = 4;
/// The type byte of a frame and its length.
const LENGTH_BYTES: usize = 5;

/// The source transactions that are open at the server, and the one that is read back.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    open: HashMap<u32, Spill>,
    /// The source transaction whose chunk is arriving.
    chunk: Option<u32>,
    replay: Option<Replay>,
}

/// What was sent of one source transaction.
#[derive(Debug, Default)]
struct Spill {
    file: Option<BufWriter<File>>,
    /// Subtransactions that were rolled back.
    aborted: HashSet<u32>,
}

/// A source transaction that committed, on its way through the intake.
#[derive(Debug)]
struct Replay {
    file: Option<BufReader<File>>,
    aborted: HashSet<u32>,
    /// BEGIN, until it was given.
    begin: Vec<u8>,
    commit: Vec<u8>,
    /// What had arrived after it, from the beginning of a message on.
    rest: Vec<u8>,
}

impl Streamed {
    /// Whether what arrives belongs to an open source transaction.
    #[inline]
    pub(crate) fn is_in_chunk(&self) -> bool {
        self.chunk.is_some()
    }

    /// Whether a source transaction that committed is being read back.
    pub(crate) fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Takes a frame that stands in a chunk.
    pub(crate) fn keep(&mut self, frame: &[u8]) -> Result<()> {
        let (head, message) = frame.split_first_chunk::<HEAD_BYTES>().ok_or_else(cut_short)?;
        let Some((tag, rest)) = message.split_first() else { return Ok(()) };
        match tag {
            b'E' => self.chunk = None,
            b'R' | b'I' | b'U' | b'D' | b'T' | b'M' => {
                let (xid, body) = rest.split_first_chunk::<XID_BYTES>().ok_or_else(cut_short)?;
                let spill = self.chunk.and_then(|xid| self.open.get_mut(&xid));
                let spill = spill.ok_or_else(|| unknown(self.chunk.unwrap_or_default()))?;
                spill.write(*xid, head, (*tag, body))?;
            }
            // Of no consequence for the lake (case 25).
            b'Y' | b'O' => {}
            other => {
                let message = format!("type byte 0x{other:02x} within a streamed chunk");
                return Err(Error::fatal("PROTOCOL", message));
            }
        }
        Ok(())
    }

    /// Takes a message about open source transactions. `rest`: what has arrived after it, which is
    /// taken where the source transaction committed and is read back first.
    pub(crate) fn control(
        &mut self,
        message: &Message,
        rest: impl FnOnce() -> Vec<u8>,
    ) -> Result<()> {
        match *message {
            Message::StreamStart { xid, first } => {
                match first {
                    true => drop(self.open.insert(xid, Spill::default())),
                    false if !self.open.contains_key(&xid) => return Err(unknown(xid)),
                    false => {}
                }
                self.chunk = Some(xid);
            }
            Message::StreamAbort { xid, subxid } if xid == subxid => drop(self.open.remove(&xid)),
            Message::StreamAbort { xid, subxid } => {
                let spill = self.open.get_mut(&xid).ok_or_else(|| unknown(xid))?;
                spill.aborted.insert(subxid);
            }
            Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time_us } => {
                let spill = self.open.remove(&xid).ok_or_else(|| unknown(xid))?;
                self.replay = Some(Replay {
                    file: spill.file.map(rewind).transpose()?,
                    aborted: spill.aborted,
                    begin: begin_frame(xid, commit_lsn, commit_time_us)?,
                    commit: commit_frame(commit_lsn, end_lsn, commit_time_us)?,
                    rest: rest(),
                });
            }
            ref other => {
                let message = format!("the server sent {other:?}, which was not asked for");
                return Err(Error::fatal("PROTOCOL", message));
            }
        }
        Ok(())
    }

    /// Appends more of the source transaction that is read back to `into`; at its end also what had
    /// arrived after it. Reads about 1 MiB of a file.
    pub(crate) fn refill(&mut self, into: &mut Vec<u8>) -> Result<()> {
        let Some(replay) = &mut self.replay else { return Ok(()) };
        into.append(&mut replay.begin);
        let full = into.len().saturating_add(REFILL_BYTES);
        while into.len() < full {
            if !replay.next_frame(into)? {
                into.append(&mut replay.commit);
                into.append(&mut replay.rest);
                self.replay = None;
                break;
            }
        }
        Ok(())
    }

    /// Forgets everything: it comes again whole.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What has arrived behind the source transaction that is being read back.
    pub(crate) fn behind_replay(&self) -> Option<&[u8]> {
        self.replay.as_ref().map(|replay| replay.rest.as_slice())
    }
}

impl Spill {
    /// Keeps a frame in the form that it has outside chunks: without the id in its message.
    fn write(
        &mut self,
        xid: [u8; XID_BYTES],
        head: &[u8; HEAD_BYTES],
        (tag, body): (u8, &[u8]),
    ) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            empty => {
                let file = tempfile::tempfile().map_err(|e| lost(&e))?;
                empty.insert(BufWriter::with_capacity(BUFFER_BYTES, file))
            }
        };
        let new_head = frame_head(body.len() + 1).ok_or_else(cut_short)?;
        let (length, _) = new_head.split_at(LENGTH_BYTES);
        // The positions stay: an error says where it is.
        let (_, positions) = head.split_at(LENGTH_BYTES);
        for part in [&xid[..], length, positions, &[tag][..], body] {
            file.write_all(part).map_err(|e| lost(&e))?;
        }
        Ok(())
    }
}

impl Replay {
    /// Appends the next frame that counts; `false` at the end.
    fn next_frame(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        loop {
            let mut head = [0; XID_BYTES + LENGTH_BYTES];
            if file.read(head.get_mut(..1).unwrap_or_default()).map_err(|e| lost(&e))? == 0 {
                self.file = None;
                return Ok(false);
            }
            file.read_exact(head.get_mut(1..).unwrap_or_default()).map_err(|e| lost(&e))?;
            let [x0, x1, x2, x3, tag, l0, l1, l2, l3] = head;
            let left = u32::from_be_bytes([l0, l1, l2, l3]).saturating_sub(4);
            if self.aborted.contains(&u32::from_be_bytes([x0, x1, x2, x3])) {
                file.seek_relative(i64::from(left)).map_err(|e| lost(&e))?;
                continue;
            }
            into.extend_from_slice(&[tag, l0, l1, l2, l3]);
            let read = file.by_ref().take(u64::from(left)).read_to_end(into);
            return match read.map_err(|e| lost(&e))? == usize::try_from(left).unwrap_or(usize::MAX)
            {
                true => Ok(true),
                false => Err(lost(&std::io::ErrorKind::UnexpectedEof.into())),
            };
        }
    }
}

fn rewind(file: BufWriter<File>) -> Result<BufReader<File>> {
    let mut file = file.into_inner().map_err(|e| lost(e.error()))?;
    file.seek(SeekFrom::Start(0)).map_err(|e| lost(&e))?;
    Ok(BufReader::with_capacity(REFILL_BYTES, file))
}

fn begin_frame(xid: u32, commit_lsn: Lsn, commit_time_us: i64) -> Result<Vec<u8>> {
    let parts: [&[u8]; 4] =
        [b"B", &commit_lsn.0.to_be_bytes(), &commit_time_us.to_be_bytes(), &xid.to_be_bytes()];
    whole_frame(&parts.concat())
}

fn commit_frame(commit_lsn: Lsn, end_lsn: Lsn, commit_time_us: i64) -> Result<Vec<u8>> {
    let parts: [&[u8]; 4] = [
        b"C\0",
        &commit_lsn.0.to_be_bytes(),
        &end_lsn.0.to_be_bytes(),
        &commit_time_us.to_be_bytes(),
    ];
    whole_frame(&parts.concat())
}

fn whole_frame(message: &[u8]) -> Result<Vec<u8>> {
    let head = frame_head(message.len()).ok_or_else(cut_short)?;
    Ok([&head[..], message].concat())
}

fn lost(error: &std::io::Error) -> Error {
    spill_error("changes of an open source transaction", error)
}

fn cut_short() -> Error {
    Error::fatal("BAD_MESSAGE", "a streamed message that is cut short, or beyond 4 GiB")
}

fn unknown(xid: u32) -> Error {
    let message = format!("the server goes on with transaction {xid}, which it never began");
    Error::fatal("PROTOCOL", message)
}
