//! The workers of a copy: connections that import one exported snapshot and take range after range
//! of all tables from one queue.
//!
//! A connection that breaks is replaced for as long as somebody still holds the snapshot: the
//! session that exported it, or the coordinator, who exports it once more (case 131). A table that
//! was rewritten since the snapshot reads empty through it, so file nodes are compared under a lock
//! before anything is copied, and again by each connection that comes later (case 134).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::row_delta::SegmentFiles;
use crate::ops::Stats;
use crate::pipeline::ParquetTarget;
use crate::postgres::catalog::SourceTable;
use crate::postgres::dsn::Source;
use crate::postgres::quote::{literal, qualified};
use crate::postgres::server_error::from_sql;
use crate::postgres::session::AS_STORED;
use crate::postgres::sql::connect_sql;
use crate::window::relation::Column;

use super::copy::Copier;
use super::cost::Cost;
use super::plan::{self, PageRange, Piece, TableSize};
use super::record::Recorder;

/// How often in a row the connection of one range is replaced, ...
const RECONNECTS_MAX: u32 = 6;
/// ... and the first pause before that, which doubles.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How a transaction begins that is to see an exported snapshot.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// SQLSTATEs of SET TRANSACTION SNAPSHOT: "invalid snapshot identifier", "snapshot does not exist",
/// "source process not running".
pub(super) const LOST_STATES: [&str; 3] = ["22023", "42704", "55000"];
/// Tables that one LOCK names.
const LOCK_TABLES: usize = 500;

/// One copy of some tables.
pub(super) struct Copying<'a> {
    pub(super) source: &'a Source,
    /// The exported snapshot.
    pub(super) snapshot: &'a str,
    /// The process that exported it.
    pub(super) exporter: i32,
    pub(super) lake: &'a Arc<Lake>,
    pub(super) tables: &'a [SourceTable],
    /// Where they go, in the same order.
    pub(super) targets: &'a [Arc<ParquetTarget>],
    pub(super) settings: &'a Settings,
    pub(super) stats: &'a Arc<Stats>,
}

/// A range that is written.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    /// Index of the table.
    pub(super) table: usize,
    pub(super) range: PageRange,
    pub(super) files: SegmentFiles,
}

impl Copying<'_> {
    /// A connection that holds the snapshot, and locks on all tables; `None` where one was
    /// rewritten or altered since.
    pub(super) async fn coordinator(&self) -> Result<Option<Client>> {
        let client = import_snapshot(self.source, self.snapshot).await?;
        match was_rewritten(&client, self.tables).await {
            Ok(false) => {}
            Ok(true) => return Ok(None),
            // Its name is another table's, or nobody's, by now.
            Err(error) if is_undefined(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let is_other = was_altered(self.source, self.tables).await?;
        Ok((!is_other).then_some(client))
    }

    /// Copies what `done` leaves of the tables, and has it recorded. `None` where one was rewritten
    /// since.
    pub(super) async fn run(
        &self,
        coordinator: &Client,
        done: &[Vec<PageRange>],
        recorder: Option<&mut Recorder>,
    ) -> Result<Option<Vec<Copied>>> {
        let sizes = plan::sizes(coordinator, self.tables).await?;
        let pieces = plan::pieces(self.tables, &sizes, done, self.settings.workers);
        let expected = Expected::new(self.tables, &sizes, &pieces);
        let count = self.settings.workers.min(pieces.len());
        let snapshots = vec![self.snapshot.to_owned(), exported_again(coordinator).await?];
        let shared = Arc::new(Shared {
            source: self.source.clone(),
            snapshots,
            tables: self.tables.to_vec(),
            queue: Mutex::new(pieces.into()),
            is_over: AtomicBool::new(false),
            lake: Arc::clone(self.lake),
            targets: self.targets.to_vec(),
            stats: Arc::clone(self.stats),
        });
        let _over = Over(Arc::clone(&shared));
        let mut copiers = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(copier) = shared.connect().await? else { return Ok(None) };
            copiers.push(copier);
        }
        let cost = Cost {
            source: self.source,
            slot: &self.settings.slot,
            pids: vec![self.exporter, backend_pid(coordinator).await?],
            retained_wal_max: self.settings.retained_wal_max,
            stats: self.stats,
        };
        tokio::select! {
            biased;
            // The source keeps more WAL than it may.
            over = cost.watch() => Err(over),
            // The copy itself.
            copied = gather(&shared, copiers, expected, recorder) => copied.map(Some),
        }
    }

    /// One more connection that sees what `coordinator` sees; `None` as for [`Copier::open`].
    pub(super) async fn another(&self, coordinator: &Client) -> Result<Option<Copier>> {
        Copier::open(self.source, &exported_again(coordinator).await?, self.tables).await
    }
}

/// Another name of the snapshot, which lives as long as one of those who gave it one.
async fn exported_again(coordinator: &Client) -> Result<String> {
    let sql = "SELECT pg_catalog.pg_export_snapshot()";
    Ok(coordinator.query_one(sql, &[]).await.map_err(from_sql)?.get(0))
}

/// Starts the workers and hears from them until all ranges are written.
async fn gather(
    shared: &Arc<Shared>,
    copiers: Vec<Copier>,
    mut expected: Expected,
    mut recorder: Option<&mut Recorder>,
) -> Result<Vec<Copied>> {
    let stats = &shared.stats;
    stats.to_copy(expected.rows(), expected.bytes_left());
    let (tell, mut hear) = mpsc::channel(copiers.len().max(1));
    let mut tasks = JoinSet::new();
    for copier in copiers {
        let worker = Worker { copier, shared: Arc::clone(shared), tell: tell.clone() };
        let handle = tokio::runtime::Handle::current();
        tasks.spawn_blocking(move || handle.block_on(worker.run()));
    }
    drop(tell);
    let mut all = Vec::new();
    while let Some((piece, files)) = hear.recv().await {
        let copied = Copied { table: piece.table, range: piece.range, files: files? };
        expected.has(&piece, copied.files.rows_inserted);
        stats.expect_rows(expected.rows(), expected.bytes_left());
        if let Some(recorder) = &mut recorder {
            recorder.copied(&copied).await?;
        }
        crate::ops::crash_point("range_copied");
        tracing::debug!(table = copied.table, range = ?copied.range, "a range is copied");
        all.push(copied);
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| Error::fatal("WRITER", "a copy broke off").with_source(e))?;
    }
    Ok(all)
}

/// What the workers share.
struct Shared {
    source: Source,
    /// Names of the one snapshot.
    snapshots: Vec<String>,
    tables: Vec<SourceTable>,
    /// The largest first.
    queue: Mutex<VecDeque<Piece>>,
    is_over: AtomicBool,
    lake: Arc<Lake>,
    targets: Vec<Arc<ParquetTarget>>,
    stats: Arc<Stats>,
}

/// Ends the workers with the copy, however it ends: they are threads, which nobody can abort.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.stats.copy_ended();
    }
}

impl Shared {
    fn next(&self) -> Option<Piece> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front().filter(|_| !self.is_over())
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// A connection that sees the snapshot. `None` where a table was rewritten since, or will be
    /// before it can be locked.
    async fn connect(&self) -> Result<Option<Copier>> {
        let mut lost = None;
        for snapshot in &self.snapshots {
            match Copier::open(&self.source, snapshot, &self.tables).await {
                Err(error) if error.code() == "SNAPSHOT_LOST" => lost = Some(error),
                opened => return opened,
            }
        }
        Err(lost.unwrap_or_else(|| snapshot_lost("nobody exported it")))
    }
}

/// One connection that copies piece after piece.
struct Worker {
    copier: Copier,
    shared: Arc<Shared>,
    tell: mpsc::Sender<(Piece, Result<SegmentFiles>)>,
}

impl Worker {
    async fn run(mut self) {
        while let Some(piece) = self.shared.next() {
            crate::ops::crash_point("range_begun");
            let files = self.copy(&piece).await;
            let is_over = files.is_err();
            if self.tell.send((piece, files)).await.is_err() || is_over {
                return;
            }
        }
        self.copier.close().await;
    }

    /// Copies a range, by another connection where this one breaks.
    async fn copy(&mut self, piece: &Piece) -> Result<SegmentFiles> {
        let shared = Arc::clone(&self.shared);
        let target = shared.targets.get(piece.table);
        let target =
            target.ok_or_else(|| Error::fatal("NO_TARGET", "a table has no place in the lake"))?;
        let mut tries = 0;
        loop {
            let ends = || shared.is_over();
            let to = (&shared.lake, target, shared.stats.as_ref());
            let files = self.copier.copy_range(&piece.statement, to, &ends);
            let error = match Box::pin(files).await {
                Ok(files) => return Ok(files),
                Err(error) => error,
            };
            if !is_connection(&error) || shared.is_over() {
                return Err(error);
            }
            tracing::warn!(
                table = target.relation.display(),
                "a connection of the copy broke; its range is copied again: {error}"
            );
            self.copier = self.reconnect(&mut tries, error).await?;
        }
    }

    async fn reconnect(&self, tries: &mut u32, mut error: Error) -> Result<Copier> {
        while *tries < RECONNECTS_MAX && !self.shared.is_over() {
            tokio::time::sleep(RECONNECT_PAUSE * 2_u32.pow(*tries)).await;
            *tries += 1;
            match self.shared.connect().await {
                Ok(Some(copier)) => return Ok(copier),
                Ok(None) => return Err(error),
                Err(again) if is_connection(&again) => error = again,
                Err(other) => return Err(other),
            }
        }
        Err(error)
    }
}

fn is_connection(error: &Error) -> bool {
    matches!(error.code(), "CONNECTION" | "UNAVAILABLE")
}

/// How many rows there are to copy: what the planner knows of each table, and once some of its
/// ranges are copied, what they had.
struct Expected {
    tables: Vec<ExpectedTable>,
}

#[derive(Clone, Copy, Default)]
struct ExpectedTable {
    rows_per_byte: f64,
    bytes_left: u64,
    bytes_copied: u64,
    rows_copied: u64,
}

/// Bytes of a row in a table that was never analysed.
const ROW_BYTES_GUESS: f64 = 100.0;

impl Expected {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss)]
    fn new(tables: &[SourceTable], sizes: &[TableSize], pieces: &[Piece]) -> Self {
        let table = |(source, size): (&SourceTable, &TableSize)| {
            let (rows, pages) = (f64::from(source.estimated_rows), f64::from(source.relpages));
            let page_bytes = size.bytes as f64 / size.pages.max(1) as f64;
            let is_known = rows >= 0.0 && pages > 0.0 && page_bytes > 0.0;
            let density =
                if is_known { rows / (pages * page_bytes) } else { 1.0 / ROW_BYTES_GUESS };
            ExpectedTable { rows_per_byte: density, ..ExpectedTable::default() }
        };
        let mut tables: Vec<_> = tables.iter().zip(sizes).map(table).collect();
        for piece in pieces {
            if let Some(table) = tables.get_mut(piece.table) {
                table.bytes_left += piece.bytes;
            }
        }
        Self { tables }
    }

    /// A piece is copied, with this many rows.
    fn has(&mut self, piece: &Piece, rows: u64) {
        if let Some(table) = self.tables.get_mut(piece.table) {
            table.bytes_left = table.bytes_left.saturating_sub(piece.bytes);
            table.bytes_copied += piece.bytes;
            table.rows_copied += rows;
        }
    }

    fn bytes_left(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes_left).sum()
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    fn rows(&self) -> u64 {
        let rows = |table: &ExpectedTable| {
            let density = match table.bytes_copied {
                0 => table.rows_per_byte,
                bytes => table.rows_copied as f64 / bytes as f64,
            };
            table.rows_copied + (table.bytes_left as f64 * density) as u64
        };
        self.tables.iter().map(rows).sum()
    }
}

/// A connection in a transaction that sees the exported snapshot.
///
/// # Errors
/// `SNAPSHOT_LOST` (transient) where the snapshot is gone.
pub(super) async fn import_snapshot(source: &Source, snapshot: &str) -> Result<Client> {
    let client = connect_sql(source, "initial-snapshot").await?;
    client.batch_execute(BEGIN).await.map_err(from_sql)?;
    client.batch_execute(&import_statement(snapshot)).await.map_err(|error| {
        match error.code() {
            Some(code) if LOST_STATES.contains(&code.code()) => {
                snapshot_lost(&error.to_string()).with_source(error)
            }
            _ => from_sql(error),
        }
    })?;
    client.batch_execute(AS_STORED).await.map_err(from_sql)?;
    Ok(client)
}

pub(super) fn import_statement(snapshot: &str) -> String {
    format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot))
}

pub(super) fn snapshot_lost(why: &str) -> Error {
    let what = format!("the snapshot that is copied is gone with the session that held it: {why}");
    Error::transient("SNAPSHOT_LOST", what)
}

async fn backend_pid(client: &Client) -> Result<i32> {
    let sql = "SELECT pg_catalog.pg_backend_pid()";
    Ok(client.query_one(sql, &[]).await.map_err(from_sql)?.get(0))
}

/// Locks the tables against rewrites for as long as `client` lives, and says whether one happened
/// between the snapshot and the lock.
async fn was_rewritten(client: &Client, tables: &[SourceTable]) -> Result<bool> {
    for lock in lock_statements(tables, "") {
        client.batch_execute(&lock).await.map_err(from_sql)?;
    }
    let rewritten = client.query(&rewritten_statement(tables), &[]).await.map_err(from_sql)?;
    Ok(!rewritten.is_empty())
}

/// LOCK of all tables, some hundred at a time.
pub(super) fn lock_statements(tables: &[SourceTable], nowait: &str) -> Vec<String> {
    let names: Vec<String> =
        tables.iter().map(|t| qualified(&t.relation.namespace, &t.relation.name)).collect();
    let lock =
        |names: &[String]| format!("LOCK TABLE {} IN ACCESS SHARE MODE {nowait}", names.join(", "));
    names.chunks(LOCK_TABLES).map(lock).collect()
}

/// Asks for the tables that have another file than in the snapshot.
pub(super) fn rewritten_statement(tables: &[SourceTable]) -> String {
    let oids: Vec<String> = tables.iter().map(|t| t.relation.oid.to_string()).collect();
    format!(
        "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY ('{{{}}}') \
         AND c.relfilenode <> 0 \
         AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid)",
        oids.join(",")
    )
}

fn is_undefined(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let sql = source.and_then(|e| e.downcast_ref::<tokio_postgres::Error>());
    let undefined = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    sql.and_then(|e| e.code()).is_some_and(|code| undefined.contains(code))
}

/// Whether a table or column has another name by now than in the snapshot: COPY goes by names as
/// they are now. Once the tables are locked, they stay.
async fn was_altered(source: &Source, tables: &[SourceTable]) -> Result<bool> {
    let client = connect_sql(source, "initial-snapshot").await?;
    let oids: Vec<u32> = tables.iter().map(|t| t.relation.oid).collect();
    let now = "SELECT c.oid, n.nspname::text, c.relname::text, a.attnum, a.attname::text, a.atttypid \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_attribute a \
            ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.oid = ANY($1)";
    let rows = client.query(now, &[&oids]).await.map_err(from_sql)?;
    let is_here = |oid: u32, namespace: &str, name: &str| {
        rows.iter().any(|row| {
            let at = (row.get::<_, u32>(0), row.get::<_, &str>(1), row.get::<_, &str>(2));
            at == (oid, namespace, name)
        })
    };
    let columns: HashMap<(u32, i16), (&str, u32)> = rows
        .iter()
        .filter_map(|row| {
            let attnum = row.get::<_, Option<i16>>(3)?;
            Some(((row.get(0), attnum), (row.get(4), row.get(5))))
        })
        .collect();
    Ok(tables.iter().map(|table| &table.relation).any(|relation| {
        let oid = relation.oid;
        let same = |column: &Column| {
            columns.get(&(oid, column.attnum)) == Some(&(column.name.as_str(), column.type_oid))
        };
        !is_here(oid, &relation.namespace, &relation.name) || !relation.columns.iter().all(same)
    }))
}
