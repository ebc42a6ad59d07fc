//! The lake's side read by DuckDB (`--reader duckdb`): another reader's merge on read, at the same
//! metadata file. DuckDB writes what it sees into a Parquet file, and that is read back, so that no
//! value goes through a text that two programs would have to agree on.

use std::fs::File;
use std::process::Stdio;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use iceberg::table::Table;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tempfile::TempDir;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::iceberg::layout::{arrow_schema, record_batch, retype};
use crate::postgres::quote::literal;

/// How much of what DuckDB said is shown.
const SAID_CHARS: usize = 600;

/// The rows of one table as DuckDB sees them, in the fields of its current schema.
pub(super) struct DuckRows {
    schema: SchemaRef,
    rows: ParquetRecordBatchReader,
    /// Where the file stands; gone with this.
    _folder: TempDir,
}

impl DuckRows {
    /// Has `program` (the DuckDB command line, 1.4 or newer, with its iceberg extension) read the
    /// table.
    ///
    /// # Errors
    /// `VERIFY_READER` (config) where DuckDB is not there, can't read the table, or the lake is not
    /// in a folder.
    pub(super) async fn open(program: &str, table: &Table) -> Result<Self> {
        let named = |e: Error| e.with_table(table.identifier());
        let location = table.metadata_location().unwrap_or_default();
        let path = location.strip_prefix("file://").unwrap_or(location);
        if !path.starts_with('/') {
            let what = format!("--reader duckdb reads lakes in a folder, not {location}");
            return Err(named(Error::config("VERIFY_READER", what).with_cure("--reader frazil")));
        }
        let folder = tempfile::tempdir().map_err(|e| named(unreadable(&e)))?;
        let file = folder.path().join("rows.parquet");
        let sql = format!(
            "SET TimeZone = 'UTC'; COPY (SELECT * FROM iceberg_scan({})) TO {} (FORMAT parquet)",
            literal(path),
            literal(&file.display().to_string())
        );
        run(program, &sql).await.map_err(named)?;
        let file = File::open(&file).map_err(|e| named(unreadable(&e)))?;
        let rows = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build());
        let rows = rows.map_err(|e| named(unreadable(&e)))?;
        let schema = arrow_schema(table.metadata().current_schema())?;
        Ok(Self { schema, rows, _folder: folder })
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// `VERIFY_READER` (config), `LAYOUT` (fatal) where a column has another type than the lake's.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.rows.next() else { return Ok(None) };
        let batch = batch.map_err(|e| unreadable(&e))?;
        let columns = self.schema.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).ok_or_else(|| {
                Error::config("VERIFY_READER", "DuckDB does not show a column of the lake")
                    .with_column(field.name())
            })?;
            retype(column, field.data_type()).map_err(|e| e.with_column(field.name()))
        });
        record_batch(&self.schema, columns.collect::<Result<_>>()?, batch.num_rows()).map(Some)
    }
}

async fn run(program: &str, sql: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["-c", sql]).stdin(Stdio::null()).kill_on_drop(true);
    let ended = command.output().await.map_err(|e| {
        Error::config("VERIFY_READER", format!("{program} could not be started"))
            .with_cure("install the DuckDB command line, or say where it is: --duckdb PATH")
            .with_source(e)
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said: String = said.trim().chars().take(SAID_CHARS).collect();
    Err(Error::config("VERIFY_READER", format!("DuckDB cannot read the table: {said}"))
        .with_cure("INSTALL iceberg in DuckDB 1.4 or newer; or --reader frazil"))
}

fn unreadable(error: &dyn std::error::Error) -> Error {
    Error::config("VERIFY_READER", format!("what DuckDB wrote cannot be read: {error}"))
}
