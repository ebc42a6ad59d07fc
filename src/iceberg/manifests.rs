//! Manifests and the manifest list of one iceberg_snapshot (Iceberg spec, Manifests; Manifest
//! Lists; Sequence Number Inheritance).
//!
//! Every entry carries its data sequence number explicitly, so that one manifest holds several
//! segments; the crate derives the manifest's `min_sequence_number` from the entries, and that must
//! stay so: one that is too high loses deletes at a later Java commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{
    DataFile, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestListWriter,
    ManifestWriterBuilder, SchemaRef,
};
use iceberg::table::Table;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::lake_error;

/// Manifests of one content and one rank that are merged into one, of the next rank: a table has
/// fewer than this of each rank, and an entry is written again once per rank, not once per merge.
const MERGE_COUNT: u64 = 10;

/// `commit.manifest.target-size-bytes`: a merge makes none that is larger. Of half this size a
/// manifest is full and left alone, so that what one lake commit reads and holds is bounded.
const MERGE_BYTES: i64 = 4 << 20;

/// Manifests that a merge reads at the same time.
const READ_PARALLEL: usize = 8;

/// One line of a manifest that is written.
pub(crate) enum Entry {
    /// A file new to the table, and the sequence number that its rows have.
    Added(Box<DataFile>, i64),
    /// A file that stays.
    Existing(ManifestEntryRef),
    /// A file that goes.
    Deleted(ManifestEntryRef),
}

/// Writes the manifests of one iceberg_snapshot and remembers their locations.
pub(crate) struct ManifestSink<'a> {
    table: &'a Table,
    schema: SchemaRef,
    snapshot_id: i64,
    id: Uuid,
    written: Mutex<Vec<String>>,
}

impl<'a> ManifestSink<'a> {
    pub(crate) fn new(table: &'a Table, schema: SchemaRef, snapshot_id: i64) -> Self {
        Self { table, schema, snapshot_id, id: Uuid::now_v7(), written: Mutex::default() }
    }

    /// Locations of all that was begun.
    pub(crate) fn written(&self) -> Vec<String> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a file will be at what `location` makes of its number.
    fn note(&self, location: impl FnOnce(usize) -> String) -> String {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let location = location(written.len());
        written.push(location.clone());
        location
    }

    /// Deletes what was written: staging failed, and nothing will refer to it. On a full disk that
    /// is what lets the next try succeed.
    pub(crate) async fn discard(&self) {
        for location in self.written() {
            if let Err(error) = self.table.file_io().delete(&location).await {
                tracing::debug!(location, %error, "left an unreferenced file behind");
            }
        }
    }

    /// One manifest with these entries; none for no entries.
    pub(crate) async fn manifest(
        &self,
        content: ManifestContentType,
        entries: Vec<Entry>,
    ) -> Result<Option<ManifestFile>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let written = self.write(content, entries).await;
        written.map(Some).map_err(|e| lake_error("a manifest could not be written", e))
    }

    async fn write(
        &self,
        content: ManifestContentType,
        entries: Vec<Entry>,
    ) -> iceberg::Result<ManifestFile> {
        let metadata = self.table.metadata();
        let (home, id) = (metadata.location(), self.id);
        let location = self.note(|number| format!("{home}/metadata/{id}-m{number}.avro"));
        let output = self.table.file_io().new_output(&location)?;
        let spec = metadata.default_partition_spec().as_ref().clone();
        let builder =
            ManifestWriterBuilder::new(output, Some(self.snapshot_id), self.schema.clone(), spec);
        let mut writer = match content {
            ManifestContentType::Data => builder.build_v2_data(),
            ManifestContentType::Deletes => builder.build_v2_deletes(),
        };
        for entry in entries {
            match entry {
                Entry::Added(file, sequence_number) => writer.add_file(*file, sequence_number)?,
                Entry::Existing(entry) => writer.add_existing_file(
                    entry.data_file.clone(),
                    entry.snapshot_id.unwrap_or(self.snapshot_id),
                    entry.sequence_number.unwrap_or(0),
                    entry.file_sequence_number,
                )?,
                Entry::Deleted(entry) => writer.add_delete_file(
                    entry.data_file.clone(),
                    entry.sequence_number.unwrap_or(0),
                    entry.file_sequence_number,
                )?,
            }
        }
        writer.write_manifest_file().await
    }

    /// The manifest list over `manifests`; gives its location.
    pub(crate) async fn list(
        &self,
        manifests: Vec<ManifestFile>,
        sequence_number: i64,
    ) -> Result<String> {
        let written = self.write_list(manifests, sequence_number).await;
        written.map_err(|e| lake_error("a manifest list could not be written", e))
    }

    async fn write_list(
        &self,
        manifests: Vec<ManifestFile>,
        sequence_number: i64,
    ) -> iceberg::Result<String> {
        let metadata = self.table.metadata();
        let (home, id, snapshot_id) = (metadata.location(), self.id, self.snapshot_id);
        let location = self.note(|_| format!("{home}/metadata/snap-{snapshot_id}-0-{id}.avro"));
        let output = self.table.file_io().new_output(&location)?.writer().await?;
        let parent = metadata.current_snapshot_id();
        let mut list = ManifestListWriter::v2(output, self.snapshot_id, parent, sequence_number);
        list.add_manifests(manifests.into_iter())?;
        list.close().await?;
        Ok(location)
    }

    /// `kept` with its small manifests merged, where one rank of one content has become too many.
    pub(crate) async fn merge(&self, kept: Vec<ManifestFile>) -> Result<Vec<ManifestFile>> {
        let (data, deletes): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|m| m.content == ManifestContentType::Data);
        let mut merged = self.merge_content(ManifestContentType::Data, data).await?;
        merged.extend(self.merge_content(ManifestContentType::Deletes, deletes).await?);
        Ok(merged)
    }

    async fn merge_content(
        &self,
        content: ManifestContentType,
        manifests: Vec<ManifestFile>,
    ) -> Result<Vec<ManifestFile>> {
        let spec_id = self.table.metadata().default_partition_spec_id();
        let (mut merged, small) = by_rank(manifests, spec_id);
        for bin in bins(small) {
            if let [_, _, ..] = bin.as_slice() {
                let entries = bin.iter().map(|manifest| live_entries(self.table, manifest));
                let entries = futures::stream::iter(entries.collect::<Vec<_>>());
                let entries: Vec<_> = entries.buffered(READ_PARALLEL).try_collect().await?;
                let entries = entries.into_iter().flatten().map(Entry::Existing).collect();
                merged.extend(self.manifest(content, entries).await?);
            } else {
                merged.extend(bin);
            }
        }
        Ok(merged)
    }
}

/// Manifests that stay as they are, and those to merge: all of a rank that has become too many. The
/// rank of a manifest is how often [`MERGE_COUNT`] goes into its live files. What a rank's merge
/// makes counts for the rank above, so that the two are one. One that is full, or of another
/// partition spec, stands alone.
fn by_rank(manifests: Vec<ManifestFile>, spec_id: i32) -> (Vec<ManifestFile>, Vec<ManifestFile>) {
    let (mut ranks, mut stay) = (BTreeMap::<u32, Vec<ManifestFile>>::new(), Vec::new());
    for manifest in manifests {
        let is_full = manifest.manifest_length >= MERGE_BYTES / 2;
        match is_full || manifest.partition_spec_id != spec_id {
            true => stay.push(manifest),
            false => ranks.entry(rank(files_of(&manifest))).or_default().push(manifest),
        }
    }
    let mut merge: Vec<ManifestFile> = Vec::new();
    for (at, of_rank) in ranks {
        let files: u64 = merge.iter().map(files_of).sum();
        let more = usize::from(!merge.is_empty() && rank(files) >= at);
        match u64::try_from(of_rank.len() + more).unwrap_or(u64::MAX) >= MERGE_COUNT {
            true => merge.extend(of_rank),
            false => stay.extend(of_rank),
        }
    }
    (stay, merge)
}

fn files_of(manifest: &ManifestFile) -> u64 {
    let files =
        manifest.added_files_count.unwrap_or(0) + manifest.existing_files_count.unwrap_or(0);
    u64::from(files)
}

fn rank(files: u64) -> u32 {
    files.checked_ilog(MERGE_COUNT).unwrap_or(0)
}

/// Manifests grouped so that each group of more than one stays within [`MERGE_BYTES`].
fn bins(manifests: Vec<ManifestFile>) -> Vec<Vec<ManifestFile>> {
    let mut open: Vec<ManifestFile> = Vec::new();
    let mut bytes = 0;
    let mut done = Vec::new();
    for manifest in manifests {
        if bytes + manifest.manifest_length > MERGE_BYTES {
            done.push(std::mem::take(&mut open));
            bytes = 0;
        }
        bytes += manifest.manifest_length;
        open.push(manifest);
    }
    done.push(open);
    done
}

/// The manifests of the current iceberg_snapshot that hold live files.
///
/// # Errors
/// `LAKE_IO` (transient).
pub(crate) async fn live_manifests(table: &Table) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(Vec::new()) };
    let list = table.manifest_list_reader(snapshot).load().await;
    let list = list.map_err(|e| lake_error("a manifest list could not be read", e))?;
    let live = |m: &ManifestFile| m.has_added_files() || m.has_existing_files();
    Ok(list.consume_entries().into_iter().filter(live).collect())
}

/// The live entries of a manifest, with the numbers they inherit.
///
/// # Errors
/// `LAKE_IO` (transient).
pub(crate) async fn live_entries(
    table: &Table,
    manifest: &ManifestFile,
) -> Result<Vec<ManifestEntryRef>> {
    let loaded = manifest.load_manifest(table.file_io()).await;
    let loaded = loaded.map_err(|e| lake_error("a manifest could not be read", e))?;
    Ok(loaded.into_parts().0.into_iter().filter(|e| e.is_alive()).collect())
}

/// What becomes of the files that stand in a table.
#[derive(Default)]
pub(crate) struct Standing {
    /// Manifests that go on as they are.
    pub(crate) kept: Vec<ManifestFile>,
    /// Entries of the new data manifest.
    pub(crate) data: Vec<Entry>,
    /// Entries of the new delete manifest.
    pub(crate) deletes: Vec<Entry>,
    /// Files that go, for the summary.
    pub(crate) removed: Vec<DataFile>,
}

impl Standing {
    /// Nothing is removed.
    pub(crate) fn keep(kept: Vec<ManifestFile>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Everything is removed.
    pub(crate) async fn truncate(table: &Table, manifests: Vec<ManifestFile>) -> Result<Self> {
        let mut standing = Self::default();
        for manifest in manifests {
            for entry in live_entries(table, &manifest).await? {
                standing.removed.push(entry.data_file.clone());
                match manifest.content {
                    ManifestContentType::Data => standing.data.push(Entry::Deleted(entry)),
                    ManifestContentType::Deletes => standing.deletes.push(Entry::Deleted(entry)),
                }
            }
        }
        Ok(standing)
    }

    /// Each data file named in `by_path` gives its place, and its sequence number, to another.
    pub(crate) async fn rewrite(
        table: &Table,
        manifests: Vec<ManifestFile>,
        mut by_path: HashMap<&str, &DataFile>,
    ) -> Result<Self> {
        let mut standing = Self::default();
        for manifest in manifests {
            if manifest.content == ManifestContentType::Deletes {
                standing.kept.push(manifest);
                continue;
            }
            let entries = live_entries(table, &manifest).await?;
            if !entries.iter().any(|e| by_path.contains_key(e.file_path())) {
                standing.kept.push(manifest);
                continue;
            }
            for entry in entries {
                match by_path.remove(entry.file_path()) {
                    Some(file) => standing.replace(entry, file),
                    None => standing.data.push(Entry::Existing(entry)),
                }
            }
        }
        match by_path.keys().next() {
            None => Ok(standing),
            Some(path) => Err(Error::conflict("LAKE_CONFLICT", format!("{path} is gone"))
                .with_table(table.identifier())),
        }
    }

    fn replace(&mut self, old: ManifestEntryRef, new: &DataFile) {
        let sequence_number = old.sequence_number.unwrap_or(0);
        self.removed.push(old.data_file.clone());
        self.data.push(Entry::Deleted(old));
        self.data.push(Entry::Added(Box::new(new.clone()), sequence_number));
    }
}
