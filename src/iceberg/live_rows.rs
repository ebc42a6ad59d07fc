//! A whole table, merged on read: each data file streamed once, each row looked up in hash maps of
//! the deletes; O(rows + deletes).
//!
//! An equality delete removes a row of a file with a smaller data sequence number, a position
//! delete one of a smaller or equal number (Iceberg spec, Scan Planning). NULL equals NULL.

use std::collections::{HashMap, HashSet, VecDeque};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_row::RowConverter;
use arrow_schema::FieldRef;
use arrow_select::filter::filter_record_batch;
use futures::TryStreamExt;
use iceberg::spec::{DataContentType, DataFile, Schema};
use iceberg::table::Table;
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStream};
use parquet::file::metadata::PageIndexPolicy;

use crate::error::{Error, Result};
use crate::iceberg::locate::key_converter;
use crate::iceberg::read::{
    OpenFile, Projection, field_id, fields, live_data_files, live_delete_files,
};
use crate::iceberg::storage::LakeStorage;

/// Reserved field ids of position delete files.
const POSITION_FILE_PATH: i32 = 2_147_483_546;
const POSITION_POS: i32 = 2_147_483_545;

/// All live rows of a table, file by file: equality and position deletes applied.
pub struct LiveRows {
    storage: LakeStorage,
    fields: Vec<FieldRef>,
    files: VecDeque<(DataFile, i64)>,
    equality: Vec<EqualityDeletes>,
    positions: DeletedPositions,
    current: Option<Current>,
}

/// All equality deletes over one set of fields.
struct EqualityDeletes {
    /// Places of the fields in the table's schema.
    places: Vec<usize>,
    ids: Vec<i32>,
    converter: RowConverter,
    /// Key -> the largest sequence number that deletes it.
    keys: HashMap<Box<[u8]>, i64, foldhash::fast::RandomState>,
}

/// The data file that is being read.
struct Current {
    open: OpenFile,
    stream: ParquetRecordBatchStream<ParquetObjectReader>,
    projection: Projection,
    sequence_number: i64,
    positions: HashSet<u64>,
    row: u64,
}

impl LiveRows {
    /// Reads the delete files and makes ready to read the data files, oldest first.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn open(storage: &LakeStorage, table: &Table) -> Result<Self> {
        let schema = table.metadata().current_schema();
        let ids: Vec<i32> = schema.as_struct().fields().iter().map(|f| f.id).collect();
        let deletes = live_delete_files(table).await?;
        Self::of_fields(storage, table, &ids, deletes).await
    }

    /// Counts the live rows. Of the data files only those are read that a delete may reach, and of
    /// these only the columns that deletes name.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn count(storage: &LakeStorage, table: &Table) -> Result<u64> {
        let deletes = live_delete_files(table).await?;
        let mut ids: Vec<i32> =
            deletes.iter().flat_map(|(file, _)| file.equality_ids().unwrap_or_default()).collect();
        ids.sort_unstable();
        ids.dedup();
        let schema = table.metadata().current_schema();
        // Position deletes name no column, but something must be read to count.
        if ids.is_empty() {
            ids.extend(schema.as_struct().fields().first().map(|f| f.id));
        }
        let reach = deletes.iter().map(|(_, sequence_number)| *sequence_number).max();
        let mut rows = Self::of_fields(storage, table, &ids, deletes).await?;
        let is_reached = |number: i64| reach.is_some_and(|reach| number <= reach);
        let (read, whole): (Vec<_>, Vec<_>) = std::mem::take(&mut rows.files)
            .into_iter()
            .partition(|(_, number)| is_reached(*number));
        rows.files = read.into();
        let mut count = whole.iter().map(|(file, _)| file.record_count()).sum();
        while let Some(rows) = rows.next().await? {
            count += u64::try_from(rows.num_rows()).unwrap_or(0);
        }
        Ok(count)
    }

    async fn of_fields(
        storage: &LakeStorage,
        table: &Table,
        ids: &[i32],
        deletes: Vec<(DataFile, i64)>,
    ) -> Result<Self> {
        let schema = table.metadata().current_schema();
        let mut rows = Self {
            storage: storage.clone(),
            fields: fields(schema, ids)?,
            files: live_data_files(table).await?.into_iter().rev().collect(),
            equality: Vec::new(),
            positions: DeletedPositions::default(),
            current: None,
        };
        for (file, sequence_number) in deletes {
            match file.content_type() {
                DataContentType::EqualityDeletes => {
                    rows.add_equality(schema, &file, sequence_number).await?;
                }
                _ => rows.add_positions(&file, sequence_number).await?,
            }
        }
        Ok(rows)
    }

    /// The next rows, in the table's current schema; `None` at the end.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(current) = &mut self.current else {
                match self.files.pop_front() {
                    Some((file, number)) => self.current = Some(self.begin(&file, number).await?),
                    None => return Ok(None),
                }
                continue;
            };
            let read = current.stream.try_next().await.map_err(|e| current.open.failed(e))?;
            let Some(read) = read else {
                self.current = None;
                continue;
            };
            let rows = current.projection.apply(&read)?;
            let live = current.live(&rows, &self.equality)?;
            if live.num_rows() > 0 {
                return Ok(Some(live));
            }
        }
    }

    async fn begin(&mut self, file: &DataFile, sequence_number: i64) -> Result<Current> {
        let open = OpenFile::open(&self.storage, file, PageIndexPolicy::Skip).await?;
        let projection = open.project(&self.fields);
        let stream = open.builder().with_projection(projection.mask.clone()).build();
        let stream = stream.map_err(|e| open.failed(e))?;
        let positions = self.positions.of(file, sequence_number);
        Ok(Current { open, stream, projection, sequence_number, positions, row: 0 })
    }

    async fn add_equality(
        &mut self,
        schema: &Schema,
        file: &DataFile,
        sequence_number: i64,
    ) -> Result<()> {
        let ids = file.equality_ids().unwrap_or_default();
        let known = self.equality.iter().position(|d| d.ids == ids);
        let mut deletes = match known {
            Some(at) => self.equality.swap_remove(at),
            None => EqualityDeletes::new(schema, &self.fields, ids)?,
        };
        let fields = deletes.places.iter().filter_map(|&at| self.fields.get(at).cloned());
        let fields: Vec<FieldRef> = fields.collect();
        let mut keys = read_all(&self.storage, file, fields).await?;
        while let Some(batch) = keys.next().await? {
            deletes.add(&batch, sequence_number)?;
        }
        self.equality.push(deletes);
        Ok(())
    }

    async fn add_positions(&mut self, file: &DataFile, sequence_number: i64) -> Result<()> {
        self.positions.read(&self.storage, file, sequence_number).await
    }
}

/// Positions that are deleted, by file, each with the sequence number of its delete.
#[derive(Debug, Default)]
pub(crate) struct DeletedPositions(HashMap<String, Vec<(u64, i64)>>);

impl DeletedPositions {
    /// Adds those in a position delete file.
    pub(crate) async fn read(
        &mut self,
        storage: &LakeStorage,
        file: &DataFile,
        sequence_number: i64,
    ) -> Result<()> {
        let open = OpenFile::open(storage, file, PageIndexPolicy::Skip).await?;
        let wanted = |id| open.metadata.schema().fields().iter().find(|f| field_id(f) == Some(id));
        let (Some(path), Some(pos)) = (wanted(POSITION_FILE_PATH), wanted(POSITION_POS)) else {
            let what = format!("{} is no position delete file", open.location);
            return Err(Error::fatal("LAKE_METADATA", what));
        };
        let mut rows = read_all(storage, file, vec![path.clone(), pos.clone()]).await?;
        while let Some(batch) = rows.next().await? {
            let paths = batch.column(0).as_string::<i32>();
            let positions = batch.column(1).as_primitive::<Int64Type>();
            for (path, row) in paths.iter().zip(positions.iter()) {
                let row = row.and_then(|r| u64::try_from(r).ok());
                if let Some((path, row)) = path.zip(row) {
                    let of_file = self.0.entry(path.to_owned()).or_default();
                    of_file.push((row, sequence_number));
                }
            }
        }
        Ok(())
    }

    /// The rows of a data file that are deleted.
    pub(crate) fn of(&self, file: &DataFile, sequence_number: i64) -> HashSet<u64> {
        let positions = self.0.get(file.file_path()).into_iter().flatten();
        let reached = positions.filter(|(_, delete)| *delete >= sequence_number);
        reached.map(|(row, _)| *row).collect()
    }
}

impl Current {
    fn live(&mut self, rows: &RecordBatch, equality: &[EqualityDeletes]) -> Result<RecordBatch> {
        let mut keep = vec![true; rows.num_rows()];
        for deletes in equality {
            deletes.strike(rows, self.sequence_number, &mut keep)?;
        }
        for keep in &mut keep {
            *keep &= !self.positions.contains(&self.row);
            self.row += 1;
        }
        filter_record_batch(rows, &BooleanArray::from(keep)).map_err(|e| self.open.failed(e))
    }
}

impl EqualityDeletes {
    fn new(schema: &Schema, fields: &[FieldRef], ids: Vec<i32>) -> Result<Self> {
        let place = |id: &i32| {
            let at = fields.iter().position(|f| field_id(f) == Some(*id));
            at.ok_or_else(|| {
                let what = format!("an equality delete of field {id}, which the schema lacks");
                Error::fatal("LAKE_METADATA", what)
            })
        };
        let places = ids.iter().map(place).collect::<Result<Vec<_>>>()?;
        let converter = key_converter(&crate::iceberg::read::fields(schema, &ids)?)?;
        Ok(Self { places, ids, converter, keys: HashMap::default() })
    }

    fn add(&mut self, keys: &RecordBatch, sequence_number: i64) -> Result<()> {
        let rows = self.converter.convert_columns(keys.columns()).map_err(compare_error)?;
        for row in &rows {
            let largest = self.keys.entry(row.as_ref().into()).or_insert(sequence_number);
            *largest = sequence_number.max(*largest);
        }
        Ok(())
    }

    /// Marks the rows that a delete of a larger sequence number removes.
    fn strike(&self, rows: &RecordBatch, sequence_number: i64, keep: &mut [bool]) -> Result<()> {
        let columns = self.places.iter().filter_map(|&at| rows.columns().get(at).cloned());
        let columns: Vec<_> = columns.collect();
        let keys = self.converter.convert_columns(&columns).map_err(compare_error)?;
        for (key, keep) in keys.iter().zip(keep) {
            *keep &= self.keys.get(key.as_ref()).is_none_or(|delete| *delete <= sequence_number);
        }
        Ok(())
    }
}

fn compare_error(error: arrow_schema::ArrowError) -> Error {
    Error::fatal("LAYOUT", "keys could not be compared").with_source(error)
}

/// The rows of one file, some of its fields.
pub(crate) struct FileRows {
    open: OpenFile,
    stream: ParquetRecordBatchStream<ParquetObjectReader>,
    projection: Projection,
}

pub(crate) async fn read_all(
    storage: &LakeStorage,
    file: &DataFile,
    fields: Vec<FieldRef>,
) -> Result<FileRows> {
    let open = OpenFile::open(storage, file, PageIndexPolicy::Skip).await?;
    let projection = open.project(&fields);
    let stream = open.builder().with_projection(projection.mask.clone()).build();
    let stream = stream.map_err(|e| open.failed(e))?;
    Ok(FileRows { open, stream, projection })
}

impl FileRows {
    pub(crate) fn has_field(&self, id: i32) -> bool {
        self.open.has_field(id)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let read = self.stream.try_next().await.map_err(|e| self.open.failed(e))?;
        read.map(|rows| self.projection.apply(&rows)).transpose()
    }
}
