//! A SQL catalog: in the lake's folder (SQLite, the embedded default) or in Postgres.
//!
//! ```text
//! fence (ledger's P and uuid) ─► stage all tables ─► metadata files ─► fsync ─► ONE SQL transaction
//!        ▲                                                                          │ a pointer
//!        │                                                                          │ moved
//!        └──────────────── jitter, reload, stage again ◄────────────────────────────┘
//! ```

use std::path::Path;
use std::str::FromStr;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{MetadataLocation, TableIdent};

use crate::error::{Error, Result};
use crate::iceberg::committer::catalog_db::{CatalogDb, Connect, Move, PostgresDb, SqliteDb, Swap};
use crate::iceberg::committer::staging::{Outcome, STAGE_PARALLEL, Staging, Tries};
use crate::iceberg::committer::{Birthplace, Committer, LakeCommit, NewTable, PastCommit};
use crate::iceberg::lake_error;
use crate::iceberg::ledger::{LedgerRecord, history};
use crate::iceberg::row_delta::Staged;
use crate::iceberg::storage::LakeStorage;
use crate::progress::Lsn;

/// The SQL catalog `frazil`.
pub struct SqlCommitter {
    db: CatalogDb,
    staging: Staging,
}

/// A staged table with the metadata file that will be current.
struct Ready {
    staged: Staged,
    metadata: TableMetadata,
    location: MetadataLocation,
    expired: Vec<String>,
}

impl SqlCommitter {
    /// Opens the catalog in `<folder>/catalog.db`, and makes folder, database and tables where they
    /// are missing.
    ///
    /// # Errors
    /// `LAKE_FOLDER`, `CATALOG_FILE` (config), `CATALOG_BUSY` (transient), `CATALOG_CORRUPT`
    /// (fatal).
    pub async fn open(folder: &Path, pipeline_id: &str) -> Result<Self> {
        let folder = folder.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let storage = LakeStorage::local(&folder)?;
            Ok((storage, SqliteDb::open(&folder.join("catalog.db"))?))
        });
        let (storage, db) = opened.await.unwrap_or_else(|e| {
            Err(Error::fatal("CATALOG_IO", "the catalog's thread died").with_source(e))
        })?;
        Ok(Self::new(CatalogDb::Sqlite(db), storage, pipeline_id))
    }

    /// Opens the catalog in the Postgres database that `connect` connects to, and makes its tables
    /// where they are missing; the lake's files go below the root of `storage`.
    ///
    /// # Errors
    /// Those of `connect`; `CATALOG_DENIED` (config), `CATALOG_IO` (transient).
    pub async fn on_postgres(
        connect: Connect,
        storage: LakeStorage,
        pipeline_id: &str,
    ) -> Result<Self> {
        let db = PostgresDb::open(connect).await?;
        Ok(Self::new(CatalogDb::Postgres(db), storage, pipeline_id))
    }

    /// As [`SqlCommitter::on_postgres`], and makes nothing: `None` where there is no catalog.
    ///
    /// # Errors
    /// As [`SqlCommitter::on_postgres`].
    pub async fn existing_on_postgres(
        connect: Connect,
        storage: LakeStorage,
        pipeline_id: &str,
    ) -> Result<Option<Self>> {
        let db = PostgresDb::existing(connect).await?;
        Ok(db.map(|db| Self::new(CatalogDb::Postgres(db), storage, pipeline_id)))
    }

    fn new(db: CatalogDb, storage: LakeStorage, pipeline_id: &str) -> Self {
        Self { db, staging: Staging::new(storage, pipeline_id) }
    }

    /// The storage that holds the tables' files.
    pub fn storage(&self) -> &LakeStorage {
        &self.staging.storage
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
        let known = self.staging.bases.get(&ident);
        if let Some(table) = known.filter(|t| t.metadata_location() == Some(&location)) {
            return Ok(table);
        }
        let read = TableMetadata::read_from(&self.storage().file_io(), &location).await;
        let metadata = read.map_err(|e| {
            lake_error("a table's metadata file could not be read", e).with_table(&ident)
        })?;
        let table = self.staging.build_table(ident, Some(location), metadata)?;
        self.staging.bases.keep(table.clone());
        Ok(table)
    }

    async fn attempt(&self, lake_commit: &LakeCommit) -> Result<Outcome> {
        let outcome = Box::pin(self.try_once(lake_commit)).await;
        if !matches!(outcome, Ok(Outcome::Done)) {
            self.staging.bases.forget_all();
        }
        outcome
    }

    async fn try_once(&self, lake_commit: &LakeCommit) -> Result<Outcome> {
        let ledger = self.base(&self.staging.ledger).await?;
        if self.staging.fence(ledger.as_ref(), lake_commit)? {
            return Ok(Outcome::Done);
        }
        let staged = self.staging.stage(self, ledger, lake_commit).await?;
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
                Ok(Outcome::Moved)
            }
            Swap::Unknown(error) => {
                self.staging.unsettled(lake_commit);
                let what = "the outcome of the lake commit is unknown";
                let error = Error::transient("CATALOG_UNKNOWN", what)
                    .with_cure("the ledger decides when the catalog can be read again")
                    .with_source(error);
                Ok(Outcome::Unknown(error, None))
            }
            Swap::Done => {
                crate::ops::crash_point("after_catalog_commit");
                self.settle(lake_commit, ready).await;
                Ok(Outcome::Done)
            }
        }
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
        self.storage().sync_files(&metadata).await?;
        let data = lake_commit.changes.iter().flat_map(|c| c.delta.added_files());
        let data = data.map(|f| f.file_path().to_owned());
        let all: Vec<String> = metadata.iter().cloned().chain(data).collect();
        self.storage().sync_directories(&all).await
    }

    /// After the catalog commit nothing may fail it any more: the cache, and what nobody needs.
    async fn settle(&self, lake_commit: &LakeCommit, ready: Vec<Ready>) {
        self.staging.saw(lake_commit);
        let mut unreferenced = Vec::new();
        for one in ready {
            let (ident, location) = (one.staged.ident, one.location.to_string());
            match self.staging.build_table(ident.clone(), Some(location), one.metadata) {
                Ok(table) => self.staging.bases.keep(table),
                Err(_) => self.staging.bases.forget(&ident),
            }
            unreferenced.extend(one.expired);
            unreferenced.extend(one.staged.obsolete_files);
        }
        self.storage().delete_unreferenced(&unreferenced).await;
    }

    /// Deletes the metadata of a try that lost: nothing ever referred to it.
    async fn discard(&self, ready: &[Ready]) {
        for one in ready {
            self.storage().delete_unreferenced(&one.staged.new_files).await;
            self.storage().delete_unreferenced(&[one.location.to_string()]).await;
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

fn next_location(table: &Table, metadata: &TableMetadata) -> MetadataLocation {
    let last = table.metadata_location().and_then(|l| MetadataLocation::from_str(l).ok());
    match last {
        Some(last) => last.with_next_version().with_new_metadata(metadata),
        None => MetadataLocation::new_with_metadata(metadata.location(), metadata),
    }
}

#[async_trait]
impl Committer for SqlCommitter {
    async fn commit(&self, lake_commit: &LakeCommit) -> Result<Lsn> {
        let _one = self.staging.one_at_a_time.lock().await;
        let mut tries = Tries::begin();
        while !tries.is_made(Box::pin(self.attempt(lake_commit)).await?).await? {}
        Ok(lake_commit.ledger.committed_lsn)
    }

    async fn position(&self) -> Result<Option<LedgerRecord>> {
        self.staging.position(self.table(&self.staging.ledger).await?.as_ref())
    }

    async fn table(&self, ident: &TableIdent) -> Result<Option<Table>> {
        let found = self.db.locations(vec![ident.clone()]).await?;
        match found.into_iter().flatten().next() {
            Some(location) => self.load(ident.clone(), location).await.map(Some),
            None => Ok(None),
        }
    }

    async fn base(&self, ident: &TableIdent) -> Result<Option<Table>> {
        match self.staging.bases.get(ident) {
            Some(table) => Ok(Some(table)),
            None => self.table(ident).await,
        }
    }

    async fn whole_table(&self, ident: &TableIdent) -> Result<Option<Table>> {
        self.table(ident).await
    }

    async fn tables(&self) -> Result<Vec<TableIdent>> {
        Ok(self.db.tables().await?.into_iter().map(|(ident, _)| ident).collect())
    }

    async fn birthplace(&self, ident: &TableIdent, _: &NewTable) -> Result<Birthplace> {
        Ok(Birthplace::fresh(self.storage().table_location(ident)))
    }

    async fn history(&self, most: usize) -> Result<Vec<PastCommit>> {
        let ledger = self.table(&self.staging.ledger).await?;
        Ok(ledger.map(|table| history(&table, most)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::iceberg::ledger::PipelineState;

    #[tokio::test]
    async fn the_ledger_forgets_its_oldest_entries_and_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let committer = SqlCommitter::open(folder.path(), "p").await.unwrap();
        for lsn in 1..=150 {
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
                behind: std::collections::BTreeMap::default(),
            };
            let base = (lsn > 1).then_some(Lsn(lsn - 1));
            committer.commit(&LakeCommit { ledger, base, changes: vec![] }).await.unwrap();
        }
        let table = committer.table(&committer.staging.ledger).await.unwrap().unwrap();
        let kept = history(&table, usize::MAX);
        let kept: Vec<u64> = kept.iter().map(|past| past.record.committed_lsn.0).collect();
        // One more where a full hour went by meanwhile; what is over goes 16 at a time.
        assert!((64..64 + 18).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[..64], (87..=150).rev().collect::<Vec<u64>>());
        let metadata = folder.path().join("frazil/ledger_p/metadata");
        let files = std::fs::read_dir(metadata).unwrap().count();
        assert_eq!(files, kept.len() + 1 + 50, "manifest lists, metadata files");
    }
}
