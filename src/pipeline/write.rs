//! Writing: a closed segment becomes Parquet data files and delete files, table by table in
//! parallel.
//!
//! Decoding happens here, on blocking threads, from the receive buffer the socket filled; rows that
//! were folded away are never decoded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::ArrayRef;
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
use crate::postgres::stream::{Frame, next_frame};
use crate::progress::Lsn;
use crate::window::decode::{Decoded, DecodedColumn, RawValue, TupleDecoder};
use crate::window::hidden_key::HiddenKey;
use crate::window::outcome::Outcome;
use crate::window::relation::{Column, Relation};
use crate::window::segment::Segment;
use crate::window::wire::WalTuple;

use super::equal_rows;
use super::past::{OlderFiles, Past};
use super::toast;

/// Rows decoded into one Arrow batch.
pub(crate) const BATCH_ROWS: usize = 8192;
/// Raw bytes decoded into one Arrow batch, at most (a single larger row apart).
pub(super) const BATCH_BYTES: u32 = 8 << 20;

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
    /// An older row that it needs is not there. That is no error where the window before left the
    /// table as it was, for a copy to come.
    pub(crate) lacks: Option<Arc<Error>>,
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
        outcomes.sort_by_key(Outcome::needs_older_rows);
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
                older: past.files(&self.lake, target, &outcome).await?,
                outcome,
            };
            let permit = self.permit().await?;
            let handle = tokio::runtime::Handle::current();
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                handle.block_on(job.write())
            });
            tasks.push((target, truncated, changes, task));
        }
        let mut written = HashMap::with_capacity(tasks.len());
        for (target, truncated, changes, task) in tasks {
            let relation = &target.relation;
            let files = task.await.map_err(broken_off)?;
            let (files, lacks) = match files.map_err(|e| e.with_table(relation.display())) {
                Ok(files) => (files, None),
                Err(error) if lacks_older_row(&error) => {
                    (SegmentFiles::default(), Some(Arc::new(error)))
                }
                Err(error) => return Err(error),
            };
            written.insert(relation.oid, TableFiles { files, truncated, changes, lacks });
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

fn lacks_older_row(error: &Error) -> bool {
    matches!(error.code(), "ROW_MISSING" | "TOAST_ROW_MISSING")
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
    /// Files that may hold what `outcome` lacks.
    pub(super) older: OlderFiles,
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
        equal_rows::write_remaining(&self, &mut data).await?;
        let deletes = self.write_deletes().await?;
        let rows_deleted = deletes.iter().map(DataFile::record_count).sum();
        let rows_inserted = data.rows;
        let has_raw = data.has_raw();
        let data = data.close().await?;
        Ok(SegmentFiles { data, deletes, rows_inserted, rows_deleted, has_raw })
    }

    async fn write_deletes(&mut self) -> Result<Vec<DataFile>> {
        let mut tuples = std::mem::take(&mut self.outcome.deletes);
        let relation = &self.outcome.relation;
        write_deletes(&self.lake, &self.target, relation, (&self.buf, &mut tuples)).await
    }
}

/// Writes the keys of `tuples`, which stand in `buf` and are consumed, as equality deletes.
pub(crate) async fn write_deletes(
    lake: &Lake,
    target: &ParquetTarget,
    relation: &Relation,
    (buf, tuples): (&[u8], &mut [u32]),
) -> Result<Vec<DataFile>> {
    if tuples.is_empty() {
        return Ok(Vec::new());
    }
    let mut decoder = key_decoder(relation, &target.plain)?;
    let mut file = FileWriter::new(
        &lake.storage,
        &target.location,
        &schema::key_schema(&target.plain.schema)?,
        FileContent::EqualityDeletes,
        &target.delete_hints,
    )?;
    for chunk in tuples.chunks_mut(BATCH_ROWS) {
        decoder.decode::<WalTuple>(buf, chunk)?;
        let decoded = decoder.finish()?;
        refuse_raw_keys(relation, &decoded)?;
        file.write(&target.plain.layout.key_rows(&key_arrays(decoded))?).await?;
    }
    Ok(file.close().await?.into_iter().collect())
}

fn refuse_raw_keys(relation: &Relation, decoded: &Decoded) -> Result<()> {
    if relation.has_hidden_key() {
        return Ok(());
    }
    let in_key = |raw: &&RawValue| relation.key.contains(&raw.column);
    let Some(raw) = decoded.raw.iter().find(in_key) else { return Ok(()) };
    let name = relation.columns.get(raw.column).map_or("?", |column| column.name.as_str());
    let message = format!("the key value {} has no place in the column's lake type", raw.text);
    Err(Error::table("KEY_VALUE", relation.display(), message).with_column(name).with_cure(
        "name the table in `tables.hidden_key`, which addresses its rows by text, and let it be \
         copied afresh",
    ))
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
    clamped: u64,
    far: u64,
}

impl DataWriter {
    pub(crate) fn new(lake: Arc<Lake>, target: Arc<ParquetTarget>) -> Result<Self> {
        let decoder = row_decoder(&target.relation, &target.plain)?;
        Ok(Self {
            lake,
            target,
            decoder,
            plain: None,
            raw: None,
            done: Vec::new(),
            rows: 0,
            wrote_raw: false,
            clamped: 0,
            far: 0,
        })
    }

    /// Decodes and writes the tuples at `cursors`, consuming them.
    pub(crate) async fn tuples(&mut self, buf: &[u8], cursors: &mut [u32]) -> Result<()> {
        let mut rest = cursors;
        while !rest.is_empty() {
            let count = rows_within(rest, BATCH_BYTES);
            let (chunk, after) = rest.split_at_mut(count);
            let begins = chunk.to_vec();
            let decoded = self.decoder.decode::<WalTuple>(buf, chunk);
            let decoded = decoded.and_then(|()| self.decoder.finish());
            let decoded = decoded.map_err(|e| self.with_place(e, buf, &begins))?;
            self.write(decoded).await?;
            rest = after;
        }
        Ok(())
    }

    /// The error with the position of the first of these rows that gives one by itself.
    #[cold]
    fn with_place(&self, error: Error, buf: &[u8], rows: &[u32]) -> Error {
        let is_sound = |row: u32| {
            let mut decoder = row_decoder(&self.target.relation, &self.target.plain)?;
            decoder.decode::<WalTuple>(buf, &mut [row])?;
            decoder.finish()
        };
        let at_fault = rows.iter().find(|&&row| is_sound(row).is_err());
        match at_fault.and_then(|&row| lsn_of(buf, row)) {
            Some(lsn) => error.with_lsn(lsn),
            None => error,
        }
    }

    /// The decoder, for tuples of another framing.
    pub(crate) fn decoder(&mut self) -> &mut TupleDecoder {
        &mut self.decoder
    }

    /// Writes what was decoded.
    pub(crate) async fn write(&mut self, decoded: Decoded) -> Result<()> {
        self.rows += decoded.rows as u64;
        self.clamped += decoded.clamped;
        self.far += decoded.far;
        refuse_raw_keys(&self.target.relation, &decoded)?;
        let (slot, shape) = if decoded.raw.is_empty() {
            (&mut self.plain, &self.target.plain)
        } else {
            self.wrote_raw = true;
            (&mut self.raw, &self.target.raw)
        };
        let raw: Vec<_> =
            decoded.raw.into_iter().map(|raw| (raw.row, raw.column, raw.text)).collect();
        let (columns, key) = (&decoded.columns, decoded.key.as_ref());
        let rows = shape.layout.keyed_rows(columns, key, &raw, decoded.rows)?;
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
        self.warn_of_values();
        Ok(self.done)
    }

    fn warn_of_values(&self) {
        let table = self.target.relation.display();
        if self.clamped > 0 {
            let values = self.clamped;
            tracing::warn!(code = "CLAMPED", table, values, "the nearest value stands for others");
        }
        if self.far > 0 {
            let values = self.far;
            tracing::warn!(
                code = "FAR_DATES",
                table,
                values,
                "dates outside of the years 1 to 9999, which many readers don't know"
            );
        }
    }
}

/// The LSN of the change whose tuple begins at `row`, in a buffer that begins with a frame.
fn lsn_of(buf: &[u8], row: u32) -> Option<Lsn> {
    let (row, mut pos) = (usize::try_from(row).ok()?, 0);
    while let Some(frame) = next_frame(buf, &mut pos, usize::MAX).ok()? {
        match frame {
            Frame::XLogData { wal_start, body, .. } if body.contains(&row) => {
                return Some(wal_start);
            }
            _ => {}
        }
    }
    None
}

/// How many of `rows`, which ascend, lie within `bytes`; at least one, at most [`BATCH_ROWS`].
fn rows_within(rows: &[u32], bytes: u32) -> usize {
    let first = rows.first().copied().unwrap_or_default();
    let limit = first.saturating_add(bytes);
    rows.iter().take(BATCH_ROWS).take_while(|&&row| row <= limit).count().max(1)
}

/// Decodes whole rows.
pub(crate) fn row_decoder(relation: &Relation, shape: &Shape) -> Result<TupleDecoder> {
    let column = |column| decoded_column(column, shape).map(Some);
    let columns: Result<_> = relation.columns.iter().map(column).collect();
    let decoder = TupleDecoder::new(columns?)?.with_rules(relation.rules, &relation.key);
    Ok(decoder.with_key(HiddenKey::new(relation)))
}

/// Decodes keys only: see [`key_arrays`].
pub(crate) fn key_decoder(relation: &Relation, shape: &Shape) -> Result<TupleDecoder> {
    if let Some(key) = HiddenKey::new(relation) {
        return Ok(TupleDecoder::new(Vec::new())?.with_key(Some(key)));
    }
    let column = |(at, column)| match relation.key.binary_search(&at) {
        Ok(_) => decoded_column(column, shape).map(Some),
        Err(_) => Ok(None),
    };
    let columns: Result<_> = relation.columns.iter().enumerate().map(column).collect();
    TupleDecoder::new(columns?)
}

/// What a [`key_decoder`] gave, in the order of the relation's key field ids.
pub(crate) fn key_arrays(decoded: Decoded) -> Vec<ArrayRef> {
    decoded.key.map_or(decoded.columns, |key| vec![key])
}

fn decoded_column(column: &Column, shape: &Shape) -> Result<DecodedColumn> {
    let field = shape.layout.arrow().field_with_name(&column.name).map_err(|e| {
        Error::fatal("LAYOUT", "the lake lacks a column").with_column(&column.name).with_source(e)
    })?;
    let data_type = field.data_type().clone();
    Ok(DecodedColumn { name: column.name.clone(), pg_type: column.pg_type.clone(), data_type })
}
