//! A REST catalog: Nessie, or any other that speaks the Iceberg REST protocol.
//!
//! ```text
//! fence (ledger's P and uuid) ─► stage all tables ─► POST transactions/commit ─► 204
//!        ▲                                             │ 409: a table moved
//!        │                                             │ 5xx, no answer: nobody knows
//!        └──── pause, reload, stage again ◄────────────┘
//! ```
//!
//! One request holds every table's updates, new tables and the ledger, each with its requirements;
//! the catalog makes all or none (Iceberg REST spec, `commitTransaction`). Its 204 has no body:
//! what stands is read back by the next lake commit. After a lost answer nothing is deleted and
//! nothing is sent blindly again: the ledger says whether the lake commit was made, and a later try
//! is refused by the ledger's `assert-ref-snapshot-id` if the first one lands after all.
//!
//! A catalog may show a table's current iceberg_snapshot only (Nessie does), without its parent and
//! under another metadata file each time; nothing here looks further back. All that a commit needs
//! of a table is its metadata as the catalog serves it.
//!
//! Some catalogs make no tables within a transaction: there new tables are made empty first, and
//! all of their first rows become visible together.
//!
//! A catalog that cannot commit several tables at once is refused, unless `allow_torn_commits` is
//! set: then tables are committed one by one, the ledger last. Each carries the position it is at,
//! so that after a crash in between nothing is applied twice to any of them.

mod auth;
mod catalog;
mod commit;
mod http;
pub mod nessie;
mod settings;
mod vended;

use std::sync::Arc;

use async_trait::async_trait;
use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;

use crate::error::{Error, Result};
use crate::iceberg::committer::staging::{Outcome, Staging, Tries};
use crate::iceberg::committer::{Birthplace, Committer, LakeCommit, NewTable, PastCommit};
use crate::iceberg::lake_error;
use crate::iceberg::ledger::{LedgerRecord, history};
use crate::iceberg::row_delta::Staged;
use crate::iceberg::storage::{LakeStorage, StorageSettings};
use crate::progress::Lsn;

pub use settings::{Login, RestSettings};

use catalog::Catalog;
use nessie::Nessie;

/// Commits to a REST catalog.
pub struct RestCommitter {
    catalog: Arc<Catalog>,
    nessie: Option<Arc<Nessie>>,
    staging: Staging,
}

impl RestCommitter {
    /// Asks the catalog for its configuration; makes nothing.
    ///
    /// # Errors
    /// `CATALOG_SETTING`, `CATALOG_NOT_FOUND`, `CATALOG_REF`, `CATALOG_TORN` (config);
    /// `CATALOG_DOWN`, `CATALOG_AUTH` (transient); `CATALOG_ANSWER` (fatal).
    pub async fn connect(
        mut settings: RestSettings,
        mut storage: StorageSettings,
        pipeline_id: &str,
    ) -> Result<Self> {
        let ask = settings.vended_credentials.unwrap_or(!storage.has_keys());
        settings.vended_credentials = Some(ask);
        let catalog = Catalog::connect(settings).await?;
        storage.from_catalog = catalog.storage_properties();
        let storage = LakeStorage::of_catalog(storage);
        let catalog = Arc::new(catalog.with_storage(storage.clone()));
        let nessie = Nessie::of(&catalog).await?;
        let mut staging = Staging::new(storage, pipeline_id);
        if catalog.is_torn() {
            staging.tear();
        }
        // Nessie keeps the current iceberg_snapshot only, and refuses to remove any: its own
        // commits are the history.
        staging.keeps_all = nessie.is_some();
        Ok(Self { catalog, nessie: nessie.map(Arc::new), staging })
    }

    /// The storage that holds the tables' files.
    pub fn storage(&self) -> &LakeStorage {
        &self.staging.storage
    }

    /// The branches, tags and log, where the catalog is a Nessie.
    pub fn nessie(&self) -> Option<&Arc<Nessie>> {
        self.nessie.as_ref()
    }

    /// Whether tables are committed one by one.
    pub fn is_torn(&self) -> bool {
        self.staging.is_torn()
    }

    /// Looks at tables that were born: a catalog that gave their columns other ids than their files
    /// have (the Iceberg REST spec does not say) would show one column as another.
    async fn check_born(&self, lake_commit: &LakeCommit) -> Result<()> {
        for change in &lake_commit.changes {
            let Some(new) = &change.create else { continue };
            let Ok(Some(table)) = self.table(&change.ident).await else { continue };
            let schema = change.delta.schema.as_ref().unwrap_or(&new.schema);
            if table.metadata().current_schema().as_struct() != schema.as_struct() {
                let what = "the catalog gave the columns of a new table other ids than its files";
                return Err(Error::fatal("LAKE_METADATA", what)
                    .with_table(&change.ident)
                    .with_cure("this catalog cannot be used; drop what frazil made in it"));
            }
        }
        Ok(())
    }

    async fn attempt(&self, lake_commit: &LakeCommit) -> Result<Outcome> {
        let outcome = Box::pin(self.try_once(lake_commit)).await;
        if !matches!(outcome, Ok(Outcome::Done)) {
            self.staging.bases.forget_all();
        }
        match outcome {
            // The catalog is in the way, not the lake: the source stays connected meanwhile.
            Err(error) if matches!(error.code(), "CATALOG_DOWN" | "CATALOG_AUTH") => {
                Ok(Outcome::Unknown(error, None))
            }
            decided => decided,
        }
    }

    /// The next lake commit builds on what this one left. A table that is born is loaded: the
    /// catalog may have changed what it was told.
    fn left(&self, staged: &Staged, metadata: TableMetadata) {
        let ident = &staged.ident;
        let Some(location) = staged.table.metadata_location() else {
            return self.staging.bases.forget(ident);
        };
        let metadata = match self.staging.keeps_all {
            true => without_past(metadata),
            false => Ok(metadata),
        };
        let build =
            |metadata| self.staging.build_table(ident.clone(), Some(location.to_owned()), metadata);
        match metadata.and_then(build) {
            Ok(table) => self.staging.bases.keep(table),
            Err(_) => self.staging.bases.forget(ident),
        }
    }

    /// Whether the catalog misses a table that was there when this process saw it last.
    async fn misses_a_base(&self, staged: &[Staged], outcome: &Result<Outcome>) -> Result<bool> {
        if !matches!(outcome, Err(error) if error.code() == "CATALOG_NOT_FOUND") {
            return Ok(false);
        }
        for one in staged.iter().filter(|one| one.table.metadata_location().is_some()) {
            if self.catalog.load(&one.ident).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the catalog refuses the commit because it makes no tables within a transaction, as
    /// the Java reference does: it misses the very tables that were to be made.
    fn makes_no_tables(&self, staged: &[Staged], outcome: &Result<Outcome>) -> bool {
        let is_new = |one: &Staged| one.table.metadata_location().is_none();
        let is_missed = matches!(outcome, Err(error) if error.code() == "CATALOG_NOT_FOUND");
        is_missed && self.nessie.is_none() && staged.iter().any(is_new)
    }

    /// Whether it turns out only now that the catalog, which did not say what it can, commits no
    /// several tables at once, and that this is allowed.
    fn is_found_torn(&self, outcome: &Result<Outcome>) -> bool {
        let is_torn = matches!(outcome, Err(error) if error.code() == "CATALOG_TORN");
        is_torn && self.catalog.settings.allow_torn_commits
    }

    async fn try_once(&self, lake_commit: &LakeCommit) -> Result<Outcome> {
        let ledger = self.base(&self.staging.ledger).await?;
        if self.staging.fence(ledger.as_ref(), lake_commit)? {
            return Ok(Outcome::Done);
        }
        let staged = self.staging.stage(self, ledger, lake_commit).await?;
        crate::ops::crash_point("manifest_written");
        // The crate's checks, of which a catalog may have fewer: Nessie takes any sequence number.
        let applied = staged.iter().map(Staged::apply).collect::<Result<Vec<_>>>()?;
        crate::ops::crash_point("before_catalog_commit");
        let headers = match &self.nessie {
            Some(_) => nessie::commit_headers(&lake_commit.ledger)?,
            None => reqwest::header::HeaderMap::new(),
        };
        let mut outcome = self.catalog.commit(&staged, headers, self.staging.is_torn()).await;
        if self.makes_no_tables(&staged, &outcome) {
            let pipeline_id = &lake_commit.ledger.pipeline_id;
            for new in staged.iter().filter(|one| one.table.metadata_location().is_none()) {
                self.catalog.make_empty(new, pipeline_id).await?;
            }
            outcome = Ok(Outcome::Moved);
        }
        if self.misses_a_base(&staged, &outcome).await? {
            self.staging.discard(&staged).await;
            return Ok(Outcome::Moved);
        }
        if self.is_found_torn(&outcome) {
            tracing::warn!("the catalog cannot commit several tables at once: one by one from now");
            self.staging.discard(&staged).await;
            self.staging.tear();
            outcome = Ok(Outcome::Moved);
        }
        match &outcome {
            Ok(Outcome::Done) => {
                crate::ops::crash_point("after_catalog_commit");
                self.staging.saw(lake_commit);
                for (one, metadata) in staged.iter().zip(applied) {
                    self.left(one, metadata);
                }
            }
            Ok(Outcome::Unknown(..)) => self.staging.unsettled(lake_commit),
            // One by one, what stands before the refused one is made and refers to its files.
            Ok(Outcome::Moved) | Err(_) if self.staging.is_torn() => {}
            Ok(Outcome::Moved) | Err(_) => self.staging.discard(&staged).await,
        }
        outcome
    }
}

#[async_trait]
impl Committer for RestCommitter {
    async fn commit(&self, lake_commit: &LakeCommit) -> Result<Lsn> {
        let _one = self.staging.one_at_a_time.lock().await;
        let mut tries = Tries::begin();
        while !tries.is_made(Box::pin(self.attempt(lake_commit)).await?).await? {}
        self.catalog.born(lake_commit).await;
        self.check_born(lake_commit).await?;
        Ok(lake_commit.ledger.committed_lsn)
    }

    async fn position(&self) -> Result<Option<LedgerRecord>> {
        self.staging.position(self.table(&self.staging.ledger).await?.as_ref())
    }

    async fn table(&self, ident: &TableIdent) -> Result<Option<Table>> {
        if *ident == self.staging.ledger {
            return self.whole_table(ident).await;
        }
        let Some(loaded) = self.catalog.load(ident).await? else { return Ok(None) };
        let location = Some(loaded.metadata_location);
        self.staging.build_table(ident.clone(), location, loaded.metadata).map(Some)
    }

    async fn base(&self, ident: &TableIdent) -> Result<Option<Table>> {
        if let Some(table) = self.staging.bases.get(ident) {
            return Ok(Some(table));
        }
        // Where older iceberg_snapshots are ours to remove, they must be known.
        let table = self.whole_table(ident).await?;
        if let Some(table) = &table {
            self.staging.bases.keep(table.clone());
        }
        Ok(table)
    }

    async fn whole_table(&self, ident: &TableIdent) -> Result<Option<Table>> {
        let Some(loaded) = self.catalog.load_whole(ident).await? else { return Ok(None) };
        let location = Some(loaded.metadata_location);
        self.staging.build_table(ident.clone(), location, loaded.metadata).map(Some)
    }

    async fn tables(&self) -> Result<Vec<TableIdent>> {
        self.catalog.tables().await
    }

    async fn birthplace(&self, ident: &TableIdent, new: &NewTable) -> Result<Birthplace> {
        self.catalog.birthplace(ident, new).await
    }

    async fn history(&self, most: usize) -> Result<Vec<PastCommit>> {
        if let Some(nessie) = &self.nessie {
            let pipeline = self.staging.ledger.name().trim_start_matches("ledger_");
            return nessie.lake_commits(nessie.reference(), pipeline, most).await;
        }
        let ledger = self.table(&self.staging.ledger).await?;
        Ok(ledger.map(|table| history(&table, most)).unwrap_or_default())
    }
}

/// The metadata with the current iceberg_snapshot only, as Nessie serves it.
fn without_past(metadata: TableMetadata) -> Result<TableMetadata> {
    let current = metadata.current_snapshot_id();
    let past = metadata.snapshots().map(|snapshot| snapshot.snapshot_id());
    let past: Vec<i64> = past.filter(|id| Some(*id) != current).collect();
    let built = metadata.into_builder(None).remove_snapshots(&past).build();
    built.map(|built| built.metadata).map_err(|e| lake_error("the table's new metadata", e))
}

/// The refusal of a catalog without transactions over several tables.
fn torn() -> Error {
    let what = "the catalog cannot commit several tables at once (transactions/commit)";
    Error::config("CATALOG_TORN", what).with_cure(
        "use one that can (Nessie does), or accept that readers may see half a source transaction: \
         lake.allow_torn_commits: true",
    )
}
