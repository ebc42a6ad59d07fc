//! Writing: a closed segment becomes Parquet data files and delete files, table by table in
//! parallel.
//!
//! Decoding happens here, on blocking threads, from the receive buffer the socket filled; rows that
//! were folded away are never decoded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iceberg::TableIdent;
use iceberg::spec::{DataFile, SchemaRef};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use crate::iceberg::lake::Lake;
use crate::iceberg::layout::Layout;
use crate::iceberg::row_delta::SegmentFiles;
use crate::iceberg::schema;
use crate::window::decode::{Decoded, DecodedColumn, RawValue, TupleDecoder};
use crate::window::outcome::Outcome;
use crate::window::relation::{Column, Relation};
use crate::window::segment::Segment;
use crate::window::wire::WalTuple;

use super::toast::{self, Past};

/// Rows decoded into one Arrow batch.
const BATCH_ROWS: usize = 8192;
/// Raw bytes decoded into one Arrow batch, at most (a single larger row apart).
const BATCH_BYTES: u32 = 8 << 20;

/// A lake table as files are written for it: fixed for one relation version.
#[derive(Debug)]
pub(crate) struct ParquetTarget {
    pub(crate) ident: TableIdent,
    pub(crate) location: String,
    pub(crate) relation: Arc<Relation>,
    /// The relation's columns, without `_pg_raw`.
    pub(crate) plain: Shape,
    /// With `_pg_raw`.
    pub(crate) raw: Shape,
    pub(crate) hints: Arc<ColumnHints>,
    pub(crate) delete_hints: Arc<ColumnHints>,
}

/// A schema and how rows stand in it.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) schema: SchemaRef,
    pub(crate) layout: Layout,
}

impl ParquetTarget {
    /// Where (a table's location) and how rows of `relation` are written.
    pub(crate) fn new(
        location: String,
        ident: TableIdent,
        relation: Arc<Relation>,
    ) -> Result<Self> {
        let shape = |raw| -> Result<Shape> {
            let schema = Arc::new(schema::table_schema(&relation, raw)?);
            Ok(Shape { layout: Layout::new(&schema, &relation)?, schema })
        };
        Ok(Self {
            location,
            ident,
            plain: shape(false)?,
            raw: shape(true)?,
            relation: Arc::clone(&relation),
            hints: Arc::default(),
            delete_hints: Arc::default(),
        })
    }

    fn file(&self, lake: &Lake, shape: &Shape) -> Result<FileWriter> {
        let (storage, content) = (&lake.storage, FileContent::Data);
        FileWriter::new(storage, &self.location, &shape.schema, content, &self.hints)
    }
}

/// What the files of one segment are, by table oid.
pub(crate) type Written = Arc<HashMap<u32, TableFiles>>;

/// The files of one table in one segment.
#[derive(Debug, Clone)]
pub(crate) struct TableFiles {
    pub(crate) files: SegmentFiles,
    pub(crate) truncated: bool,
    pub(crate) changes: u64,
}

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) task: JoinHandle<Result<Written>>,
    /// The same outcome, for later segments that look for unchanged TOAST.
    pub(crate) seen: watch::Receiver<Option<Written>>,
}

/// The threads that write, and the memory that waits for them.
#[derive(Debug, Clone)]
pub(crate) struct Writers {
    lake: Arc<Lake>,
    threads: Arc<Semaphore>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    freed: Arc<Notify>,
}

impl Writers {
    /// Writers into `lake`, one per core, that hold at most `bytes_max` of raw WAL.
    pub(crate) fn new(lake: Arc<Lake>, bytes_max: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            lake,
            threads: Arc::new(Semaphore::new(threads)),
            bytes: Arc::default(),
            bytes_max,
            freed: Arc::default(),
        }
    }

    /// Whether WAL may be read, with `filling` bytes held by the segment that is being filled.
    pub(crate) fn has_room(&self, filling: usize) -> bool {
        let waiting = self.bytes.load(Ordering::Acquire);
        waiting == 0 || waiting + filling < self.bytes_max
    }

    /// Returns when memory was freed.
    pub(crate) async fn room(&self) {
        self.freed.notified().await;
    }

    /// Starts writing `segment`.
    pub(crate) fn write(
        &self,
        segment: Segment,
        targets: Arc<HashMap<u32, Arc<ParquetTarget>>>,
        past: Past,
    ) -> Ticket {
        let held = Held::new(self, segment.bytes());
        let (tell, seen) = watch::channel(None);
        let writers = self.clone();
        let task = tokio::spawn(async move {
            let written = writers.write_tables(segment, &targets, past).await?;
            drop(held);
            crate::ops::crash_point("segment_written");
            tell.send_replace(Some(Arc::clone(&written)));
            Ok(written)
        });
        Ticket { task, seen }
    }

    async fn write_tables(
        &self,
        segment: Segment,
        targets: &HashMap<u32, Arc<ParquetTarget>>,
        past: Past,
    ) -> Result<Written> {
        let (buf, mut outcomes) = self.blocking(move || segment.settle()).await??;
        // Those that need older rows come last: the others need not wait with them.
        outcomes.sort_by_key(|outcome| !outcome.open.is_empty());
        let buf = Arc::new(buf);
        let mut tasks = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let oid = outcome.relation.oid;
            let target = targets.get(&oid).ok_or_else(|| {
                Error::fatal("NO_TARGET", "a table changed that has no place in the lake")
                    .with_table(outcome.relation.display())
            })?;
            let (truncated, changes) = (outcome.truncated, outcome.changes);
            let job = Job {
                lake: Arc::clone(&self.lake),
                target: Arc::clone(target),
                buf: Arc::clone(&buf),
                // Waited for without a thread: the segments that are waited for need them.
                older: past.data_files(&self.lake, target, &outcome).await?,
                outcome,
            };
            let permit = self.permit().await?;
            let handle = tokio::runtime::Handle::current();
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                handle.block_on(job.write())
            });
            tasks.push((oid, truncated, changes, task));
        }
        let mut written = HashMap::with_capacity(tasks.len());
        for (oid, truncated, changes, task) in tasks {
            let files = task.await.map_err(broken_off)??;
            written.insert(oid, TableFiles { files, truncated, changes });
        }
        Ok(Arc::new(written))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let permit = self.permit().await?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(broken_off)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let threads = Arc::clone(&self.threads);
        threads.acquire_owned().await.map_err(|e| Error::fatal("WRITERS", "closed").with_source(e))
    }
}

fn broken_off(panic: tokio::task::JoinError) -> Error {
    Error::fatal("WRITER", "a writer broke off").with_source(panic)
}

/// Raw bytes that are held until they are written.
struct Held {
    writers: Writers,
    bytes: usize,
}

impl Held {
    fn new(writers: &Writers, bytes: usize) -> Self {
        writers.bytes.fetch_add(bytes, Ordering::AcqRel);
        Self { writers: writers.clone(), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.writers.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.writers.freed.notify_one();
    }
}

/// The files of one table in one segment, in the making.
pub(super) struct Job {
    pub(super) lake: Arc<Lake>,
    pub(super) target: Arc<ParquetTarget>,
    pub(super) buf: Arc<Vec<u8>>,
    /// Data files that may hold what `outcome` lacks, newest first.
    pub(super) older: Vec<(DataFile, i64)>,
    pub(super) outcome: Outcome,
}

impl Job {
    async fn write(mut self) -> Result<SegmentFiles> {
        let mut data = DataWriter::new(Arc::clone(&self.lake), Arc::clone(&self.target))?;
        let mut rows = std::mem::take(&mut self.outcome.rows);
        data.tuples(&self.buf, &mut rows).await?;
        let mut rows = std::mem::take(&mut self.outcome.patched_rows);
        data.tuples(&self.outcome.patched, &mut rows).await?;
        toast::write_open_rows(&self, &mut data).await?;
        let deletes = self.write_deletes().await?;
        let rows_deleted = deletes.iter().map(DataFile::record_count).sum();
        let rows_inserted = data.rows;
        let has_raw = data.has_raw();
        let data = data.close().await?;
        Ok(SegmentFiles { data, deletes, rows_inserted, rows_deleted, has_raw })
    }

    async fn write_deletes(&mut self) -> Result<Vec<DataFile>> {
        let mut tuples = std::mem::take(&mut self.outcome.deletes);
        if tuples.is_empty() {
            return Ok(Vec::new());
        }
        let (relation, target) = (&self.outcome.relation, &self.target);
        let mut decoder = TupleDecoder::new(key_columns(relation, &target.plain)?)?;
        let mut file = FileWriter::new(
            &self.lake.storage,
            &target.location,
            &schema::key_schema(&target.plain.schema)?,
            FileContent::EqualityDeletes,
            &target.delete_hints,
        )?;
        for chunk in tuples.chunks_mut(BATCH_ROWS) {
            decoder.decode::<WalTuple>(&self.buf, chunk)?;
            let decoded = decoder.finish()?;
            refuse_raw_keys(relation, &decoded)?;
            file.write(&target.plain.layout.key_rows(&decoded.columns)?).await?;
        }
        Ok(file.close().await?.into_iter().collect())
    }
}

fn refuse_raw_keys(relation: &Relation, decoded: &Decoded) -> Result<()> {
    let in_key = |raw: &&RawValue| relation.key.contains(&raw.column);
    let Some(raw) = decoded.raw.iter().find(in_key) else { return Ok(()) };
    let name = relation.columns.get(raw.column).map_or("?", |column| column.name.as_str());
    let message = format!("the key value {} has no place in the column's lake type", raw.text);
    Err(Error::table("KEY_VALUE", relation.display(), message).with_column(name))
}

/// One table's data files: one without `_pg_raw`, and one with it once a value needs it.
pub(crate) struct DataWriter {
    lake: Arc<Lake>,
    target: Arc<ParquetTarget>,
    decoder: TupleDecoder,
    plain: Option<FileWriter>,
    raw: Option<FileWriter>,
    done: Vec<DataFile>,
    /// Rows written so far.
    pub(crate) rows: u64,
    wrote_raw: bool,
}

impl DataWriter {
    pub(crate) fn new(lake: Arc<Lake>, target: Arc<ParquetTarget>) -> Result<Self> {
        let relation = &target.relation;
        let decoder = TupleDecoder::new(all_columns(relation, &target.plain)?)?
            .with_rules(relation.rules, &relation.key);
        let (plain, raw, done) = (None, None, Vec::new());
        Ok(Self { lake, target, decoder, plain, raw, done, rows: 0, wrote_raw: false })
    }

    /// Decodes and writes the tuples at `cursors`, consuming them.
    async fn tuples(&mut self, buf: &[u8], cursors: &mut [u32]) -> Result<()> {
        let mut rest = cursors;
        while !rest.is_empty() {
            let count = rows_within(rest, BATCH_BYTES);
            let (chunk, after) = rest.split_at_mut(count);
            self.decoder.decode::<WalTuple>(buf, chunk)?;
            let decoded = self.decoder.finish()?;
            self.write(decoded).await?;
            rest = after;
        }
        Ok(())
    }

    /// The decoder, for tuples of another framing.
    pub(crate) fn decoder(&mut self) -> &mut TupleDecoder {
        &mut self.decoder
    }

    /// Writes what was decoded.
    pub(crate) async fn write(&mut self, decoded: Decoded) -> Result<()> {
        self.rows += decoded.rows as u64;
        refuse_raw_keys(&self.target.relation, &decoded)?;
        let (slot, shape) = if decoded.raw.is_empty() {
            (&mut self.plain, &self.target.plain)
        } else {
            self.wrote_raw = true;
            (&mut self.raw, &self.target.raw)
        };
        let raw: Vec<_> =
            decoded.raw.into_iter().map(|raw| (raw.row, raw.column, raw.text)).collect();
        let rows = shape.layout.rows(&decoded.columns, &raw, decoded.rows)?;
        let mut file = match slot.take() {
            Some(file) => file,
            None => self.target.file(&self.lake, shape)?,
        };
        file.write(&rows).await?;
        if file.bytes_written() < self.lake.target_file_bytes {
            *slot = Some(file);
        } else {
            self.done.extend(file.close().await?);
        }
        Ok(())
    }

    /// Whether a value went by the `raw` rule.
    pub(crate) fn has_raw(&self) -> bool {
        self.wrote_raw
    }

    /// Completes the files.
    pub(crate) async fn close(mut self) -> Result<Vec<DataFile>> {
        for file in [self.plain.take(), self.raw.take()].into_iter().flatten() {
            self.done.extend(file.close().await?);
        }
        Ok(self.done)
    }
}

/// How many of `rows`, which ascend, lie within `bytes`; at least one, at most [`BATCH_ROWS`].
fn rows_within(rows: &[u32], bytes: u32) -> usize {
    let first = rows.first().copied().unwrap_or_default();
    let limit = first.saturating_add(bytes);
    rows.iter().take(BATCH_ROWS).take_while(|&&row| row <= limit).count().max(1)
}

/// Every wire column with its lake type.
pub(super) fn all_columns(
    relation: &Relation,
    shape: &Shape,
) -> Result<Vec<Option<DecodedColumn>>> {
    relation.columns.iter().map(|column| decoded_column(column, shape).map(Some)).collect()
}

/// The key columns with their lake types; the others are skipped.
pub(super) fn key_columns(
    relation: &Relation,
    shape: &Shape,
) -> Result<Vec<Option<DecodedColumn>>> {
    let column = |(at, column)| match relation.key.binary_search(&at) {
        Ok(_) => decoded_column(column, shape).map(Some),
        Err(_) => Ok(None),
    };
    relation.columns.iter().enumerate().map(column).collect()
}

fn decoded_column(column: &Column, shape: &Shape) -> Result<DecodedColumn> {
    let field = shape.layout.arrow().field_with_name(&column.name).map_err(|e| {
        Error::fatal("LAYOUT", "the lake lacks a column").with_column(&column.name).with_source(e)
    })?;
    let data_type = field.data_type().clone();
    Ok(DecodedColumn { name: column.name.clone(), pg_type: column.pg_type.clone(), data_type })
}
