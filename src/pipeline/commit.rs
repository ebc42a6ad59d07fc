//! The window, and the one lake commit it becomes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::DataFile;
use iceberg::table::Table;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::iceberg::committer::{LakeCommit, NewTable, TableChange, patient_base};
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::{Behind, LedgerRecord, PIPELINE_KEY, PipelineState};
use crate::iceberg::row_delta::{Rewritten, RowDelta, SegmentFiles};
use crate::iceberg::schema::GoOn;
use crate::iceberg::{OID_KEY, POSITION_KEY, Schema, read, rewrite, schema};
use crate::progress::Lsn;
use crate::window::relation::Relation;

use super::facts::FACTS_KEY;
use super::intake::{Intake, TransactionEnd};
use super::past::Past;
use super::refresh::Adopted;
use super::rhythm::Rhythm;
use super::start::Position;
use super::tables::{Evolution, TableState, Tables};
use super::write::{Ticket, Writers, Written};

/// Tables of a lake commit that are looked at in the catalog at the same time.
const TABLES_PARALLEL: usize = 8;

/// Whole source transactions on their way into the next lake commit.
#[derive(Debug)]
pub(crate) struct Window {
    number: u64,
    opened: Option<Instant>,
    rhythm: Rhythm,
    /// Ends at an idle position: due at once, unlike the windows after it.
    is_idle: bool,
    segments: Vec<Ticket>,
    evolutions: Vec<Evolution>,
    /// Tables that come back with copies of their own.
    adopted: Vec<Adopted>,
    /// Tables that this lake commit leaves as they are.
    behind: BTreeMap<u32, Behind>,
    end_lsn: Lsn,
    commit_time_us: Option<i64>,
    source_transactions: u64,
    is_wanted: bool,
    committed: watch::Sender<u64>,
}

/// A lake commit that was made.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) number: u64,
    pub(crate) committed_lsn: Lsn,
    pub(crate) changes: u64,
    pub(crate) rows_written: u64,
    /// Oids of the tables that changed in it.
    pub(crate) tables: Vec<u32>,
    /// Tables that it had to leave as they were, and that must be copied afresh.
    pub(crate) stale: BTreeMap<u32, Behind>,
}

impl Window {
    /// The first window after P.
    pub(crate) fn first(committed_lsn: Lsn, commit_interval: Duration) -> Self {
        Self::new(1, committed_lsn, Rhythm::new(commit_interval), watch::Sender::new(0))
    }

    /// The window after this one, empty.
    pub(crate) fn next(&self) -> Self {
        Self::new(self.number + 1, self.end_lsn, self.rhythm.next(), self.committed.clone())
    }

    fn new(number: u64, end_lsn: Lsn, rhythm: Rhythm, committed: watch::Sender<u64>) -> Self {
        Self {
            number,
            opened: None,
            rhythm,
            is_idle: false,
            segments: Vec::new(),
            evolutions: Vec::new(),
            adopted: Vec::new(),
            behind: BTreeMap::new(),
            end_lsn,
            commit_time_us: None,
            source_transactions: 0,
            is_wanted: false,
            committed,
        }
    }

    /// Adds a source transaction that is complete.
    pub(crate) fn add(&mut self, end: &TransactionEnd) {
        self.end_lsn = self.end_lsn.max(end.end_lsn);
        self.source_transactions += 1;
        self.rhythm.note(end);
        if end.is_wanted {
            self.is_wanted = true;
            self.commit_time_us = Some(end.commit_time_us);
            self.opened.get_or_insert_with(Instant::now);
        }
    }

    /// Makes an idle position the end of an empty window (case 10).
    pub(crate) fn idle(&mut self, wal_end: Lsn) {
        self.end_lsn = self.end_lsn.max(wal_end);
        self.is_wanted = true;
        self.is_idle = true;
    }

    /// From now on windows are due at once.
    pub(crate) fn hurry(&mut self) {
        self.rhythm.hurry();
    }

    /// Whether there is something to commit.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether nothing of consequence has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_wanted && self.segments.is_empty()
    }

    /// Whether it brings a table a new shape.
    pub(crate) fn is_reshaping(&self) -> bool {
        !self.evolutions.is_empty()
    }

    /// Whether it is time for its lake commit.
    pub(crate) fn is_due(&self) -> bool {
        self.due_at().is_none_or(|due| due <= Instant::now())
    }

    /// Returns when it is time.
    pub(crate) async fn due(&self) {
        if let Some(due) = self.due_at() {
            tokio::time::sleep_until(due).await;
        }
    }

    /// `None`: at once.
    fn due_at(&self) -> Option<Instant> {
        let opened = self.opened.filter(|_| !self.is_idle)?;
        Some(self.rhythm.due_at(opened, self.segments.len()))
    }

    /// Closes the intake's segment and starts writing it.
    pub(crate) fn seal(&mut self, intake: &mut Intake, tables: &Tables, writers: &Writers) {
        let Some(segment) = intake.take_segment() else { return };
        let segments = self.segments.iter().map(|ticket| ticket.seen.clone()).collect();
        let past = Past { segments, ..self.past() };
        self.segments.push(writers.write(segment, tables.targets(), past));
    }

    /// From the next segment on a table has another shape.
    pub(crate) fn evolve(
        &mut self,
        change: Evolution,
        tables: &mut Tables,
        intake: &mut Intake,
    ) -> Result<()> {
        tables.apply(&change, intake)?;
        self.evolutions.push(change);
        Ok(())
    }

    /// Where it ends, as far as it has come.
    pub(crate) fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// What came before it.
    pub(crate) fn past(&self) -> Past {
        let segments = Vec::new();
        Past { committed: self.committed.subscribe(), window: self.number, segments }
    }

    /// Tables that come back here, and those that are left as they are.
    pub(crate) fn refreshed(&mut self, adopted: Vec<Adopted>, behind: BTreeMap<u32, Behind>) {
        (self.adopted, self.behind) = (adopted, behind);
    }

    /// Tells those who wait for older rows that window `number` is in the lake.
    pub(crate) fn previous_committed(&self, number: u64) {
        self.committed.send_replace(number);
    }
}

/// Makes the lake commit of `window`, which holds all source transactions after `base`.
pub(crate) async fn commit_window(
    lake: Arc<Lake>,
    mut window: Window,
    tables: Arc<HashMap<u32, TableState>>,
    (base, position): (Lsn, Position),
) -> Result<Committed> {
    let mut gathered = AllGathered::default();
    for ticket in std::mem::take(&mut window.segments) {
        let written = ticket.task.await.map_err(broken_off)??;
        gathered.add(&written);
    }
    gathered.leave_out(&window);
    for adopted in std::mem::take(&mut window.adopted) {
        gathered.adopt(adopted).await?;
    }
    crate::ops::crash_point("files_written");
    let files_written = Instant::now();
    let AllGathered { per_table, lacking, changes, rows_written } = gathered;
    if let Some(error) = lacking.values().next() {
        return Err(error.again());
    }
    let oids: Vec<u32> = per_table.keys().copied().collect();
    let found = per_table.into_iter().filter_map(|(oid, files)| Some((tables.get(&oid)?, files)));
    let found: Vec<_> = found.collect();
    let rows = found.iter().map(|(table, files)| (table.target.relation.display(), files.rows()));
    let rows = rows.collect();
    let changed = found.into_iter().map(|(t, files)| files.into_change(&lake, t, window.end_lsn));
    let changed: Vec<_> = changed.collect();
    let changed = futures::stream::iter(changed).buffered(TABLES_PARALLEL);
    let changed: Vec<Changed> = changed.try_collect().await?;
    let (mut changes_of_tables, mut stale) = (Vec::new(), BTreeMap::new());
    for one in changed {
        match one {
            Changed::By(change) => changes_of_tables.push(*change),
            Changed::Stale { oid, table, cause } => {
                stale.insert(oid, Behind { table, position: base, cause });
            }
        }
    }
    let mut ledger = ledger_record(&lake, position, window.end_lsn, PipelineState::Streaming);
    ledger.source_commit_time = window.commit_time_us.map(crate::ops::rfc3339);
    ledger.source_transactions = window.source_transactions;
    ledger.rows = rows;
    ledger.behind = window.behind;
    ledger.behind.extend(stale.clone());
    let lake_commit = LakeCommit { ledger, base: Some(base), changes: changes_of_tables };
    let committed_lsn = lake.committer.commit(&lake_commit).await?;
    say_committed(&lake_commit, window.commit_time_us, files_written);
    let (number, tables) = (window.number, oids);
    Ok(Committed { number, committed_lsn, changes, rows_written, tables, stale })
}

/// A line for each lake commit, with its own target so that it can be asked for alone; the bench
/// reads it (`bench/`).
fn say_committed(done: &LakeCommit, source_commit_time_us: Option<i64>, files_written: Instant) {
    let took_us = u64::try_from(files_written.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(
        target: "frazil::lake_commit",
        position = %done.ledger.committed_lsn,
        tables = done.changes.len(),
        source_transactions = done.ledger.source_transactions,
        took_us,
        committed_at_us = crate::ops::now_us(),
        source_commit_time_us,
        "lake commit"
    );
}

/// What becomes of a table in this lake commit.
enum Changed {
    By(Box<TableChange>),
    /// It stays as it is: it has to be copied afresh.
    Stale {
        oid: u32,
        table: String,
        cause: String,
    },
}

fn broken_off(panic: tokio::task::JoinError) -> Error {
    Error::fatal("WRITER", "a segment's writer broke off").with_source(panic)
}

/// What all tables get in this lake commit.
#[derive(Debug, Default)]
struct AllGathered {
    per_table: HashMap<u32, Gathered>,
    /// What could not be written for want of an older row.
    lacking: HashMap<u32, Arc<Error>>,
    changes: u64,
    rows_written: u64,
}

impl AllGathered {
    fn add(&mut self, written: &Written) {
        for (&oid, table) in written.iter() {
            if let Some(error) = &table.lacks {
                self.lacking.insert(oid, Arc::clone(error));
            }
            self.changes += table.changes;
            self.rows_written += table.files.rows_inserted;
            self.per_table.entry(oid).or_default().add(table.files.clone(), table.truncated);
        }
    }

    /// Tables that are behind get nothing, the others the shapes they have now.
    fn leave_out(&mut self, window: &Window) {
        self.per_table.retain(|oid, _| !window.behind.contains_key(oid));
        self.lacking.retain(|oid, _| !window.behind.contains_key(oid));
        for evolution in &window.evolutions {
            if !window.behind.contains_key(&evolution.oid) {
                self.per_table.entry(evolution.oid).or_default().evolve(evolution);
            }
        }
    }

    /// A table comes back: what the window had of it before counts no longer.
    async fn adopt(&mut self, adopted: Adopted) -> Result<()> {
        let files = adopted.files.await.map_err(broken_off)??;
        self.lacking.remove(&adopted.oid);
        self.per_table.insert(adopted.oid, Gathered::adopted(adopted.go_on));
        for written in &files {
            self.add(written);
        }
        crate::ops::crash_point("refresh_adopted");
        Ok(())
    }
}

/// A ledger record without rows.
pub(crate) fn ledger_record(
    lake: &Lake,
    position: Position,
    committed_lsn: Lsn,
    state: PipelineState,
) -> LedgerRecord {
    LedgerRecord {
        pipeline_id: lake.pipeline_id.clone(),
        committed_lsn,
        timeline: position.timeline,
        system_id: position.system_id,
        source_commit_time: None,
        source_transactions: 0,
        rows: BTreeMap::default(),
        lake_commit: uuid::Uuid::now_v7(),
        state,
        slot: lake.pipeline_id.clone(),
        behind: BTreeMap::default(),
    }
}

/// What one table gets in this lake commit.
#[derive(Debug)]
struct Gathered {
    segments: Vec<SegmentFiles>,
    truncated: bool,
    is_evolved: bool,
    /// New columns by field id, each with the value that older rows have.
    constants: Vec<(i32, ArrayRef)>,
    /// How the lake table goes on; `None` where it is born.
    go_on: Option<GoOn>,
    /// What the table was before each of its shapes within the window.
    shapes: Vec<Relation>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self::adopted(Some(GoOn::Keep))
    }
}

impl Gathered {
    fn adopted(go_on: Option<GoOn>) -> Self {
        let (segments, constants, shapes) = (Vec::new(), Vec::new(), Vec::new());
        Self { segments, truncated: false, is_evolved: false, constants, go_on, shapes }
    }

    fn add(&mut self, files: SegmentFiles, truncated: bool) {
        if truncated {
            self.segments.clear();
            self.truncated = true;
        }
        self.segments.push(files);
    }

    fn evolve(&mut self, evolution: &Evolution) {
        self.is_evolved = true;
        self.constants.extend(evolution.constants.iter().cloned());
        self.shapes.push(evolution.before.clone());
    }

    fn rows(&self) -> u64 {
        self.segments.iter().map(|files| files.rows_inserted + files.rows_deleted).sum()
    }

    async fn into_change(
        mut self,
        lake: &Lake,
        table: &TableState,
        end_lsn: Lsn,
    ) -> Result<Changed> {
        let has_raw = self.segments.iter().any(|files| files.has_raw);
        let (ident, relation) = (&table.target.ident, &table.target.relation);
        let Some(go_on) = self.go_on else {
            return self.into_new(lake, table, end_lsn).map(|new| Changed::By(Box::new(new)));
        };
        let current = patient_base(lake.committer.as_ref(), ident).await?.ok_or_else(|| {
            Error::fatal("LAKE_REWOUND", "the lake table is gone")
                .with_table(relation.display())
                .with_cure("restore it, or start a new lake (frazil drop, then frazil run)")
        })?;
        let before = current.metadata().current_schema();
        let may_have_raw = has_raw || before.field_by_id(schema::RAW_FIELD_ID).is_some();
        if go_on == GoOn::Keep
            && may_have_raw
            && let Some(column) = self.moved_name(before, relation)
        {
            let cause = format!("`_pg_raw` has texts under the name {column}, which moved");
            return Ok(Changed::Stale { oid: relation.oid, table: relation.display(), cause });
        }
        let schema = schema::evolve(before, relation, has_raw, go_on)?;
        let rewritten = match &schema {
            Some(schema) => self.backfill(lake, &current, table, schema).await?,
            None => Vec::new(),
        };
        let mut delta = RowDelta {
            segments: self.segments,
            truncate: self.truncated,
            schema,
            rewritten,
            ..RowDelta::default()
        };
        delta.summary.insert(POSITION_KEY.to_owned(), end_lsn.to_string());
        if self.is_evolved || table.facts_changed || go_on != GoOn::Keep {
            delta.properties.insert(FACTS_KEY.to_owned(), table.facts.to_json()?);
            delta.properties.insert(OID_KEY.to_owned(), relation.oid.to_string());
        }
        let change = TableChange { ident: ident.clone(), create: None, delta };
        Ok(Changed::By(Box::new(change)))
    }

    /// A column whose texts in `_pg_raw`, in the lake or of this window, another one would get.
    fn moved_name(&self, current: &Schema, relation: &Relation) -> Option<String> {
        let within = || self.shapes.iter().find_map(|s| schema::moved_name_since(s, relation));
        schema::moved_name(current, relation).or_else(within)
    }

    /// A table that is born here.
    fn into_new(self, lake: &Lake, table: &TableState, end_lsn: Lsn) -> Result<TableChange> {
        let has_raw = self.segments.iter().any(|files| files.has_raw);
        let mut create = NewTable::for_relation(&table.target.relation, has_raw)?;
        create.properties.insert(FACTS_KEY.to_owned(), table.facts.to_json()?);
        create.properties.insert(PIPELINE_KEY.to_owned(), lake.pipeline_id.clone());
        let summary = HashMap::from([(POSITION_KEY.to_owned(), end_lsn.to_string())]);
        let delta = RowDelta { segments: self.segments, summary, ..RowDelta::default() };
        Ok(TableChange { ident: table.target.ident.clone(), create: Some(create), delta })
    }

    /// Older rows get the constant of a column that was added with a default (case 91): those of
    /// the lake, and those that this window wrote before the column was there.
    async fn backfill(
        &mut self,
        lake: &Lake,
        current: &Table,
        table: &TableState,
        schema: &Schema,
    ) -> Result<Vec<Rewritten>> {
        if self.constants.is_empty() {
            return Ok(Vec::new());
        }
        let (storage, location) = (&lake.storage, table.target.location.as_str());
        let fill = async |files: &[(DataFile, i64)]| {
            rewrite::backfill(storage, location, schema, files, &self.constants).await
        };
        for segment in &mut self.segments {
            let files: Vec<_> = segment.data.iter().map(|file| (file.clone(), 0)).collect();
            for new in fill(&files).await? {
                for file in segment.data.iter_mut().filter(|f| f.file_path() == new.old_path) {
                    *file = new.file.clone();
                }
            }
        }
        match self.truncated {
            true => Ok(Vec::new()),
            false => fill(&read::live_data_files(current).await?).await,
        }
    }
}
