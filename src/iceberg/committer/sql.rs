//! The embedded default: a SQLite catalog in the lake's folder.
//!
//! ```text
//! fence (ledger's P and uuid) ─► stage all tables ─► metadata files ─► fsync ─► ONE SQL transaction
//!        ▲                                                                          │ a pointer
//!        moved
//!        └──────────────── jitter, reload, stage again ◄────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{MetadataLocation, Runtime, TableIdent};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::committer::catalog_db::{CatalogDb, Move, Swap};
use crate::iceberg::committer::{Committer, LakeCommit, TableChange};
use crate::iceberg::ledger::{
    LAKE_COMMIT_KEY, LEDGER_SNAPSHOTS_MAX, LedgerRecord, LeftTables, check_format_version,
    ledger_ident, new_ledger,
};
use crate::iceberg::row_delta::{RowDelta, Staged};
use crate::iceberg::storage::LakeStorage;
use crate::iceberg::{FORMAT_VERSION_KEY, LAKE_FORMAT_VERSION, POSITION_KEY, lake_error};
use crate::progress::Lsn;

/// Tables that are staged at the same time.
const STAGE_PARALLEL: usize = 8;

/// How often a lake commit is staged before the lake counts as too busy.
const ATTEMPTS_MAX: u32 = 8;

/// The longest pause before staging again; the real one is random.
const PAUSE_MAX_MS: u64 = 200;

/// The SQL catalog `frazil` in `<folder>/catalog.db`.
pub struct SqlCommitter {
    storage: LakeStorage,
    db: CatalogDb,
    ledger: TableIdent,
    ledger_snapshots_max: usize,
    cache: Mutex<HashMap<TableIdent, Table>>,
    /// The lake commit that this process saw last: the fence where P alone does not move.
    seen: Mutex<Option<Uuid>>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

/// A staged table with the metadata file that will be current.
struct Ready {
    staged: Staged,
    metadata: TableMetadata,
    location: MetadataLocation,
    expired: Vec<String>,
}

impl SqlCommitter {
    /// Opens the catalog, and makes folder, database and tables where they are missing.
    ///
    /// # Errors
    /// `LAKE_FOLDER`, `CATALOG_FILE` (config), `CATALOG_BUSY` (transient), `CATALOG_CORRUPT`
    /// (fatal).
    pub async fn open(folder: &Path, pipeline_id: &str) -> Result<Self> {
        let folder = folder.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let storage = LakeStorage::local(&folder)?;
            Ok((storage, CatalogDb::open(&folder.join("catalog.db"))?))
        });
        let (storage, db) = opened.await.unwrap_or_else(|e| {
            Err(Error::fatal("CATALOG_IO", "the catalog's thread died").with_source(e))
        })?;
        Ok(Self {
            storage,
            db,
            ledger: ledger_ident(pipeline_id),
            ledger_snapshots_max: LEDGER_SNAPSHOTS_MAX,
            cache: Mutex::default(),
            seen: Mutex::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        })
    }

    /// The storage that holds the tables' files.
    pub fn storage(&self) -> &LakeStorage {
        &self.storage
    }

    /// The name of the ledger's table.
    pub fn ledger(&self) -> &TableIdent {
        &self.ledger
    }

    /// All tables in one state of the catalog: no lake commit lies between any two of them.
    ///
    /// # Errors
    /// `LAKE_IO`, `CATALOG_BUSY` (transient).
    pub async fn pinned(&self) -> Result<Vec<Table>> {
        let found = self.db.tables().await?.into_iter();
        let loads = found.map(|(ident, location)| self.load(ident, location));
        futures::stream::iter(loads).buffered(STAGE_PARALLEL).try_collect().await
    }

    async fn load(&self, ident: TableIdent, location: String) -> Result<Table> {
        let cached = self.cached(&ident).filter(|t| t.metadata_location() == Some(&location));
        if let Some(table) = cached {
            return Ok(table);
        }
        let read = TableMetadata::read_from(&self.storage.file_io(), &location).await;
        let metadata = read.map_err(|e| {
            lake_error("a table's metadata file could not be read", e).with_table(&ident)
        })?;
        let table = self.build_table(ident.clone(), Some(location), metadata)?;
        self.remember(ident, table.clone());
        Ok(table)
    }

    fn cached(&self, ident: &TableIdent) -> Option<Table> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(ident).cloned()
    }

    fn remember(&self, ident: TableIdent, table: Table) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(ident, table);
    }

    fn build_table(
        &self,
        ident: TableIdent,
        location: Option<String>,
        metadata: TableMetadata,
    ) -> Result<Table> {
        let runtime = Runtime::try_current().map_err(|e| lake_error("no runtime", e))?;
        let builder = Table::builder()
            .file_io(self.storage.file_io())
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

    /// One try: `None` if a pointer moved meanwhile.
    async fn attempt(&self, lake_commit: &LakeCommit) -> Result<Option<Lsn>> {
        let ledger = self.table(&self.ledger).await?;
        if self.fence(ledger.as_ref(), lake_commit)? {
            return Ok(Some(lake_commit.ledger.committed_lsn));
        }
        let staged = self.stage(ledger, lake_commit).await?;
        crate::ops::crash_point("manifest_written");
        let ready = prepare(staged)?;
        if let Err(error) = self.write_metadata(lake_commit, &ready).await {
            self.discard(&ready).await;
            return Err(error);
        }
        crate::ops::crash_point("before_catalog_commit");
        let moves = ready.iter().map(|r| Move {
            ident: r.staged.ident.clone(),
            old: r.staged.table.metadata_location().map(str::to_owned),
            new: r.location.to_string(),
        });
        match self.db.swap(moves.collect()).await? {
            Swap::Conflict => {
                self.discard(&ready).await;
                Ok(None)
            }
            Swap::Done => {
                crate::ops::crash_point("after_catalog_commit");
                self.settle(lake_commit, ready).await;
                Ok(Some(lake_commit.ledger.committed_lsn))
            }
        }
    }

    /// Whether the ledger still stands where this lake commit begins. `true` if it holds this very
    /// lake commit: an earlier try whose answer was lost.
    fn fence(&self, ledger: Option<&Table>, lake_commit: &LakeCommit) -> Result<bool> {
        let record = ledger.map(|t| LedgerRecord::from_properties(t.metadata().properties()));
        let record = record.transpose()?;
        if record.as_ref().is_some_and(|r| r.lake_commit == lake_commit.ledger.lake_commit) {
            self.saw(lake_commit);
            return Ok(true);
        }
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = record.as_ref().map(|r| r.committed_lsn);
        let strange = seen.is_some() && seen != record.as_ref().map(|r| r.lake_commit);
        if at != lake_commit.base || strange {
            let shown = |lsn: Option<Lsn>| lsn.map_or("nothing".to_owned(), |l| l.to_string());
            let what = format!(
                "the ledger stands at {} and not at {}, where this lake commit begins",
                shown(at),
                shown(lake_commit.base)
            );
            return Err(Error::fatal("ANOTHER_WRITER", what).with_table(&self.ledger).with_cure(
                "end the other frazil that writes into this lake; then start this one again",
            ));
        }
        let next = lake_commit.ledger.committed_lsn;
        if at.is_some_and(|at| next < at) {
            return Err(Error::fatal("POSITION_ORDER", format!("P would go back to {next}")));
        }
        Ok(false)
    }

    /// Stages all changed tables and, last, the ledger.
    async fn stage(&self, ledger: Option<Table>, lake_commit: &LakeCommit) -> Result<Vec<Staged>> {
        let mut left = LeftTables::from_ledger(ledger.as_ref())?;
        let changed =
            lake_commit.changes.iter().filter(|c| c.create.is_some() || !c.delta.is_empty());
        let jobs = changed.map(|c| self.stage_change(c, &left, &lake_commit.ledger));
        let jobs: Vec<_> = jobs.collect();
        let done: Vec<Result<Staged>> =
            futures::stream::iter(jobs).buffered(STAGE_PARALLEL).collect().await;
        let (mut staged, mut failed) = (Vec::new(), None);
        for one in done {
            match one {
                Ok(one) => staged.push(one),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for one in &staged {
            left.set(&one.ident, one.table.metadata().uuid(), lake_commit.ledger.committed_lsn);
        }
        let last = match failed {
            Some(error) => Err(error),
            None => self.stage_ledger(ledger, &left, &lake_commit.ledger).await,
        };
        match last {
            Ok(last) => staged.push(last),
            Err(error) => {
                for one in &staged {
                    self.storage.delete_unreferenced(&one.new_files).await;
                }
                return Err(error);
            }
        }
        Ok(staged)
    }

    async fn stage_change(
        &self,
        change: &TableChange,
        left: &LeftTables,
        record: &LedgerRecord,
    ) -> Result<Staged> {
        let found = self.table(&change.ident).await?;
        let table = match (&change.create, found) {
            (None, Some(table)) => {
                check_not_rewound(&table, left)?;
                table
            }
            (Some(new), None) => {
                let metadata = new.metadata(&self.storage.table_location(&change.ident))?;
                self.build_table(change.ident.clone(), None, metadata)?
            }
            (None, None) => return Err(rewound(&change.ident, "is not in the lake any more")),
            (Some(_), Some(_)) => {
                return Err(Error::table(
                    "TABLE_EXISTS",
                    &change.ident,
                    "the lake has a table of this name already",
                )
                .with_cure("drop it from the lake, or choose another folder with `--into`"));
            }
        };
        let mark = marks(record);
        let mut delta = change.delta.clone();
        delta.properties.extend(mark.clone());
        delta.summary.extend(mark);
        delta.summary.insert(LAKE_COMMIT_KEY.to_owned(), record.lake_commit.to_string());
        delta.stage(&table).await.map_err(|e| e.with_table(&change.ident))
    }

    async fn stage_ledger(
        &self,
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
                let metadata =
                    new_ledger()?.metadata(&self.storage.table_location(&self.ledger))?;
                self.build_table(self.ledger.clone(), None, metadata)?
            }
        };
        delta.stage_keeping(&table, self.ledger_snapshots_max - 1).await
    }

    /// Writes all metadata files, and makes all that they name durable.
    async fn write_metadata(&self, lake_commit: &LakeCommit, ready: &[Ready]) -> Result<()> {
        let jobs = ready.iter().map(|one| async move {
            let io = one.staged.table.file_io();
            let written = one.metadata.write_to(io, &one.location).await;
            written.map_err(|e| {
                let what = "a table's metadata file could not be written";
                lake_error(what, e).with_table(&one.staged.ident)
            })
        });
        let jobs: Vec<_> = jobs.collect();
        let mut jobs = futures::stream::iter(jobs).buffered(STAGE_PARALLEL);
        while let Some(written) = jobs.next().await {
            written?;
        }
        self.sync(lake_commit, ready).await
    }

    /// Everything that the catalog is about to name survives a power loss from here on. Data files
    /// were synced when they were closed, their directories were not.
    async fn sync(&self, lake_commit: &LakeCommit, ready: &[Ready]) -> Result<()> {
        let manifests = ready.iter().flat_map(|r| r.staged.new_files.iter().cloned());
        let metadata = ready.iter().map(|r| r.location.to_string());
        let metadata: Vec<String> = manifests.chain(metadata).collect();
        self.storage.sync_files(&metadata).await?;
        let data = lake_commit.changes.iter().flat_map(|c| c.delta.added_files());
        let data = data.map(|f| f.file_path().to_owned());
        let all: Vec<String> = metadata.iter().cloned().chain(data).collect();
        self.storage.sync_directories(&all).await
    }

    /// After the catalog commit nothing may fail it any more: the cache, and what nobody needs.
    async fn settle(&self, lake_commit: &LakeCommit, ready: Vec<Ready>) {
        self.saw(lake_commit);
        for one in ready {
            let ident = one.staged.ident.clone();
            if let Ok(table) =
                self.build_table(ident.clone(), Some(one.location.to_string()), one.metadata)
            {
                self.remember(ident, table);
            }
            self.storage.delete_unreferenced(&one.expired).await;
            self.storage.delete_unreferenced(&one.staged.obsolete_files).await;
        }
    }

    fn saw(&self, lake_commit: &LakeCommit) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(lake_commit.ledger.lake_commit);
    }

    /// Deletes the metadata of a try that lost: nothing ever referred to it.
    async fn discard(&self, ready: &[Ready]) {
        for one in ready {
            self.storage.delete_unreferenced(&one.staged.new_files).await;
            self.storage.delete_unreferenced(&[one.location.to_string()]).await;
        }
    }
}

/// Applies what was staged; writes nothing.
fn prepare(staged: Vec<Staged>) -> Result<Vec<Ready>> {
    let ready = staged.into_iter().map(|staged| {
        let (metadata, expired) = staged.apply_logged()?;
        let location = next_location(&staged.table, &metadata);
        Ok(Ready { staged, metadata, location, expired })
    });
    ready.collect()
}

/// What every table touched by a lake commit says of it.
fn marks(record: &LedgerRecord) -> HashMap<String, String> {
    HashMap::from([
        (FORMAT_VERSION_KEY.to_owned(), LAKE_FORMAT_VERSION.to_string()),
        (POSITION_KEY.to_owned(), record.committed_lsn.to_string()),
    ])
}

fn next_location(table: &Table, metadata: &TableMetadata) -> MetadataLocation {
    let last = table.metadata_location().and_then(|l| MetadataLocation::from_str(l).ok());
    match last {
        Some(last) => last.with_next_version().with_new_metadata(metadata),
        None => MetadataLocation::new_with_metadata(metadata.location(), metadata),
    }
}

fn rewound(ident: &TableIdent, what: &str) -> Error {
    Error::fatal("LAKE_REWOUND", format!("the lake's table {what}"))
        .with_table(ident)
        .with_cure("was it dropped, replaced or rolled back? bring it back, or copy it afresh")
}

/// Whether a table is what frazil left, or a later version of it (case 158).
fn check_not_rewound(table: &Table, left: &LeftTables) -> Result<()> {
    let metadata = table.metadata();
    check_format_version(metadata.properties()).map_err(|e| e.with_table(table.identifier()))?;
    let Some(left) = left.get(table.identifier()) else { return Ok(()) };
    if metadata.uuid() != left.uuid {
        return Err(rewound(table.identifier(), "was replaced by another one"));
    }
    let position = |text: &String| text.parse::<Lsn>().ok();
    if metadata.properties().get(POSITION_KEY).and_then(position) != Some(left.position) {
        return Err(rewound(table.identifier(), "is an older version of itself"));
    }
    let mut snapshot = metadata.current_snapshot();
    while let Some(at) = snapshot {
        if let Some(text) = at.summary().additional_properties.get(POSITION_KEY) {
            return match position(text) == Some(left.position) {
                true => Ok(()),
                false => Err(rewound(table.identifier(), "was rolled back to an older snapshot")),
            };
        }
        snapshot = at.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
    }
    Ok(())
}

#[async_trait]
impl Committer for SqlCommitter {
    async fn commit(&self, lake_commit: &LakeCommit) -> Result<Lsn> {
        let _one = self.one_at_a_time.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(committed_lsn) = Box::pin(self.attempt(lake_commit)).await? {
                return Ok(committed_lsn);
            }
            let (random, _) = Uuid::new_v4().as_u64_pair();
            tokio::time::sleep(Duration::from_millis(random % PAUSE_MAX_MS)).await;
        }
        Err(Error::conflict("LAKE_CONFLICT", "other writers moved the tables again and again")
            .with_cure("stop what else writes into these tables"))
    }

    async fn position(&self) -> Result<Option<LedgerRecord>> {
        let Some(ledger) = self.table(&self.ledger).await? else { return Ok(None) };
        let record = LedgerRecord::from_properties(ledger.metadata().properties())?;
        // Who asks goes on from here, like a process that starts: what others did before is theirs.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(record.lake_commit);
        Ok(Some(record))
    }

    async fn table(&self, ident: &TableIdent) -> Result<Option<Table>> {
        let found = self.db.locations(vec![ident.clone()]).await?;
        match found.into_iter().flatten().next() {
            Some(location) => self.load(ident.clone(), location).await.map(Some),
            None => Ok(None),
        }
    }

    async fn tables(&self) -> Result<Vec<TableIdent>> {
        Ok(self.db.tables().await?.into_iter().map(|(ident, _)| ident).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::ledger::{PipelineState, history};

    #[tokio::test]
    async fn the_ledger_forgets_its_oldest_entries_and_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut committer = SqlCommitter::open(folder.path(), "p").await.unwrap();
        committer.ledger_snapshots_max = 5;
        for lsn in 1..=120 {
            let ledger = LedgerRecord {
                pipeline_id: "p".into(),
                committed_lsn: Lsn(lsn),
                timeline: 1,
                system_id: "7".into(),
                source_commit_time: None,
                source_transactions: 0,
                rows: Default::default(),
                lake_commit: Uuid::now_v7(),
                state: PipelineState::Streaming,
                slot: "frazil".into(),
            };
            let base = (lsn > 1).then_some(Lsn(lsn - 1));
            committer.commit(&LakeCommit { ledger, base, changes: vec![] }).await.unwrap();
        }
        let table = committer.table(&committer.ledger).await.unwrap().unwrap();
        let kept: Vec<u64> = history(&table).iter().map(|(_, r)| r.committed_lsn.0).collect();
        assert_eq!(kept, [120, 119, 118, 117, 116]);
        let metadata = folder.path().join("frazil/ledger_p/metadata");
        let files = std::fs::read_dir(metadata).unwrap().count();
        assert_eq!(files, 5 + 1 + 100, "manifest lists, the metadata file, and those before it");
    }
}
