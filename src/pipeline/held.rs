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
/// CopyData, its length, XLogData with three positions and times, and BEGIN (Postgres manual,
/// Streaming Replication Protocol; Logical Replication Message Formats).
const BEGIN_BYTES: usize = 5 + 25 + 21;

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
                let file = tempfile::tempfile().map_err(|e| spill_error(&e))?;
                empty.insert(BufWriter::with_capacity(READ_BYTES, file))
            }
        };
        file.write_all(frame).map_err(|e| spill_error(&e))?;
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
                let mut file = file.into_inner().map_err(|e| spill_error(e.error()))?;
                file.seek(SeekFrom::Start(0)).map_err(|e| spill_error(&e))?;
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
        if read.map_err(|e| spill_error(&e))? == 0 {
            self.file = None;
            return Ok(false);
        }
        Ok(true)
    }
}

fn begin_frame(commit_lsn: Lsn) -> Vec<u8> {
    let mut frame = Vec::with_capacity(BEGIN_BYTES);
    frame.push(b'd');
    frame.extend_from_slice(&u32::try_from(BEGIN_BYTES - 1).unwrap_or(0).to_be_bytes());
    frame.push(b'w');
    frame.extend_from_slice(&[0; 24]);
    frame.push(b'B');
    frame.extend_from_slice(&commit_lsn.0.to_be_bytes());
    frame.extend_from_slice(&[0; 12]);
    frame
}

fn spill_error(error: &std::io::Error) -> Error {
    let message = "changes of a table that is being copied could not be kept in a temporary file";
    Error::transient("SPILL_IO", format!("{message}: {error}"))
        .with_cure("make room in the folder for temporary files, or name another one: TMPDIR=...")
}
