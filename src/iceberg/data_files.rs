//! One Parquet file of the lake, written as a stream of RecordBatches.
//!
//! zstd level 1; a dictionary only for strings that repeat (measured: a dictionary on everything
//! costs half as much again and makes larger files), DELTA_BINARY_PACKED for integers and times.
//! Whether a column's strings repeat is learnt from the first rows of the table and kept in
//! [`ColumnHints`]. Row groups are bounded by their encoded bytes, so memory is bounded per file.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Schema};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::arrow::async_writer::AsyncArrowWriter;
use parquet::basic::{Compression, Encoding, LogicalType, Type as Physical, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnPath, SchemaDescriptor, Type, TypePtr};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::bounds;
use crate::iceberg::layout::arrow_schema;
use crate::iceberg::storage::{LakeStorage, Upload};

/// Encoded bytes of a row group, about 64 MiB of rows. An open file holds at most twice this in
/// memory: while a row group is written out it stands there a second time.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// In the form that Java's Parquet reader can parse: it ignores the statistics of strings in files
/// whose writer it can't make out.
const CREATED_BY: &str = concat!("frazil version ", env!("CARGO_PKG_VERSION"));

/// Values looked at to decide on a dictionary, and the fewest that decide anything.
const SAMPLE_VALUES: usize = 4096;
const SAMPLE_VALUES_MIN: usize = 64;

/// A column gets a dictionary if at most one in this many sampled values is new.
const REPEATS_MIN: usize = 8;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileContent {
    /// Rows, in the table's schema.
    Data,
    /// Keys to delete from all files with a smaller sequence number; the schema is
    /// [`crate::iceberg::schema::key_schema`]'s and the equality ids are its fields.
    EqualityDeletes,
}

/// What the first rows of a table taught about its columns; shared by all its later files.
#[derive(Debug, Default)]
pub struct ColumnHints {
    /// By column name: whether its strings repeat.
    repeats: Mutex<HashMap<String, bool>>,
}

/// Writes one Parquet file under `<table location>/data/`. The file is made when the first rows
/// come, and is durable (but for its directories) when [`FileWriter::close`] returns.
pub struct FileWriter {
    storage: LakeStorage,
    location: String,
    schema: Schema,
    arrow: SchemaRef,
    content: FileContent,
    hints: Arc<ColumnHints>,
    writer: Option<AsyncArrowWriter<Upload>>,
    rows: u64,
}

impl FileWriter {
    /// A writer of rows of `schema`, whose field ids become the file's.
    ///
    /// # Errors
    /// `LAKE_LOCATION` for a location outside this storage.
    pub fn new(
        storage: &LakeStorage,
        table_location: &str,
        schema: &Schema,
        content: FileContent,
        hints: &Arc<ColumnHints>,
    ) -> Result<Self> {
        let location = format!("{table_location}/data/{}.parquet", Uuid::now_v7());
        Ok(Self {
            storage: storage.clone(),
            location,
            arrow: arrow_schema(schema)?,
            schema: schema.clone(),
            content,
            hints: hints.clone(),
            writer: None,
            rows: 0,
        })
    }

    /// Appends rows; they may be kept in memory until a row group (16 MiB encoded) is full.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.open(rows)?,
        };
        let written = writer.write(rows).await;
        self.writer = Some(writer);
        self.rows += u64::try_from(rows.num_rows()).unwrap_or(0);
        written.map_err(|e| self.failed(e))
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Encoded bytes so far, those still in memory included.
    pub fn bytes_written(&self) -> u64 {
        let bytes = self.writer.as_ref().map_or(0, |w| w.bytes_written() + w.in_progress_size());
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Finishes and syncs the file. `None` if no rows came, and then there is no file.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn close(mut self) -> Result<Option<DataFile>> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        let footer = writer.finish().await.map_err(|e| self.failed(e))?;
        let written = u64::try_from(writer.bytes_written()).unwrap_or(0);
        self.storage.sync_files(std::slice::from_ref(&self.location)).await?;
        // A store that answered has it all; a file system may have lost the end of it.
        let size = match self.storage.is_local(&self.location) {
            true => self.storage.size(&self.location).await?,
            false => written,
        };
        if size != written {
            let what = format!("{} has {size} bytes where {written} were written", self.location);
            return Err(Error::transient("LAKE_IO", what)
                .with_cure("nothing was acknowledged; it is written again"));
        }
        Ok(Some(self.describe(&footer, size)?))
    }

    fn open(&self, first: &RecordBatch) -> Result<AsyncArrowWriter<Upload>> {
        let options = options(&self.arrow, first, &self.hints).map_err(|e| self.failed(e))?;
        AsyncArrowWriter::try_new_with_options(
            self.storage.upload(&self.location)?,
            self.arrow.clone(),
            options,
        )
        .map_err(|e| self.failed(e))
    }

    fn describe(&self, footer: &ParquetMetaData, bytes: u64) -> Result<DataFile> {
        let metrics = bounds::metrics(footer, &self.schema);
        let ids: Vec<i32> = self.schema.as_struct().fields().iter().map(|f| f.id).collect();
        let (content, equality_ids) = match self.content {
            FileContent::Data => (DataContentType::Data, None),
            FileContent::EqualityDeletes => (DataContentType::EqualityDeletes, Some(ids)),
        };
        DataFileBuilder::default()
            .content(content)
            .file_path(self.location.clone())
            .file_format(DataFileFormat::Parquet)
            .record_count(self.rows)
            .file_size_in_bytes(bytes)
            .column_sizes(metrics.column_sizes)
            .value_counts(metrics.value_counts)
            .null_value_counts(metrics.null_value_counts)
            .lower_bounds(metrics.lower_bounds)
            .upper_bounds(metrics.upper_bounds)
            .split_offsets(Some(metrics.split_offsets))
            .equality_ids(equality_ids)
            .build()
            .map_err(|e| self.failed(e))
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::transient("LAKE_IO", format!("could not write {}", self.location))
            .with_cure("is the lake's folder there, writable, not full? nothing was acknowledged")
            .with_source(error)
    }
}

/// The bytes of a file of these rows, as a [`FileWriter`] writes it.
///
/// # Errors
/// `LAKE_IO` (transient).
#[doc(hidden)]
pub fn encode(schema: &Schema, rows: &[RecordBatch], hints: &ColumnHints) -> Result<Vec<u8>> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let failed = |e| Error::transient("LAKE_IO", "rows do not make Parquet").with_source(e);
    let arrow = arrow_schema(schema)?;
    let options = options(&arrow, first, hints).map_err(failed)?;
    let mut writer =
        ArrowWriter::try_new_with_options(Vec::new(), arrow, options).map_err(failed)?;
    rows.iter().try_for_each(|rows| writer.write(rows)).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

fn options(
    arrow: &SchemaRef,
    first: &RecordBatch,
    hints: &ColumnHints,
) -> parquet::errors::Result<ArrowWriterOptions> {
    Ok(ArrowWriterOptions::new()
        .with_properties(properties(first, hints))
        .with_skip_arrow_metadata(true)
        .with_parquet_schema(parquet_schema(arrow)?))
}

fn properties(first: &RecordBatch, hints: &ColumnHints) -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_dictionary_enabled(false)
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_created_by(CREATED_BY.to_owned());
    for (field, column) in first.schema_ref().fields().iter().zip(first.columns()) {
        let path = ColumnPath::new(vec![field.name().clone()]);
        match field.data_type() {
            DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(_, _) => {
                properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            DataType::Utf8 if hints.repeats(field, column) => {
                properties = properties.set_column_dictionary_enabled(path, true);
            }
            // A uuid: Java's reader compares its halves as signed numbers and skips row groups that
            // have the value (apache/iceberg#14216).
            DataType::FixedSizeBinary(16) => {
                properties =
                    properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            _ => {}
        }
    }
    properties.build()
}

impl ColumnHints {
    /// Whether the strings of a column repeat; learnt from `column` where it is not known yet.
    fn repeats(&self, field: &Field, column: &dyn Array) -> bool {
        let mut known = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&repeats) = known.get(field.name()) {
            return repeats;
        }
        let values = column.as_string::<i32>();
        let sampled: Vec<&str> = values.iter().flatten().take(SAMPLE_VALUES).collect();
        let distinct: HashSet<&str> = sampled.iter().copied().collect();
        let repeats = distinct.len() * REPEATS_MIN <= sampled.len();
        if sampled.len() < SAMPLE_VALUES_MIN {
            return false;
        }
        known.insert(field.name().clone(), repeats);
        repeats
    }
}

/// The Parquet schema of an Arrow schema, with what the converter leaves out: that 16 fixed bytes
/// are a UUID (Iceberg spec, Appendix A, Parquet). The lake's only 16-byte type is uuid.
fn parquet_schema(arrow: &SchemaRef) -> parquet::errors::Result<SchemaDescriptor> {
    let converted = ArrowSchemaConverter::new().schema_root("table").convert(arrow)?;
    Ok(SchemaDescriptor::new(annotate(&converted.root_schema_ptr(), true)?))
}

fn annotate(ty: &TypePtr, root: bool) -> parquet::errors::Result<TypePtr> {
    let info = ty.get_basic_info();
    let id = info.has_id().then(|| info.id());
    let uuid = |length| length == 16 && info.logical_type_ref().is_none();
    let made = match ty.as_ref() {
        Type::PrimitiveType {
            physical_type: Physical::FIXED_LEN_BYTE_ARRAY, type_length, ..
        } if uuid(*type_length) => {
            Type::primitive_type_builder(ty.name(), Physical::FIXED_LEN_BYTE_ARRAY)
                .with_repetition(info.repetition())
                .with_length(*type_length)
                .with_logical_type(Some(LogicalType::Uuid))
                .with_id(id)
                .build()?
        }
        Type::PrimitiveType { .. } => return Ok(ty.clone()),
        Type::GroupType { fields, .. } => {
            let fields = fields.iter().map(|f| annotate(f, false)).collect::<Result<_, _>>()?;
            let group = Type::group_type_builder(ty.name()).with_fields(fields).with_id(id);
            let group = group
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned());
            let group = if root { group } else { group.with_repetition(info.repetition()) };
            group.build()?
        }
    };
    Ok(Arc::new(made))
}
