//! Changes of a table that is being copied afresh: kept as the frames they came in until the copy
//! is complete, then read once more as if they came from the server. Memory does not grow with
//! them; they stand in a file without a name, which ends with the process.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::postgres::pgoutput::WireRelation;
use crate::progress::Lsn;
use crate::window::relation::Relation;
use crate::window::segment::Segment;

use super::facts::is_described_by;
use super::intake::{Intake, Step};

/// Bytes read back at once.
const READ_BYTES: usize = 1 << 20;
/// CopyData, its length, and XLogData with three positions and times (Postgres manual, Streaming
/// Replication Protocol).
pub(super) const HEAD_BYTES: usize = 5 + 25;
/// BEGIN (Logical Replication Message Formats).
const BEGIN_BYTES: usize = 21;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Held {
    file: Option<BufWriter<File>>,
    bytes: u64,
    /// commit_lsn of the source transaction whose BEGIN was written last, while it is open.
    open: Option<Lsn>,
    /// How the stream described the table, each with the commit_lsn of the source transaction it
    /// came in; those equal to the one before are left out.
    shapes: Vec<(Lsn, WireRelation)>,
}

impl Held {
    /// Takes the frame of a change in the source transaction that commits at `commit_lsn`.
    pub(crate) fn change(&mut self, commit_lsn: Lsn, frame: &[u8]) -> Result<()> {
        if self.open != Some(commit_lsn) {
            self.open = Some(commit_lsn);
            self.write(&begin_frame(commit_lsn))?;
        }
        self.write(frame)
    }

    /// Takes the frame of the COMMIT, where the source transaction has changes here.
    pub(crate) fn commit(&mut self, frame: &[u8]) -> Result<()> {
        match self.open.take() {
            Some(_) => self.write(frame),
            None => Ok(()),
        }
    }

    /// Takes note of a Relation message.
    pub(crate) fn describe(&mut self, commit_lsn: Lsn, wire: WireRelation) {
        if self.shapes.last().is_none_or(|(_, last)| *last != wire) {
            self.shapes.push((commit_lsn, wire));
        }
    }

    /// Whether `relation` is how the stream describes the table from `consistent_point` on.
    pub(crate) fn fits(&self, relation: &Relation, consistent_point: Lsn) -> bool {
        let mut later = self.shapes.iter().filter(|(at, _)| *at >= consistent_point);
        later.all(|(_, wire)| is_described_by(relation, wire))
    }

    /// The last description, where it is one of `relation`.
    pub(crate) fn last_shape(&self, relation: &Relation) -> Option<&WireRelation> {
        let (_, wire) = self.shapes.last()?;
        is_described_by(relation, wire).then_some(wire)
    }

    pub(crate) fn into_last_shape(self) -> Option<WireRelation> {
        self.shapes.into_iter().next_back().map(|(_, wire)| wire)
    }

    fn write(&mut self, frame: &[u8]) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            empty => {
                let file = tempfile::tempfile().map_err(|e| lost(&e))?;
                empty.insert(BufWriter::with_capacity(READ_BYTES, file))
            }
        };
        file.write_all(frame).map_err(|e| lost(&e))?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Reads all back, from the source transaction that commits at `consistent_point` on.
    pub(crate) fn replay(
        mut self,
        relation: &Arc<Relation>,
        consistent_point: Lsn,
        max_message_bytes: usize,
    ) -> Result<Replay> {
        let file = match self.file.take() {
            None => None,
            Some(file) => {
                let mut file = file.into_inner().map_err(|e| lost(e.error()))?;
                file.seek(SeekFrom::Start(0)).map_err(|e| lost(&e))?;
                Some(BufReader::with_capacity(READ_BYTES, file))
            }
        };
        let intake = Intake::of_one_table(relation, consistent_point, max_message_bytes);
        Ok(Replay { file, intake })
    }
}

/// Held changes on their way into segments.
pub(crate) struct Replay {
    file: Option<BufReader<File>>,
    intake: Intake,
}

impl Replay {
    /// The next segment; `None` at the end. Reads a file: not for the loop.
    pub(crate) fn next_segment(&mut self) -> Result<Option<Segment>> {
        loop {
            match self.intake.step()? {
                Step::SegmentFull => {
                    if let Some(segment) = self.intake.take_segment() {
                        return Ok(Some(segment));
                    }
                }
                Step::Drained if !self.read_more()? => return Ok(self.intake.take_segment()),
                _ => {}
            }
        }
    }

    fn read_more(&mut self) -> Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let most = u64::try_from(READ_BYTES).unwrap_or(u64::MAX);
        let read = file.by_ref().take(most).read_to_end(self.intake.receive_buffer());
        if read.map_err(|e| lost(&e))? == 0 {
            self.file = None;
            return Ok(false);
        }
        Ok(true)
    }
}

fn begin_frame(commit_lsn: Lsn) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + BEGIN_BYTES);
    frame.extend_from_slice(&frame_head(BEGIN_BYTES).unwrap_or_default());
    frame.push(b'B');
    frame.extend_from_slice(&commit_lsn.0.to_be_bytes());
    frame.extend_from_slice(&[0; 12]);
    frame
}

/// What stands before a message of `bytes` bytes, positions and times left out; `None` beyond what
/// a frame can hold.
pub(super) fn frame_head(bytes: usize) -> Option<[u8; HEAD_BYTES]> {
    let length = u32::try_from(HEAD_BYTES - 1 + bytes).ok()?.to_be_bytes();
    let mut head = [0; HEAD_BYTES];
    let (kind, rest) = head.split_first_mut()?;
    *kind = b'd';
    rest.first_chunk_mut::<4>()?.copy_from_slice(&length);
    *rest.get_mut(4)? = b'w';
    Some(head)
}

fn lost(error: &std::io::Error) -> Error {
    spill_error("changes of a table that is being copied", error)
}

/// What was to be kept could not be.
pub(super) fn spill_error(what: &str, error: &std::io::Error) -> Error {
    let message = format!("{what} could not be kept in a temporary file: {error}");
    Error::transient("SPILL_IO", message)
        .with_cure("make room in the folder for temporary files, or name another one: TMPDIR=...")
}
