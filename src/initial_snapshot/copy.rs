//! One COPY: a range of a table, from binary rows straight into Parquet.
//!
//! The rows are decoded where the socket put them: messages stand in one buffer as they arrived,
//! and a row is its position there.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::row_delta::SegmentFiles;
use crate::ops::Stats;
use crate::pipeline::{BATCH_ROWS, DataWriter, ParquetTarget};
use crate::postgres::catalog::SourceTable;
use crate::postgres::copy_out::{CopyData, next_data};
use crate::postgres::dsn::Source;
use crate::postgres::session::Session;
use crate::window::decode::{Decoded, TupleDecoder};
use crate::window::wire::{CopyTuple, be16, be32};

use super::workers::{
    BEGIN, LOST_STATES, import_statement, lock_statements, rewritten_statement, snapshot_lost,
};

/// Raw bytes decoded into one Arrow batch, about; one more read may come on top.
const BATCH_BYTES: usize = 8 << 20;
/// Signature, flags and the length of the header extension (Postgres manual, COPY, Binary Format).
const HEADER_BYTES: usize = 19;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// SQLSTATE `lock_not_available`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// A session that sees an exported snapshot and holds locks against rewrites.
pub(super) struct Copier {
    session: Session,
}

impl Copier {
    /// Imports `snapshot` and locks the `tables`; `None` where one was rewritten since, or could
    /// only be locked by waiting. A TRUNCATE that waits for another connection of ours would be
    /// ahead of this one, so that each waits for the other, and everybody else for the TRUNCATE,
    /// and Postgres sees no deadlock. Once locked, its COPYs pass whoever waits.
    ///
    /// # Errors
    /// `SNAPSHOT_LOST` (transient) where the snapshot is gone.
    pub(super) async fn open(
        source: &Source,
        snapshot: &str,
        tables: &[SourceTable],
    ) -> Result<Option<Self>> {
        let mut session = Session::connect_for_copy(source, "initial-snapshot").await?;
        session.query(BEGIN).await?;
        if let Err(error) = session.try_query(&import_statement(snapshot)).await? {
            let is_lost = LOST_STATES.contains(&error.sqlstate.as_str());
            return Err(if is_lost { snapshot_lost(&error.message) } else { error.into() });
        }
        for lock in lock_statements(tables, "NOWAIT") {
            match session.try_query(&lock).await? {
                Ok(_) => {}
                Err(error) if error.sqlstate == LOCK_NOT_AVAILABLE => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let rewritten = session.query(&rewritten_statement(tables)).await?;
        Ok(rewritten.is_empty().then_some(Self { session }))
    }

    /// Runs `statement` (`COPY ... TO STDOUT (FORMAT binary)`) and writes its rows as the table's
    /// files, until `ends`. After an error the session is of no more use.
    pub(super) async fn copy_range(
        &mut self,
        statement: &str,
        (lake, target, stats): (&Arc<Lake>, &Arc<ParquetTarget>, &Stats),
        ends: &impl Fn() -> bool,
    ) -> Result<SegmentFiles> {
        let named = |e: Error| e.with_table(target.relation.display());
        let mut data = DataWriter::new(Arc::clone(lake), Arc::clone(target))?;
        let mut counted = Counted::new(stats);
        self.copy_into(statement, &mut data, &mut counted, ends).await.map_err(named)?;
        let (rows_inserted, has_raw) = (data.rows, data.has_raw());
        let data = data.close().await?;
        counted.keep();
        Ok(SegmentFiles { data, deletes: Vec::new(), rows_inserted, rows_deleted: 0, has_raw })
    }

    /// As [`Copier::copy_range`], into files that others write to before and after.
    pub(super) async fn copy_into(
        &mut self,
        statement: &str,
        data: &mut DataWriter,
        counted: &mut Counted<'_>,
        ends: &impl Fn() -> bool,
    ) -> Result<()> {
        let mut copy = self.session.copy_out(statement).await?;
        let mut rows = Rows::default();
        while !rows.complete {
            copy.read(&mut rows.buf).await?;
            rows.gather()?;
            if rows.starts.len() >= BATCH_ROWS || rows.at >= BATCH_BYTES {
                rows.write(data, counted).await?;
                if ends() {
                    return Err(super::stopped());
                }
            }
        }
        rows.write(data, counted).await
    }

    /// Runs a statement without an answer.
    pub(super) async fn run(&mut self, statement: &str) -> Result<()> {
        self.session.query(statement).await.map(|_| ())
    }

    /// Ends the session.
    pub(super) async fn close(self) {
        self.session.close().await;
    }
}

/// Rows as they arrived, one CopyData message after the other.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Messages, framing included.
    pub(crate) buf: Vec<u8>,
    /// Up to here they were looked at.
    at: usize,
    starts: Vec<u32>,
    ends: Vec<u32>,
    header_seen: bool,
    /// The server has sent all.
    pub(crate) complete: bool,
}

/// Rows and bytes of one COPY as the live view counts them: taken back where it breaks off.
pub(super) struct Counted<'a> {
    stats: &'a Stats,
    rows: u64,
    bytes: u64,
}

impl<'a> Counted<'a> {
    /// Nothing yet.
    pub(super) fn new(stats: &'a Stats) -> Self {
        Self { stats, rows: 0, bytes: 0 }
    }

    fn add(&mut self, rows: u64, bytes: u64) {
        self.stats.copied(rows, bytes);
        self.rows += rows;
        self.bytes += bytes;
    }

    /// They stay.
    pub(super) fn keep(mut self) {
        (self.rows, self.bytes) = (0, 0);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.stats.uncopied(self.rows, self.bytes);
    }
}

impl Rows {
    /// Finds the rows that have arrived whole.
    pub(crate) fn gather(&mut self) -> Result<()> {
        while let Some(found) = next_data(&self.buf, &mut self.at)? {
            match found {
                CopyData::Data(body) => self.message(body)?,
                CopyData::Complete => self.complete = true,
            }
        }
        Ok(())
    }

    /// Takes one CopyData message: the header, a row, or the trailer. Whether it really was exactly
    /// one row is seen when it is decoded.
    #[inline]
    fn message(&mut self, body: Range<usize>) -> Result<()> {
        let Range { mut start, end } = body;
        if !self.header_seen {
            let message = self.buf.get(start..end).unwrap_or_default();
            start = end - after_header(message)?.len();
            self.header_seen = true;
        }
        match self.buf.get(start..end) {
            None | Some([] | [0xff, 0xff]) => return Ok(()),
            Some(row) => be16(row, 0)?,
        };
        let at = |at: usize| {
            u32::try_from(at).map_err(|_| Error::fatal("BAD_MESSAGE", "COPY data over 4 GiB"))
        };
        self.starts.push(at(start + 2)?);
        self.ends.push(at(end)?);
        Ok(())
    }

    /// Decodes the rows that were gathered and forgets them, with their bytes.
    pub(crate) fn decode(&mut self, decoder: &mut TupleDecoder) -> Result<Decoded> {
        decoder.decode::<CopyTuple>(&self.buf, &mut self.starts)?;
        if self.starts != self.ends {
            return Err(Error::fatal("BAD_MESSAGE", "COPY rows have another number of fields"));
        }
        // What stays is the beginning of a message.
        self.buf.drain(..self.at);
        self.at = 0;
        self.starts.clear();
        self.ends.clear();
        decoder.finish()
    }

    async fn write(&mut self, data: &mut DataWriter, counted: &mut Counted<'_>) -> Result<()> {
        if self.starts.is_empty() {
            return Ok(());
        }
        let (rows, bytes) = (self.starts.len() as u64, self.at as u64);
        let decoded = self.decode(data.decoder())?;
        data.write(decoded).await?;
        counted.add(rows, bytes);
        Ok(())
    }
}

fn after_header(chunk: &[u8]) -> Result<&[u8]> {
    let bad = || Error::fatal("BAD_MESSAGE", "this is not COPY's binary format");
    let rest = chunk.get(HEADER_BYTES..).ok_or_else(bad)?;
    if !chunk.starts_with(SIGNATURE) {
        return Err(bad());
    }
    rest.get(be32(chunk, HEADER_BYTES - 4)? as usize..).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_skipped_with_its_extension() {
        let mut chunk = SIGNATURE.to_vec();
        chunk.extend([0, 0, 0, 0, 0, 0, 0, 2, 9, 9, 0, 1]);
        assert_eq!(after_header(&chunk).unwrap(), [0, 1]);
        assert!(after_header(&chunk[1..]).is_err());
        assert!(after_header(b"PGCOPY").is_err());
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    /// One column of four bytes.
    fn row(n: u32) -> Vec<u8> {
        [&[0, 1, 0, 0, 0, 4][..], &n.to_be_bytes()].concat()
    }

    #[test]
    fn rows_are_found_wherever_reads_end() {
        let header = [SIGNATURE, &[0; 8], &row(7)].concat();
        let parts = [message(b'd', &header), message(b'd', &row(8)), message(b'd', b"\xff\xff")];
        let end = [message(b'c', b""), message(b'C', b"COPY 2\0"), message(b'Z', b"T")].concat();
        let all = [parts.concat(), end].concat();
        for cut in 0..=all.len() {
            let mut rows = Rows { buf: all[..cut].to_vec(), ..Rows::default() };
            rows.gather().unwrap();
            assert_eq!(rows.complete, cut == all.len());
            rows.buf.extend_from_slice(&all[cut..]);
            rows.gather().unwrap();
            assert!(rows.complete, "cut at {cut}");
            let values = rows.starts.iter().map(|&at| be32(&rows.buf, at as usize + 4).unwrap());
            assert_eq!(values.collect::<Vec<_>>(), [7, 8]);
            assert!(rows.starts.iter().zip(&rows.ends).all(|(start, end)| start + 8 == *end));
        }
    }
}
