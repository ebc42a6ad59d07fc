//! What every committer does before it asks its catalog: look whether the ledger stands where the
//! lake commit begins (the fence), and stage all tables and, last, the ledger on what stands there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{Runtime, TableIdent};
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::committer::bases::Bases;
use crate::iceberg::committer::{Committer, LakeCommit, TableChange};
use crate::iceberg::history::Keep;
use crate::iceberg::ledger::{
    LAKE_COMMIT_KEY, LedgerRecord, LeftTables, PIPELINE_KEY, check_format_version, is_or_repairs,
    ledger_ident, new_ledger,
};
use crate::iceberg::row_delta::{RowDelta, Staged};
use crate::iceberg::storage::LakeStorage;
use crate::iceberg::{FORMAT_VERSION_KEY, LAKE_FORMAT_VERSION, POSITION_KEY, lake_error};
use crate::progress::Lsn;

/// Tables that are loaded, staged or written at the same time.
pub(super) const STAGE_PARALLEL: usize = 16;

/// How often a lake commit is staged again because tables moved, before the lake counts as too
/// busy.
const MOVED_MAX: u32 = 8;

/// The longest pause before staging again; the real one is random.
const PAUSE_MAX_MS: u64 = 200;

/// How long a lake commit of unknown outcome is settled and tried again before the pipeline begins
/// again from P. The source stays connected meanwhile (case 152).
const PATIENCE: Duration = Duration::from_secs(600);

/// The longest pause while a catalog is in trouble.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// How one try at a lake commit ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is in the lake.
    Done,
    /// It is not: a table moved meanwhile.
    Moved,
    /// Nobody knows (an answer was lost, the server broke off), or the catalog cannot be asked. The
    /// next try asks the ledger first. With the pause that the catalog wishes for.
    Unknown(Error, Option<Duration>),
}

/// The tries at one lake commit: how many there were, and how long until the next one.
pub(super) struct Tries {
    began: Instant,
    moved: u32,
    trouble: u32,
}

impl Tries {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), moved: 0, trouble: 0 }
    }

    /// Whether the lake commit is made. Where it is not, or not known to be, this returns when it
    /// is time for another try.
    ///
    /// # Errors
    /// `LAKE_CONFLICT` (conflict) after too many tries; the trouble itself after [`PATIENCE`].
    pub(super) async fn is_made(&mut self, outcome: Outcome) -> Result<bool> {
        match outcome {
            Outcome::Done => return Ok(true),
            Outcome::Moved => {
                self.moved += 1;
                if self.moved >= MOVED_MAX {
                    let what = "other writers moved the tables again and again";
                    return Err(Error::conflict("LAKE_CONFLICT", what)
                        .with_cure("stop what else writes into these tables"));
                }
                tokio::time::sleep(Duration::from_millis(random() % PAUSE_MAX_MS)).await;
            }
            Outcome::Unknown(error, wished) => {
                if self.began.elapsed() >= PATIENCE {
                    return Err(error);
                }
                let pause = wished.unwrap_or_else(|| trouble_pause(self.trouble));
                tracing::warn!(code = error.code(), retry_in = ?pause, "{error}");
                self.trouble += 1;
                tokio::time::sleep(pause).await;
            }
        }
        Ok(false)
    }
}

/// The base of a table, with the patience that a lake commit has for a catalog that does not
/// answer: what goes before the commit itself must not cost the connection to the source either
/// (case 152).
///
/// # Errors
/// As [`Committer::base`].
pub(crate) async fn patient_base(
    committer: &dyn Committer,
    ident: &TableIdent,
) -> Result<Option<Table>> {
    let mut tries = Tries::begin();
    loop {
        match committer.base(ident).await {
            Err(error) if matches!(error.code(), "CATALOG_DOWN" | "CATALOG_AUTH") => {
                tries.is_made(Outcome::Unknown(error, None)).await?;
            }
            decided => return decided,
        }
    }
}

/// 100 ms doubled `times`, at most [`TROUBLE_PAUSE_MAX`], of which a random half.
fn trouble_pause(times: u32) -> Duration {
    let longest = Duration::from_millis(100) * 2_u32.pow(times.min(10));
    let half = longest.min(TROUBLE_PAUSE_MAX) / 2;
    let millis = u64::try_from(half.as_millis()).unwrap_or(1).max(1);
    half + Duration::from_millis(random() % millis)
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

/// See the module.
pub(super) struct Staging {
    pub(super) storage: LakeStorage,
    pub(super) ledger: TableIdent,
    /// Older iceberg_snapshots are not ours to remove.
    pub(super) keeps_all: bool,
    pub(super) bases: Bases,
    /// Tables may be ahead of the ledger: the catalog commits them one by one.
    torn: AtomicBool,
    /// The lake commit that this process saw last: the fence where P alone does not move.
    seen: Mutex<Option<Uuid>>,
    /// Lake commits of this process whose outcome was not known when it gave them up.
    unsettled: Mutex<HashSet<Uuid>>,
    /// Held while a lake commit is made: there is one at a time.
    pub(super) one_at_a_time: tokio::sync::Mutex<()>,
}

impl Staging {
    pub(super) fn new(storage: LakeStorage, pipeline_id: &str) -> Self {
        Self {
            storage,
            ledger: ledger_ident(pipeline_id),
            keeps_all: false,
            bases: Bases::default(),
            torn: AtomicBool::new(false),
            seen: Mutex::default(),
            unsettled: Mutex::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the catalog commits tables one by one.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.load(Ordering::Relaxed)
    }

    /// From here on tables are committed one by one.
    pub(super) fn tear(&self) {
        self.torn.store(true, Ordering::Relaxed);
    }

    /// As [`build_table`], with this storage.
    pub(super) fn build_table(
        &self,
        ident: TableIdent,
        location: Option<String>,
        metadata: TableMetadata,
    ) -> Result<Table> {
        build_table(&self.storage, ident, location, metadata)
    }

    /// The ledger's record. Who asks goes on from here, like a process that starts: what others did
    /// before is theirs.
    pub(super) fn position(&self, ledger: Option<&Table>) -> Result<Option<LedgerRecord>> {
        let Some(record) = record_of(ledger)? else { return Ok(None) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.replace(record.lake_commit);
        if last.is_some_and(|last| last != record.lake_commit) {
            self.bases.forget_all();
        }
        Ok(Some(record))
    }

    /// Whether the ledger still stands where this lake commit begins. `true` if it holds this very
    /// lake commit: an earlier try whose answer was lost.
    pub(super) fn fence(&self, ledger: Option<&Table>, lake_commit: &LakeCommit) -> Result<bool> {
        let record = record_of(ledger)?;
        if record.as_ref().is_some_and(|r| r.lake_commit == lake_commit.ledger.lake_commit) {
            self.saw(lake_commit);
            return Ok(true);
        }
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = record.as_ref().map(|r| r.committed_lsn);
        let is_known = |r: &LedgerRecord| seen.is_none_or(|s| is_or_repairs(r.lake_commit, s));
        let strange = match &record {
            Some(record) => !is_known(record),
            None => seen.is_some(),
        };
        if at != lake_commit.base || strange {
            return Err(self.moved(record.as_ref(), lake_commit.base));
        }
        let next = lake_commit.ledger.committed_lsn;
        if at.is_some_and(|at| next < at) {
            return Err(Error::fatal("POSITION_ORDER", format!("P would go back to {next}")));
        }
        Ok(false)
    }

    fn moved(&self, record: Option<&LedgerRecord>, base: Option<Lsn>) -> Error {
        let unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = record.filter(|r| unsettled.contains(&r.lake_commit)) {
            let what = "a lake commit of ours that was given up is in the lake after all";
            return Error::transient("POSITION_MOVED", what).with_lsn(record.committed_lsn);
        }
        let shown = |lsn: Option<Lsn>| lsn.map_or("nothing".to_owned(), |l| l.to_string());
        let what = format!(
            "the ledger stands at {} and not at {}, where this lake commit begins",
            shown(record.map(|r| r.committed_lsn)),
            shown(base)
        );
        Error::fatal("ANOTHER_WRITER", what)
            .with_table(&self.ledger)
            .with_cure("end the other frazil that writes into this lake; then start this one again")
    }

    /// The lake commit is made.
    pub(super) fn saw(&self, lake_commit: &LakeCommit) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(lake_commit.ledger.lake_commit);
    }

    /// The lake commit may be made later than we know.
    pub(super) fn unsettled(&self, lake_commit: &LakeCommit) {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        unsettled.insert(lake_commit.ledger.lake_commit);
    }

    /// Stages all changed tables and, last, the ledger.
    pub(super) async fn stage(
        &self,
        catalog: &dyn Committer,
        ledger: Option<Table>,
        lake_commit: &LakeCommit,
    ) -> Result<Vec<Staged>> {
        let mut left = LeftTables::from_ledger(ledger.as_ref())?;
        let changed =
            lake_commit.changes.iter().filter(|c| c.create.is_some() || !c.delta.is_empty());
        let jobs = changed.map(|c| self.stage_change(catalog, c, &left, &lake_commit.ledger));
        let jobs: Vec<_> = jobs.collect();
        let done: Vec<Result<Changed>> =
            futures::stream::iter(jobs).buffered(STAGE_PARALLEL).collect().await;
        let (mut staged, mut failed) = (Vec::new(), None);
        for one in done {
            match one {
                Ok(Changed { ident, uuid, staged: one }) => {
                    left.set(&ident, uuid, lake_commit.ledger.committed_lsn);
                    staged.extend(one);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let last = match failed {
            Some(error) => Err(error),
            None => self.stage_ledger(catalog, ledger, &left, &lake_commit.ledger).await,
        };
        match last {
            Ok(last) => staged.push(last),
            Err(error) => {
                self.discard(&staged).await;
                return Err(error);
            }
        }
        Ok(staged)
    }

    async fn stage_change(
        &self,
        catalog: &dyn Committer,
        change: &TableChange,
        left: &LeftTables,
        record: &LedgerRecord,
    ) -> Result<Changed> {
        let ident = change.ident.clone();
        let found = catalog.base(&ident).await?;
        if let Some(table) = found.as_ref().filter(|t| has_lake_commit(t, record)) {
            return Ok(Changed { ident, uuid: table.metadata().uuid(), staged: None });
        }
        let mut delta = change.delta.clone();
        let table = match (&change.create, found) {
            (None, Some(table)) => {
                self.check_not_rewound(&table, left)?;
                table
            }
            (Some(new), None) => {
                let metadata = new.metadata(&catalog.birthplace(&ident, new).await?)?;
                self.build_table(ident.clone(), None, metadata)?
            }
            (Some(new), Some(table)) if self.is_half_born(&table, record) => {
                delta.truncate = true;
                delta.schema = Some(new.schema.clone());
                delta.properties.extend(new.properties.clone());
                table
            }
            (None, None) => return Err(rewound(&ident, "is not in the lake any more")),
            (Some(_), Some(_)) => {
                let what = "the lake has a table of this name already";
                return Err(Error::table("TABLE_EXISTS", &ident, what)
                    .with_cure("drop it from the lake, or choose another folder with `--into`"));
            }
        };
        let mark = marks(self.position_after(&table, record));
        delta.properties.extend(mark.clone());
        delta.summary.extend(mark);
        let lake_commit = (LAKE_COMMIT_KEY.to_owned(), record.lake_commit.to_string());
        if self.is_torn() {
            // What others commit on top leaves the properties as they are.
            delta.properties.extend([lake_commit.clone()]);
        }
        delta.summary.extend([lake_commit]);
        let staged = delta.stage_keeping(&table, self.keep(&table)).await;
        let staged = staged.map_err(|e| e.with_table(&ident))?;
        Ok(Changed { ident, uuid: table.metadata().uuid(), staged: Some(staged) })
    }

    /// The position of a table once the lake commit is made. One that is ahead of the ledger stays
    /// there: it holds what comes until then.
    fn position_after(&self, table: &Table, record: &LedgerRecord) -> Lsn {
        let text = table.metadata().properties().get(POSITION_KEY).filter(|_| self.is_torn());
        let ahead = text.and_then(|text| text.parse().ok());
        record.committed_lsn.max(ahead.unwrap_or_default())
    }

    /// Whether this table is ours to fill: made empty for this lake commit, in a catalog that makes
    /// no tables within a transaction; or filled by a first lake commit that broke off behind it,
    /// in one that commits tables one by one.
    fn is_half_born(&self, table: &Table, record: &LedgerRecord) -> bool {
        is_half_born(table, &record.pipeline_id, self.is_torn())
    }

    async fn stage_ledger(
        &self,
        catalog: &dyn Committer,
        ledger: Option<Table>,
        left: &LeftTables,
        record: &LedgerRecord,
    ) -> Result<Staged> {
        let summary = record.to_properties();
        let mut properties = summary.clone();
        properties.extend([left.to_property()]);
        let delta = RowDelta { properties, summary, ..RowDelta::default() };
        let table = match ledger {
            Some(table) => table,
            None => {
                let new = new_ledger()?;
                let metadata = new.metadata(&catalog.birthplace(&self.ledger, &new).await?)?;
                self.build_table(self.ledger.clone(), None, metadata)?
            }
        };
        delta.stage_keeping(&table, self.keep(&table)).await
    }

    fn keep(&self, table: &Table) -> Keep {
        if self.keeps_all { Keep::All } else { Keep::of(table.metadata()) }
    }

    /// Deletes the manifests of a try that nothing will ever refer to.
    pub(super) async fn discard(&self, staged: &[Staged]) {
        for one in staged {
            self.storage.delete_unreferenced(&one.new_files).await;
        }
    }

    /// Whether a table is what frazil left, or a later version of it (case 158). Where tables are
    /// committed one by one, one may be ahead of the ledger. A catalog may keep the current
    /// iceberg_snapshot only: what it does not show is not looked at.
    fn check_not_rewound(&self, table: &Table, left: &LeftTables) -> Result<()> {
        let (metadata, ident) = (table.metadata(), table.identifier());
        check_format_version(metadata.properties()).map_err(|e| e.with_table(ident))?;
        let Some(left) = left.get(ident) else { return Ok(()) };
        if metadata.uuid() != left.uuid {
            return Err(rewound(ident, "was replaced by another one"));
        }
        let is_left = |text: &String| match text.parse::<Lsn>() {
            Ok(at) if self.is_torn() => at >= left.position,
            Ok(at) => at == left.position,
            Err(_) => false,
        };
        if !metadata.properties().get(POSITION_KEY).is_some_and(is_left) {
            return Err(rewound(ident, "is an older version of itself"));
        }
        let mut snapshot = metadata.current_snapshot();
        while let Some(at) = snapshot {
            if let Some(text) = at.summary().additional_properties.get(POSITION_KEY) {
                return match is_left(text) {
                    true => Ok(()),
                    false => Err(rewound(ident, "was rolled back to an older snapshot")),
                };
            }
            snapshot = at.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
        }
        Ok(())
    }
}

/// See [`Staging::is_half_born`].
pub(crate) fn is_half_born(table: &Table, pipeline_id: &str, is_torn: bool) -> bool {
    let metadata = table.metadata();
    let is_ours = metadata.properties().get(PIPELINE_KEY).is_some_and(|id| id == pipeline_id);
    is_ours && (is_torn || metadata.current_snapshot().is_none())
}

/// What the ledger says; nothing while it was only made.
fn record_of(ledger: Option<&Table>) -> Result<Option<LedgerRecord>> {
    let written = ledger.filter(|ledger| ledger.metadata().current_snapshot().is_some());
    written.map(|t| LedgerRecord::from_properties(t.metadata().properties())).transpose()
}

/// A table of the crate's, without location if it is not in the catalog yet.
pub(super) fn build_table(
    storage: &LakeStorage,
    ident: TableIdent,
    location: Option<String>,
    metadata: TableMetadata,
) -> Result<Table> {
    let runtime = Runtime::try_current().map_err(|e| lake_error("no runtime", e))?;
    let builder = Table::builder()
        .file_io(storage.file_io())
        .identifier(ident)
        .metadata(Arc::new(metadata))
        .runtime(runtime)
        .disable_cache();
    let builder = match location {
        Some(location) => builder.metadata_location(location),
        None => builder,
    };
    builder.build().map_err(|e| lake_error("a table could not be made", e))
}

/// A table that a lake commit changes.
struct Changed {
    ident: TableIdent,
    uuid: Uuid,
    /// `None` where it has the lake commit already, from a try that broke off behind it.
    staged: Option<Staged>,
}

fn has_lake_commit(table: &Table, record: &LedgerRecord) -> bool {
    let snapshot = table.metadata().current_snapshot();
    let of_snapshot = snapshot.and_then(|s| s.summary().additional_properties.get(LAKE_COMMIT_KEY));
    let of_table = table.metadata().properties().get(LAKE_COMMIT_KEY);
    let mut made = of_snapshot.into_iter().chain(of_table);
    made.any(|made| *made == record.lake_commit.to_string())
}

/// What every table touched by a lake commit says of it.
fn marks(position: Lsn) -> HashMap<String, String> {
    HashMap::from([
        (FORMAT_VERSION_KEY.to_owned(), LAKE_FORMAT_VERSION.to_string()),
        (POSITION_KEY.to_owned(), position.to_string()),
    ])
}

fn rewound(ident: &TableIdent, what: &str) -> Error {
    Error::fatal("LAKE_REWOUND", format!("the lake's table {what}"))
        .with_table(ident)
        .with_cure("was it dropped, replaced or rolled back? bring it back, or copy it afresh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        for (times, least, most) in [(0, 50, 100), (3, 400, 800), (40, 5_000, 10_000)] {
            let pause = trouble_pause(times).as_millis();
            assert!((least..=most).contains(&pause), "{times}: {pause}");
        }
    }
}
