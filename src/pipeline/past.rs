//! What a segment must know of the rows before it: earlier segments of the window, and the lake as
//! it is after the window before.

use iceberg::spec::DataFile;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::read;
use crate::window::outcome::Outcome;

use super::write::{ParquetTarget, Written};

/// What came before a segment.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// The number of the last window that is in the lake.
    pub(super) committed: watch::Receiver<u64>,
    /// The window this segment belongs to.
    pub(super) window: u64,
    /// Earlier segments of the same window, in order.
    pub(super) segments: Vec<watch::Receiver<Option<Written>>>,
}

/// The files of one table that came before a segment, each with its sequence number (or, where it
/// is not in the lake yet, one above all those, in order), newest first.
#[derive(Debug, Default)]
pub(crate) struct OlderFiles {
    pub(super) data: Vec<(DataFile, i64)>,
    /// Left out where only the newest row of a key is wanted.
    pub(super) deletes: Vec<(DataFile, i64)>,
}

impl Past {
    /// The files that may hold what `outcome` lacks; none where it lacks nothing. Waits for earlier
    /// segments of the window, and for the lake commit before it.
    pub(super) async fn files(
        &self,
        lake: &Lake,
        target: &ParquetTarget,
        outcome: &Outcome,
    ) -> Result<OlderFiles> {
        let mut files = OlderFiles::default();
        // After a TRUNCATE there is nothing older.
        if !outcome.needs_older_rows() || outcome.truncated {
            return Ok(files);
        }
        let oid = outcome.relation.oid;
        for (number, segment) in (0..=i64::MAX).rev().zip(self.segments.iter().rev()) {
            let mut segment = segment.clone();
            let written = segment.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
            let Some(table) = written.as_ref().and_then(|written| written.get(&oid)) else {
                continue;
            };
            files.data.extend(table.files.data.iter().map(|file| (file.clone(), number)));
            files.deletes.extend(table.files.deletes.iter().map(|file| (file.clone(), number)));
            if table.truncated {
                return Ok(files);
            }
        }
        let mut committed = self.committed.clone();
        committed.wait_for(|done| *done + 1 >= self.window).await.map_err(|_| gone())?;
        if let Some(table) = lake.committer.base(&target.ident).await? {
            files.data.extend(read::live_data_files(&table).await?);
            if !outcome.fewer.is_empty() {
                files.deletes.extend(read::live_delete_files(&table).await?);
            }
        }
        Ok(files)
    }
}

fn gone() -> Error {
    Error::transient("WRITER", "an earlier segment was not written")
}
