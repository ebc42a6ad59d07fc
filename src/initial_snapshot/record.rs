//! What an initial snapshot has copied so far: one small object in the lake's storage, beside the
//! ledger's folder, which the next start goes on from (case 135).
//!
//! It names files that are durable and that nothing else refers to yet. It is no state of the lake:
//! nobody reads it once there is a first lake commit, and a start that can't believe every word of
//! it begins again. So it is written now and then, not in step with anything.

use std::sync::Arc;
use std::time::Duration;

use iceberg::spec::{
    DataFile, FormatVersion, Schema, StructType, deserialize_data_file_from_json,
    serialize_data_file_to_json,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::lake_error;
use crate::iceberg::ledger::{ledger_ident, new_ledger};
use crate::iceberg::row_delta::SegmentFiles;
use crate::pipeline::Position;
use crate::postgres::dsn::Source;
use crate::progress::Lsn;

use super::plan::PageRange;
use super::workers::Copied;

/// How the record is laid out; another one is not read.
const VERSION: u32 = 1;
/// How often it is written at most: what came since is copied again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) pipeline_id: String,
    pub(super) origin: Origin,
    /// The oldest position that a range was copied at. The slot must still stand there.
    pub(super) consistent_point: Lsn,
    /// The newest one: a server that has not come so far was set back.
    pub(super) newest_consistent_point: Lsn,
    /// The publications as they were then.
    pub(super) publications: String,
    pub(super) tables: Vec<TableRecord>,
}

/// Where the rows come from, and which lake they are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Address and database, for a server and its clone call themselves the same; and the branch
    /// (Nessie).
    pub(super) places: String,
    pub(super) system_id: String,
    pub(super) timeline: u32,
}

impl Origin {
    /// Of a run.
    pub(super) fn of(source: &Source, lake: &Lake, position: &Position) -> Self {
        let (addresses, database) = (&source.addresses, &source.database);
        let branch = lake.nessie.as_ref().map(|nessie| nessie.reference());
        Self {
            places: format!("{addresses:?} {database:?} {branch:?}"),
            system_id: position.system_id.clone(),
            timeline: position.timeline,
        }
    }
}

/// What there is of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableRecord {
    pub(super) oid: u32,
    /// `namespace.name`, for people.
    pub(super) table: String,
    /// All that makes it the same table, with rows at the same places: see `resume.rs`.
    pub(super) shape: String,
    pub(super) ranges: Vec<RangeRecord>,
}

/// A range that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RangeRecord {
    pub(super) range: PageRange,
    pub(super) rows: u64,
    has_raw: bool,
    /// Data files as the `iceberg` crate describes them in JSON.
    files: Vec<String>,
}

impl RangeRecord {
    fn of(copied: &Copied) -> Result<Self> {
        let files = copied.files.data.iter().map(|file| {
            serialize_data_file_to_json(file.clone(), &unpartitioned(), FormatVersion::V2)
                .map_err(|e| lake_error("a data file's description", e))
        });
        Ok(Self {
            range: copied.range,
            rows: copied.files.rows_inserted,
            has_raw: copied.files.has_raw,
            files: files.collect::<Result<_>>()?,
        })
    }

    /// The range's files, which have the columns of `schema` or some of them.
    pub(super) fn files(&self, schema: &Schema) -> Result<SegmentFiles> {
        let read = |json: &String| -> Result<DataFile> {
            deserialize_data_file_from_json(json, 0, &unpartitioned(), schema)
                .map_err(|e| lake_error("a data file's description", e))
        };
        Ok(SegmentFiles {
            data: self.files.iter().map(read).collect::<Result<_>>()?,
            deletes: Vec::new(),
            rows_inserted: self.rows,
            rows_deleted: 0,
            has_raw: self.has_raw,
        })
    }
}

fn unpartitioned() -> StructType {
    StructType::new(Vec::new())
}

/// Writes the record while ranges come in.
#[derive(Debug)]
pub(super) struct Recorder {
    lake: Arc<Lake>,
    location: String,
    record: Record,
    saved: Instant,
    /// Files that were described since, to be made durable with their directories.
    unsaved: Vec<String>,
}

impl Recorder {
    /// Goes on with `record`, whose tables are those that are copied, in their order.
    pub(super) fn new(lake: &Arc<Lake>, location: String, record: Record) -> Self {
        let saved = Instant::now();
        Self { lake: Arc::clone(lake), location, record, saved, unsaved: Vec::new() }
    }

    /// A range is written.
    pub(super) async fn copied(&mut self, copied: &Copied) -> Result<()> {
        let range = RangeRecord::of(copied)?;
        if let Some(table) = self.record.tables.get_mut(copied.table) {
            table.ranges.push(range);
        }
        let files = copied.files.data.iter().map(|file| file.file_path().to_owned());
        self.unsaved.extend(files);
        if self.saved.elapsed() >= save_every() {
            self.save().await;
        }
        Ok(())
    }

    /// Writes it down; a record that can't be written costs no more than itself.
    pub(super) async fn save(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        self.saved = Instant::now();
        if let Err(error) = self.try_save().await {
            let location = &self.location;
            tracing::warn!(location, "what is copied could not be written down: {error}");
        }
    }

    async fn try_save(&mut self) -> Result<()> {
        let storage = &self.lake.storage;
        storage.sync_directories(&self.unsaved).await?;
        let json = serde_json::to_vec(&self.record).map_err(|e| {
            Error::fatal("COPY_RECORD", "what was copied can't be described").with_source(e)
        })?;
        storage.write_small(&self.location, json).await?;
        self.unsaved.clear();
        Ok(())
    }

    /// What it says is of no use.
    pub(super) async fn give_up(&mut self) {
        self.unsaved.clear();
        self.remove().await;
    }

    /// Nobody needs it any more.
    pub(super) async fn remove(&self) {
        self.lake.storage.delete_unreferenced(std::slice::from_ref(&self.location)).await;
    }
}

/// [`SAVE_EVERY`], or the milliseconds that a test asks for by the fail point `save_every_ms`.
fn save_every() -> Duration {
    fail::fail_point!("save_every_ms", |ms| {
        ms.and_then(|ms| ms.parse().ok()).map_or(SAVE_EVERY, Duration::from_millis)
    });
    SAVE_EVERY
}

impl Record {
    /// A record without ranges.
    pub(super) fn new(
        pipeline_id: &str,
        origin: Origin,
        (consistent_point, newest_consistent_point): (Lsn, Lsn),
        publications: String,
        tables: Vec<TableRecord>,
    ) -> Self {
        Self {
            version: VERSION,
            pipeline_id: pipeline_id.to_owned(),
            origin,
            consistent_point,
            newest_consistent_point,
            publications,
            tables,
        }
    }

    /// Where it stands: beside the ledger's folder, whose own name some catalogs make up anew each
    /// time they are asked. Other branches and sources have other names.
    pub(super) async fn location(lake: &Lake, origin: &Origin) -> Result<String> {
        let ledger = ledger_ident(&lake.pipeline_id);
        let place = lake.committer.birthplace(&ledger, &new_ledger()?).await?;
        let above = place.location.rsplit_once('/').map_or("", |(above, _)| above);
        let digest = Sha256::digest(&origin.places);
        let digest = digest.first_chunk::<8>().copied().unwrap_or_default();
        let name = format!("{}-{:016x}", lake.pipeline_id, u64::from_be_bytes(digest));
        Ok(format!("{above}/initial-snapshot-{name}.json"))
    }

    /// What the last start left behind, if anything; one that can't be read is nothing.
    pub(super) async fn load(lake: &Lake, location: &str) -> Result<Option<Self>> {
        let Some(bytes) = lake.storage.read_small(location).await? else { return Ok(None) };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(record) if record.version == VERSION => Ok(Some(record)),
            Ok(record) => {
                tracing::warn!(location, record.version, "another version wrote what was copied");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(location, %error, "what was copied so far can't be read");
                Ok(None)
            }
        }
    }

    /// Ranges in it.
    pub(super) fn ranges(&self) -> usize {
        self.tables.iter().map(|table| table.ranges.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Datum};
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    #[test]
    fn a_range_comes_back_as_it_was() {
        let field = NestedField::required(7, "id", Type::Primitive(PrimitiveType::Long));
        let schema = Schema::builder().with_fields([Arc::new(field)]).build().unwrap();
        let file = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path("file:///lake/t/data/x.parquet".to_owned())
            .file_format(DataFileFormat::Parquet)
            .record_count(5)
            .file_size_in_bytes(1_234)
            .value_counts([(7, 5)].into())
            .lower_bounds([(7, Datum::long(-3))].into())
            .upper_bounds([(7, Datum::long(1_i64 << 40))].into())
            .split_offsets(Some(vec![4]))
            .build()
            .unwrap();
        let files = SegmentFiles {
            data: vec![file.clone()],
            rows_inserted: 5,
            has_raw: true,
            ..SegmentFiles::default()
        };
        let range = PageRange { from: 3, to: None };
        let record = RangeRecord::of(&Copied { table: 0, range, files }).unwrap();
        let json = serde_json::to_string(&record).unwrap();
        let record: RangeRecord = serde_json::from_str(&json).unwrap();
        let back = record.files(&schema).unwrap();
        assert_eq!(back.data, [file]);
        assert_eq!((back.rows_inserted, back.has_raw, record.range), (5, true, range));
    }
}
