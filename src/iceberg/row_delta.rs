//! What one lake commit changes in one table, as one iceberg_snapshot.
//!
//! Segment k has the data sequence number base + 1 + k and the iceberg_snapshot the last segment's,
//! so that a segment's equality deletes reach all earlier segments and nothing of its own (Iceberg
//! spec, Sequence Numbers; Scan Planning). The numbers are tied to the base: when another commit
//! gets in between, everything is staged again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, Operation, Schema, SchemaRef,
    Snapshot, SnapshotReference, SnapshotRetention, SnapshotSummaryCollector, Summary,
    TableMetadata,
};
use iceberg::table::Table;
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::history::Keep;
use crate::iceberg::lake_error;
use crate::iceberg::manifests::{Entry, ManifestSink, Standing, live_manifests};

/// The files of one segment of a window.
#[derive(Debug, Clone, Default)]
pub struct SegmentFiles {
    /// Rows that stand after this segment.
    pub data: Vec<DataFile>,
    /// Equality deletes: keys that earlier segments or the lake may hold.
    pub deletes: Vec<DataFile>,
    /// Rows in `data`.
    pub rows_inserted: u64,
    /// Keys in `deletes`.
    pub rows_deleted: u64,
    /// Whether a row of `data` has a `_pg_raw` value.
    pub has_raw: bool,
}

/// A data file that takes the place of another one, with the same rows in the same order, and its
/// data sequence number.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// Location of the old file.
    pub old_path: String,
    /// The new file.
    pub file: DataFile,
}

/// What one lake commit changes in one table.
#[derive(Debug, Clone, Default)]
pub struct RowDelta {
    /// In order: segment k gets the data sequence number base + 1 + k.
    pub segments: Vec<SegmentFiles>,
    /// Remove all files that stood in the table before. `segments` are those after the TRUNCATE.
    pub truncate: bool,
    /// The new current schema, in the same commit.
    pub schema: Option<Schema>,
    /// Backfill: files that take the place of others.
    pub rewritten: Vec<Rewritten>,
    /// Table properties to set.
    pub properties: HashMap<String, String>,
    /// Further entries of the snapshot summary.
    pub summary: HashMap<String, String>,
}

/// A row delta made ready on one version of its table: manifests are written, nothing refers to
/// them yet.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The table it was staged on; without metadata location if it is born here.
    pub table: Table,
    /// The table's name.
    pub ident: TableIdent,
    /// What must still hold when it is committed.
    pub requirements: Vec<TableRequirement>,
    /// The changes, in order.
    pub updates: Vec<TableUpdate>,
    /// Locations of the metadata files written for it.
    pub new_files: Vec<String>,
    /// Locations that nothing refers to once this is committed.
    pub obsolete_files: Vec<String>,
}

impl RowDelta {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        let files = |s: &SegmentFiles| s.data.is_empty() && s.deletes.is_empty();
        !self.truncate
            && self.schema.is_none()
            && self.rewritten.is_empty()
            && self.properties.is_empty()
            && self.segments.iter().all(files)
    }

    /// Writes the manifests; may be called again on a newer version of the table.
    ///
    /// # Errors
    /// `LAKE_IO` (transient), `LAKE_CONFLICT` (conflict) where a file to rewrite is gone,
    /// `LAKE_TABLE` (table) for a table that was made something frazil does not write to.
    pub async fn stage(&self, table: &Table) -> Result<Staged> {
        self.stage_keeping(table, Keep::All).await
    }

    /// As [`RowDelta::stage`]; older iceberg_snapshots that need not be kept are removed.
    pub(crate) async fn stage_keeping(&self, table: &Table, keep: Keep) -> Result<Staged> {
        check_writable(table)?;
        let metadata = table.metadata();
        let schema = match &self.schema {
            Some(schema) => with_next_id(metadata, schema)?,
            None => metadata.current_schema().clone(),
        };
        let mut updates = schema_updates(metadata, &schema);
        if !self.properties.is_empty() {
            updates.push(TableUpdate::SetProperties { updates: self.properties.clone() });
        }
        let mut removals = Vec::new();
        let obsolete_files = keep.expire(metadata, &mut removals)?;
        let snapshot_id = new_snapshot_id(metadata);
        let sink = ManifestSink::new(table, schema.clone(), snapshot_id);

        let written = self.write_manifests(table, &sink).await;
        let (list, summary, sequence_number) = match written {
            Ok(written) => written,
            Err(error) => {
                sink.discard().await;
                return Err(error);
            }
        };
        let snapshot = Snapshot::builder()
            .with_snapshot_id(snapshot_id)
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(sequence_number)
            .with_timestamp_ms(next_timestamp_ms(metadata))
            .with_manifest_list(list)
            .with_summary(summary)
            .with_schema_id(schema.schema_id())
            .build();
        updates.push(TableUpdate::AddSnapshot { snapshot });
        updates.push(main_branch(snapshot_id));
        updates.extend(removals);
        Ok(Staged {
            table: table.clone(),
            ident: table.identifier().clone(),
            requirements: self.requirements(table),
            updates,
            new_files: sink.written(),
            obsolete_files,
        })
    }

    /// Writes manifests and their list: its location, the summary and the sequence number.
    async fn write_manifests(
        &self,
        table: &Table,
        sink: &ManifestSink<'_>,
    ) -> Result<(String, Summary, i64)> {
        let metadata = table.metadata();
        let standing = self.standing(table).await?;
        let summary = self.summarize(metadata, &standing.removed);
        let base = metadata.last_sequence_number();
        let sequence_number = base + i64::try_from(self.segments.len().max(1)).unwrap_or(1);
        let mut manifests = Vec::new();
        let kept = sink.merge(standing.kept).await?;
        let (data, deletes) = self.added(base, standing.data, standing.deletes);
        let data = sink.manifest(ManifestContentType::Data, data);
        let deletes = sink.manifest(ManifestContentType::Deletes, deletes);
        // Both to their end: what one of them has begun is deleted if the other fails.
        let (data, deletes) = futures::join!(data, deletes);
        manifests.extend(data?);
        manifests.extend(deletes?);
        manifests.extend(kept);
        let list = sink.list(manifests, sequence_number).await?;
        Ok((list, summary, sequence_number))
    }

    fn requirements(&self, table: &Table) -> Vec<TableRequirement> {
        let metadata = table.metadata();
        if table.metadata_location().is_none() {
            return vec![TableRequirement::NotExist];
        }
        let mut requirements = vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: MAIN_BRANCH.to_owned(),
                snapshot_id: metadata.current_snapshot_id(),
            },
        ];
        // The table may have been loaded a while ago: neither its spec nor its schema is another.
        requirements.push(TableRequirement::DefaultSpecIdMatch {
            default_spec_id: metadata.default_partition_spec_id(),
        });
        requirements.push(TableRequirement::CurrentSchemaIdMatch {
            current_schema_id: metadata.current_schema_id(),
        });
        if self.schema.is_some() {
            requirements.push(TableRequirement::LastAssignedFieldIdMatch {
                last_assigned_field_id: metadata.last_column_id(),
            });
        }
        requirements
    }

    async fn standing(&self, table: &Table) -> Result<Standing> {
        let manifests = live_manifests(table).await?;
        if self.truncate {
            return Standing::truncate(table, manifests).await;
        }
        if self.rewritten.is_empty() {
            return Ok(Standing::keep(manifests));
        }
        let by_path = self.rewritten.iter().map(|r| (r.old_path.as_str(), &r.file)).collect();
        Standing::rewrite(table, manifests, by_path).await
    }

    /// The entries of all segments behind `data` and `deletes`.
    fn added(
        &self,
        base: i64,
        mut data: Vec<Entry>,
        mut deletes: Vec<Entry>,
    ) -> (Vec<Entry>, Vec<Entry>) {
        for (sequence_number, segment) in (base + 1..).zip(&self.segments) {
            let added = |f: &DataFile| Entry::Added(Box::new(f.clone()), sequence_number);
            data.extend(segment.data.iter().map(added));
            deletes.extend(segment.deletes.iter().map(added));
        }
        (data, deletes)
    }

    /// All files that come into the table.
    pub(crate) fn added_files(&self) -> impl Iterator<Item = &DataFile> {
        let segments = self.segments.iter().flat_map(|s| s.data.iter().chain(&s.deletes));
        segments.chain(self.rewritten.iter().map(|r| &r.file))
    }

    fn summarize(&self, metadata: &TableMetadata, removed: &[DataFile]) -> Summary {
        let mut collector = SnapshotSummaryCollector::default();
        let schema = metadata.current_schema();
        let spec = metadata.default_partition_spec();
        for file in self.added_files() {
            collector.add_file(file, schema.clone(), spec.clone());
        }
        for file in removed {
            collector.remove_file(file, schema.clone(), spec.clone());
        }
        let mut properties = self.summary.clone();
        properties.extend(collector.build());
        add_totals(metadata, &mut properties);
        Summary { operation: self.operation(removed), additional_properties: properties }
    }

    fn operation(&self, removed: &[DataFile]) -> Operation {
        let has = |pick: fn(&SegmentFiles) -> &Vec<DataFile>| {
            self.segments.iter().any(|s| !pick(s).is_empty())
        };
        let (data, deletes) = (has(|s| &s.data), has(|s| &s.deletes));
        match (data, deletes, removed.is_empty()) {
            (_, false, true) => Operation::Append,
            // A backfill changes what rows say; other rewrites do not.
            (false, false, false) if !self.rewritten.is_empty() => match self.schema {
                Some(_) => Operation::Overwrite,
                None => Operation::Replace,
            },
            (false, _, _) => Operation::Delete,
            _ => Operation::Overwrite,
        }
    }
}

/// Totals of the summary: the last ones, plus what was added, less what was removed. A total that
/// the last summary lacks stays unknown, as in Iceberg's own writers.
fn add_totals(metadata: &TableMetadata, properties: &mut HashMap<String, String>) {
    let last = metadata.current_snapshot().map(|s| &s.summary().additional_properties);
    for (total, added, removed) in [
        ("total-data-files", "added-data-files", "deleted-data-files"),
        ("total-delete-files", "added-delete-files", "removed-delete-files"),
        ("total-records", "added-records", "deleted-records"),
        ("total-files-size", "added-files-size", "removed-files-size"),
        ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
        ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
    ] {
        let number = |key| properties.get(key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let before = match last {
            None => Some(0),
            Some(last) => last.get(total).and_then(|v| v.parse::<u64>().ok()),
        };
        if let Some(before) = before {
            let now = (before + number(added)).saturating_sub(number(removed));
            properties.insert(total.to_owned(), now.to_string());
        }
    }
}

fn check_writable(table: &Table) -> Result<()> {
    let metadata = table.metadata();
    let bad = |what: &str| {
        Error::table("LAKE_TABLE", table.identifier(), what.to_owned())
            .with_cure("drop the lake's table and let frazil copy it afresh")
    };
    if metadata.format_version() != FormatVersion::V2 {
        return Err(bad("the lake's table is not of format version 2 any more"));
    }
    if !metadata.default_partition_spec().is_unpartitioned() {
        return Err(bad("the lake's table was given a partition spec"));
    }
    Ok(())
}

/// The schema of the table that says the same, if there is one.
fn equal_schema<'a>(metadata: &'a TableMetadata, schema: &Schema) -> Option<&'a SchemaRef> {
    let identifiers = |schema: &Schema| schema.identifier_field_ids().collect::<HashSet<_>>();
    metadata.schemas_iter().find(|known| {
        known.as_struct() == schema.as_struct() && identifiers(known) == identifiers(schema)
    })
}

/// `schema` under the id that the table's metadata will give it: an equal schema's, or a new one.
fn with_next_id(metadata: &TableMetadata, schema: &Schema) -> Result<SchemaRef> {
    if let Some(known) = equal_schema(metadata, schema) {
        return Ok(known.clone());
    }
    let id = metadata.schemas_iter().map(|s| s.schema_id() + 1).max().unwrap_or(0);
    let schema = schema.clone().into_builder().with_schema_id(id).build();
    schema.map(Arc::new).map_err(|e| lake_error("the lake's schema", e))
}

/// The updates that make `schema` the current one. It goes under its own id: Nessie refuses one
/// that is taken, also by the same schema, where the crate looks for a free one.
fn schema_updates(metadata: &TableMetadata, schema: &SchemaRef) -> Vec<TableUpdate> {
    let schema_id = schema.schema_id();
    if schema_id == metadata.current_schema_id() {
        return Vec::new();
    }
    let set_current = TableUpdate::SetCurrentSchema { schema_id };
    match metadata.schema_by_id(schema_id) {
        Some(_) => vec![set_current],
        None => vec![TableUpdate::AddSchema { schema: schema.as_ref().clone() }, set_current],
    }
}

fn build(
    metadata: TableMetadata,
    location: Option<String>,
    updates: &[TableUpdate],
) -> Result<(TableMetadata, Vec<String>)> {
    let mut builder = metadata.into_builder(location);
    for update in updates.iter().cloned() {
        builder = update.apply(builder).map_err(|e| lake_error("a table update", e))?;
    }
    let built = builder.build().map_err(|e| lake_error("the table's new metadata", e))?;
    let expired = built.expired_metadata_logs.into_iter().map(|l| l.metadata_file).collect();
    Ok((built.metadata, expired))
}

fn new_snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = i64::try_from((high ^ low) >> 1).unwrap_or(0);
        if metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// Now, or just after the last change if the clock went back (case 156).
fn next_timestamp_ms(metadata: &TableMetadata) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let last = metadata.current_snapshot().map_or(i64::MIN, |s| s.timestamp_ms() + 1);
    now.max(last).max(metadata.last_updated_ms())
}

fn main_branch(snapshot_id: i64) -> TableUpdate {
    TableUpdate::SetSnapshotRef {
        ref_name: MAIN_BRANCH.to_owned(),
        reference: SnapshotReference::new(snapshot_id, SnapshotRetention::branch(None, None, None)),
    }
}

impl Staged {
    /// Checks the requirements and applies the updates: the table's new metadata. The crate's own
    /// checks run here, of which a catalog may have fewer.
    ///
    /// # Errors
    /// `LAKE_CONFLICT` where a requirement does not hold.
    pub fn apply(&self) -> Result<TableMetadata> {
        self.check()?;
        let built = build(self.table.metadata().clone(), None, &self.updates);
        built.map(|(metadata, _)| metadata).map_err(|e| e.with_table(&self.ident))
    }

    /// As [`Staged::apply`], with the metadata files that fell out of the log.
    pub(crate) fn apply_logged(&self) -> Result<(TableMetadata, Vec<String>)> {
        self.check()?;
        let location = self.table.metadata_location().map(str::to_owned);
        build(self.table.metadata().clone(), location, &self.updates)
            .map_err(|e| e.with_table(&self.ident))
    }

    fn check(&self) -> Result<()> {
        let standing = self.table.metadata_location().map(|_| self.table.metadata());
        for requirement in &self.requirements {
            requirement.check(standing).map_err(|e| {
                Error::conflict("LAKE_CONFLICT", "the table moved")
                    .with_table(&self.ident)
                    .with_source(e)
            })?;
        }
        Ok(())
    }
}
