//! One COPY: a range of a table, from binary rows straight into Parquet.

use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::row_delta::SegmentFiles;
use crate::ops::Stats;
use crate::pipeline::{DataWriter, ParquetTarget};
use crate::postgres::server_error::from_sql;
use crate::window::wire::{CopyTuple, be16, be32};

/// Rows decoded into one Arrow batch.
const BATCH_ROWS: usize = 8192;
/// Raw bytes decoded into one Arrow batch, about.
const BATCH_BYTES: usize = 8 << 20;
/// Signature, flags and the length of the header extension (Postgres manual, COPY, Binary Format).
const HEADER_BYTES: usize = 19;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Rows as they arrived, one after the other.
#[derive(Default)]
struct Rows {
    buf: Vec<u8>,
    starts: Vec<u32>,
    ends: Vec<u32>,
    header_seen: bool,
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

/// Runs `statement` (`COPY ... TO STDOUT (FORMAT binary)`) and writes its rows as the table's
/// files, until `ends`.
pub(crate) async fn copy_range(
    client: &Client,
    statement: &str,
    (lake, target, stats): (&Arc<Lake>, &Arc<ParquetTarget>, &Stats),
    ends: &impl Fn() -> bool,
) -> Result<SegmentFiles> {
    let named = |e: Error| e.with_table(target.relation.display());
    let mut data = DataWriter::new(Arc::clone(lake), Arc::clone(target))?;
    let mut counted = Counted::new(stats);
    copy_into(client, statement, &mut data, (&mut counted, ends)).await.map_err(named)?;
    let (rows_inserted, has_raw) = (data.rows, data.has_raw());
    let data = data.close().await?;
    counted.keep();
    Ok(SegmentFiles { data, deletes: Vec::new(), rows_inserted, rows_deleted: 0, has_raw })
}

/// As [`copy_range`], into files that others may write to before and after.
pub(super) async fn copy_into(
    client: &Client,
    statement: &str,
    data: &mut DataWriter,
    (counted, ends): (&mut Counted<'_>, &impl Fn() -> bool),
) -> Result<()> {
    let stream = client.copy_out(statement).await.map_err(from_sql)?;
    pin_mut!(stream);
    let mut rows = Rows::default();
    while let Some(chunk) = stream.next().await {
        rows.take(&chunk.map_err(from_sql)?)?;
        if rows.starts.len() >= BATCH_ROWS || rows.buf.len() >= BATCH_BYTES {
            rows.write(data, counted).await?;
            if ends() {
                return Err(super::stopped());
            }
        }
    }
    rows.write(data, counted).await
}

impl Rows {
    /// Takes one CopyData message: the header, a row, or the trailer. Whether it really was exactly
    /// one row is seen when it is decoded.
    fn take(&mut self, mut chunk: &[u8]) -> Result<()> {
        if !self.header_seen {
            chunk = after_header(chunk)?;
            self.header_seen = true;
        }
        if chunk.is_empty() || chunk == [0xff, 0xff] {
            return Ok(());
        }
        be16(chunk, 0)?;
        let start = self.buf.len();
        self.buf.extend_from_slice(chunk);
        let at = |at: usize| {
            u32::try_from(at).map_err(|_| Error::fatal("BAD_MESSAGE", "COPY data over 4 GiB"))
        };
        self.starts.push(at(start + 2)?);
        self.ends.push(at(self.buf.len())?);
        Ok(())
    }

    async fn write(&mut self, data: &mut DataWriter, counted: &mut Counted<'_>) -> Result<()> {
        if self.starts.is_empty() {
            return Ok(());
        }
        data.decoder().decode::<CopyTuple>(&self.buf, &mut self.starts)?;
        if self.starts != self.ends {
            return Err(Error::fatal("BAD_MESSAGE", "COPY rows have another number of fields"));
        }
        let decoded = data.decoder().finish()?;
        data.write(decoded).await?;
        counted.add(self.ends.len() as u64, self.buf.len() as u64);
        self.buf.clear();
        self.starts.clear();
        self.ends.clear();
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
}
