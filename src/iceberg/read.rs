//! Reading the lake by key, and whole.

use arrow_array::{ArrayRef, RecordBatch};
use iceberg::spec::{DataFile, Schema};
use iceberg::table::Table;

use crate::error::{Error, Result};
use crate::iceberg::storage::LakeStorage;

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// The row's number in it, from 0.
    pub row: u64,
}

/// Live data files with their data sequence numbers, newest first.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn live_data_files(_table: &Table) -> Result<Vec<(DataFile, i64)>> {
    Err(Error::fatal("UNFINISHED", "read"))
}

/// Where the newest row of each key is; `keys` are key columns in the order of `key_ids`, `files`
/// come newest first.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn locate(
    _storage: &LakeStorage,
    _files: &[(DataFile, i64)],
    _key_ids: &[i32],
    _keys: &[ArrayRef],
) -> Result<Vec<Option<Place>>> {
    Err(Error::fatal("UNFINISHED", "read"))
}

/// The fields `field_ids` of the rows of one file; `rows` ascending, without repetition. Columns
/// come in the order of `field_ids`, in the lake's Arrow types; one that the file lacks is NULL.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn read_rows(
    _storage: &LakeStorage,
    _schema: &Schema,
    _file: &DataFile,
    _rows: &[u64],
    _field_ids: &[i32],
) -> Result<RecordBatch> {
    Err(Error::fatal("UNFINISHED", "read"))
}

/// All live rows of a table, file by file: equality and position deletes applied.
pub struct LiveRows {}

impl LiveRows {
    /// Reads the delete files and makes ready to read the data files.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn open(_storage: &LakeStorage, _table: &Table) -> Result<Self> {
        Err(Error::fatal("UNFINISHED", "read"))
    }

    /// The next rows, in the table's current schema; `None` at the end.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        Err(Error::fatal("UNFINISHED", "read"))
    }
}
