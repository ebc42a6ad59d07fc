//! Reading the lake's files: columns are found by field id, never by name or place; a field that a
//! file lacks is NULL (Iceberg spec, Column Projection).

use std::ops::Range;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{FieldRef, Schema as ArrowSchema, SchemaRef};
use arrow_select::concat::concat_batches;
use futures::TryStreamExt;
use iceberg::spec::{DataFile, ManifestContentType, Schema};
use iceberg::table::Table;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, RowGroupMetaData};

use crate::error::{Error, Result};
use crate::iceberg::layout::{arrow_schema, record_batch, retype};
use crate::iceberg::manifests::{live_entries, live_manifests};
use crate::iceberg::storage::LakeStorage;

pub use crate::iceberg::live_rows::LiveRows;
pub use crate::iceberg::locate::{Place, count_live, locate};

/// Live data files with their data sequence numbers, newest first.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn live_data_files(table: &Table) -> Result<Vec<(DataFile, i64)>> {
    live_files(table, ManifestContentType::Data).await
}

/// Live equality and position delete files with their data sequence numbers, newest first.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn live_delete_files(table: &Table) -> Result<Vec<(DataFile, i64)>> {
    live_files(table, ManifestContentType::Deletes).await
}

async fn live_files(table: &Table, content: ManifestContentType) -> Result<Vec<(DataFile, i64)>> {
    let mut files = Vec::new();
    for manifest in live_manifests(table).await?.iter().filter(|m| m.content == content) {
        let entries = live_entries(table, manifest).await?;
        let numbered = |e: &iceberg::spec::ManifestEntryRef| {
            (e.data_file.clone(), e.sequence_number.unwrap_or(0))
        };
        files.extend(entries.iter().map(numbered));
    }
    files.sort_by_key(|(_, sequence_number)| std::cmp::Reverse(*sequence_number));
    Ok(files)
}

/// The fields `field_ids` of the rows of one file; `rows` ascending, without repetition. Columns
/// come in the order of `field_ids`, in the lake's Arrow types; one that the file lacks is NULL.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn read_rows(
    storage: &LakeStorage,
    schema: &Schema,
    file: &DataFile,
    rows: &[u64],
    field_ids: &[i32],
) -> Result<RecordBatch> {
    let fields = fields(schema, field_ids)?;
    let open = OpenFile::open(storage, file, PageIndexPolicy::Optional).await?;
    let projection = open.project(&fields);
    let ranges = ranges(rows);
    let total = usize::try_from(open.metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
    let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), total);
    let stream = open.builder().with_projection(projection.mask.clone());
    let stream = stream.with_row_selection(selection).build().map_err(|e| open.failed(e))?;
    let found: Vec<RecordBatch> = stream.try_collect().await.map_err(|e| open.failed(e))?;
    let found = found.iter().map(|b| projection.apply(b)).collect::<Result<Vec<_>>>()?;
    let found = concat_batches(&projection.schema, &found).map_err(|e| open.failed(e))?;
    match found.num_rows() == rows.len() {
        true => Ok(found),
        false => Err(Error::fatal("LAKE_METADATA", format!("{} has other rows", open.location))),
    }
}

/// How many bytes a row of `file` has in memory, on average. The file's own size says nothing of
/// it: large values that repeat or compress well are small there.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn row_bytes(storage: &LakeStorage, file: &DataFile) -> Result<u64> {
    let open = OpenFile::open(storage, file, PageIndexPolicy::Skip).await?;
    let groups = open.metadata.metadata().row_groups();
    let bytes = |column: &ColumnChunkMetaData| {
        let values = column.unencoded_byte_array_data_bytes().unwrap_or(0);
        u64::try_from(values.max(column.uncompressed_size())).unwrap_or(0)
    };
    let total: u64 = groups.iter().flat_map(RowGroupMetaData::columns).map(bytes).sum();
    Ok(total / file.record_count().max(1) + 1)
}

/// Runs of ascending row numbers as ranges.
fn ranges(rows: &[u64]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in rows.iter().filter_map(|&r| usize::try_from(r).ok()) {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

/// The lake's Arrow fields of these ids, in this order.
pub(crate) fn fields(schema: &Schema, field_ids: &[i32]) -> Result<Vec<FieldRef>> {
    let arrow = arrow_schema(schema)?;
    let found = field_ids.iter().map(|&id| {
        let field = arrow.fields().iter().find(|f| field_id(f) == Some(id)).cloned();
        field.ok_or_else(|| Error::fatal("LAYOUT", format!("the lake's table has no field {id}")))
    });
    found.collect()
}

/// The field id of an Arrow field that came from, or goes to, a file of the lake.
pub(crate) fn field_id(field: &FieldRef) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// A Parquet file with its footer read.
pub(crate) struct OpenFile {
    pub(crate) location: String,
    pub(crate) metadata: ArrowReaderMetadata,
    reader: ParquetObjectReader,
}

impl OpenFile {
    pub(crate) async fn open(
        storage: &LakeStorage,
        file: &DataFile,
        page_index: PageIndexPolicy,
    ) -> Result<Self> {
        let location = file.file_path().to_owned();
        let object = storage.object(&location)?;
        let mut reader = ParquetObjectReader::new(object.store, object.path)
            .with_file_size(file.file_size_in_bytes());
        let options = ArrowReaderOptions::new().with_page_index_policy(page_index);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options).await;
        let metadata = metadata.map_err(|e| failed(&location, e))?;
        Ok(Self { location, metadata, reader })
    }

    pub(crate) fn builder(&self) -> ParquetRecordBatchStreamBuilder<ParquetObjectReader> {
        let (reader, metadata) = (self.reader.clone(), self.metadata.clone());
        ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
    }

    /// Whether the file has a column of this field id.
    pub(crate) fn has_field(&self, id: i32) -> bool {
        self.metadata.schema().fields().iter().any(|f| field_id(f) == Some(id))
    }

    /// How to read `fields` from this file.
    pub(crate) fn project(&self, fields: &[FieldRef]) -> Projection {
        let file = self.metadata.schema().fields();
        let root = |f: &FieldRef| file.iter().position(|c| field_id(c) == field_id(f));
        let roots: Vec<Option<usize>> = fields.iter().map(root).collect();
        let mut read: Vec<usize> = roots.iter().flatten().copied().collect();
        read.sort_unstable();
        let place = |root: Option<usize>| read.iter().position(|&r| Some(r) == root);
        Projection {
            places: roots.into_iter().map(|root| root.and_then(|r| place(Some(r)))).collect(),
            mask: ProjectionMask::roots(self.metadata.parquet_schema(), read.iter().copied()),
            schema: std::sync::Arc::new(ArrowSchema::new(fields.to_vec())),
        }
    }

    pub(crate) fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        failed(&self.location, error)
    }
}

pub(crate) fn failed(
    location: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::transient("LAKE_IO", format!("could not read {location}"))
        .with_cure("is the lake's folder there and complete?")
        .with_source(error)
}

/// Which columns of a file are read, and what they become.
pub(crate) struct Projection {
    pub(crate) mask: ProjectionMask,
    /// For each field wanted: its place among the columns read.
    places: Vec<Option<usize>>,
    pub(crate) schema: SchemaRef,
}

impl Projection {
    /// Rows as read, made rows of the lake's types.
    pub(crate) fn apply(&self, read: &RecordBatch) -> Result<RecordBatch> {
        let columns =
            self.schema.fields().iter().zip(&self.places).map(|(field, place)| {
                match place.and_then(|at| read.columns().get(at)) {
                    Some(column) => retype(column, field.data_type()),
                    None => Ok(new_null_array(field.data_type(), read.num_rows())),
                }
            });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        record_batch(&self.schema, columns, read.num_rows())
    }
}
