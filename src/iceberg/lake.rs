//! The lake as the conductors hold it.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::iceberg::committer::Committer;
use crate::iceberg::committer::sql::SqlCommitter;
use crate::iceberg::storage::LakeStorage;

/// Size at which a data file is completed and the next one begun (Iceberg's
/// `write.target-file-size-bytes`; smaller than its 512 MiB default, so that an initial snapshot is
/// read in parallel).
const TARGET_FILE_BYTES: u64 = 256 << 20;

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
}

impl Lake {
    /// Opens the embedded default in `folder`, and makes it where it is missing.
    ///
    /// # Errors
    /// As [`SqlCommitter::open`].
    pub async fn open(folder: &Path, pipeline_id: &str) -> Result<Self> {
        let committer = SqlCommitter::open(folder, pipeline_id).await?;
        Ok(Self {
            storage: committer.storage().clone(),
            committer: Arc::new(committer),
            pipeline_id: pipeline_id.to_owned(),
            target_file_bytes: TARGET_FILE_BYTES,
        })
    }
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lake").field("pipeline_id", &self.pipeline_id).finish_non_exhaustive()
    }
}
