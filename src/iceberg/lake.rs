//! The lake as the conductors hold it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::iceberg::committer::rest::nessie::Nessie;
use crate::iceberg::committer::rest::{RestCommitter, RestSettings};
use crate::iceberg::committer::sql::SqlCommitter;
use crate::iceberg::committer::{Committer, Connect};
use crate::iceberg::storage::{LakeStorage, StorageSettings};

/// Size at which a data file is completed and the next one begun (Iceberg's
/// `write.target-file-size-bytes`; smaller than its 512 MiB default, so that an initial snapshot is
/// read in parallel).
const TARGET_FILE_BYTES: u64 = 256 << 20;

/// Where a lake is, ready to be opened.
pub enum LakePlace {
    /// The embedded default: a SQLite catalog and the files in a folder.
    Folder(PathBuf),
    /// A REST catalog, and what is known of the storage behind it.
    Rest(Box<RestSettings>, StorageSettings),
    /// A SQL catalog in Postgres, and the root of the files.
    Postgres(Connect, String, StorageSettings),
}

/// Catalog and storage of one pipeline.
pub struct Lake {
    /// Commits, and reads P.
    pub committer: Arc<dyn Committer>,
    /// Holds the files.
    pub storage: LakeStorage,
    /// Names the ledger.
    pub pipeline_id: String,
    /// Size at which a data file is completed, in bytes.
    pub target_file_bytes: u64,
    /// Branches, tags and log, where the catalog has them.
    pub nessie: Option<Arc<Nessie>>,
    /// The catalog commits tables one by one: one may be ahead of P.
    pub is_torn: bool,
}

impl Lake {
    /// Opens the lake; a folder and the tables of a SQL catalog are made where they are missing.
    ///
    /// # Errors
    /// As [`SqlCommitter::open`], [`SqlCommitter::on_postgres`], [`RestCommitter::connect`].
    pub async fn open(place: LakePlace, pipeline_id: &str) -> Result<Self> {
        match place {
            LakePlace::Folder(folder) => Self::in_folder(&folder, pipeline_id).await,
            LakePlace::Rest(rest, storage) => Self::rest(*rest, storage, pipeline_id).await,
            LakePlace::Postgres(connect, warehouse, storage) => {
                let storage = LakeStorage::open(&warehouse, storage)?;
                let committer = SqlCommitter::on_postgres(connect, storage, pipeline_id).await?;
                Ok(Self::sql(committer, pipeline_id))
            }
        }
    }

    /// As [`Lake::open`], and makes nothing: `None` where there is no lake. A REST catalog always
    /// is one.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn existing(place: LakePlace, pipeline_id: &str) -> Result<Option<Self>> {
        match place {
            LakePlace::Folder(folder) if !folder.join("catalog.db").exists() => Ok(None),
            LakePlace::Postgres(connect, warehouse, storage) => {
                let storage = LakeStorage::open(&warehouse, storage)?;
                let committer = SqlCommitter::existing_on_postgres(connect, storage, pipeline_id);
                Ok(committer.await?.map(|committer| Self::sql(committer, pipeline_id)))
            }
            LakePlace::Rest(mut catalog, storage) => {
                catalog.branch_from = None;
                Self::rest(*catalog, storage, pipeline_id).await.map(Some)
            }
            LakePlace::Folder(folder) => Self::in_folder(&folder, pipeline_id).await.map(Some),
        }
    }

    /// The embedded default in `folder`.
    ///
    /// # Errors
    /// As [`SqlCommitter::open`].
    pub async fn in_folder(folder: &Path, pipeline_id: &str) -> Result<Self> {
        Ok(Self::sql(SqlCommitter::open(folder, pipeline_id).await?, pipeline_id))
    }

    fn sql(committer: SqlCommitter, pipeline_id: &str) -> Self {
        let storage = committer.storage().clone();
        Self::new(Arc::new(committer), storage, pipeline_id)
    }

    async fn rest(
        settings: RestSettings,
        storage: StorageSettings,
        pipeline_id: &str,
    ) -> Result<Self> {
        let committer = RestCommitter::connect(settings, storage, pipeline_id).await?;
        let (storage, nessie) = (committer.storage().clone(), committer.nessie().cloned());
        let is_torn = committer.is_torn();
        Ok(Self { nessie, is_torn, ..Self::new(Arc::new(committer), storage, pipeline_id) })
    }

    fn new(committer: Arc<dyn Committer>, storage: LakeStorage, pipeline_id: &str) -> Self {
        Self {
            committer,
            storage,
            pipeline_id: pipeline_id.to_owned(),
            target_file_bytes: TARGET_FILE_BYTES,
            nessie: None,
            is_torn: false,
        }
    }
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lake").field("pipeline_id", &self.pipeline_id).finish_non_exhaustive()
    }
}
