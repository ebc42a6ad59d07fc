//! Backfill of a column that was added with a constant default (case 91): Postgres gives the value
//! to old rows without an event, and format v2 has no `initial-default`, so the files are written
//! again. Each new file keeps its predecessor's rows, order and data sequence number.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::FieldRef;
use arrow_select::take::take;
use iceberg::spec::{DataFile, Schema};

use crate::error::{Error, Result};
use crate::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use crate::iceberg::layout::{record_batch, retype};
use crate::iceberg::live_rows::read_all;
use crate::iceberg::read::{field_id, fields};
use crate::iceberg::row_delta::Rewritten;
use crate::iceberg::storage::LakeStorage;

/// Writes each file again with the constants (one row each, by field id) of the fields that it
/// lacks;
/// `schema` is the table's new one. Files that have all the fields are left alone. Position deletes
/// would lose their files: a table that has some must be compacted first.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn backfill(
    storage: &LakeStorage,
    table_location: &str,
    schema: &Schema,
    files: &[(DataFile, i64)],
    constants: &[(i32, ArrayRef)],
) -> Result<Vec<Rewritten>> {
    let ids: Vec<i32> = schema.as_struct().fields().iter().map(|f| f.id).collect();
    let fields = fields(schema, &ids)?;
    let hints = Arc::new(ColumnHints::default());
    let mut rewritten = Vec::new();
    for (file, _) in files {
        let mut rows = read_all(storage, file, fields.clone()).await?;
        let lacking: Vec<&(i32, ArrayRef)> =
            constants.iter().filter(|(field, _)| !rows.has_field(*field)).collect();
        if lacking.is_empty() {
            continue;
        }
        let content = FileContent::Data;
        let mut writer = FileWriter::new(storage, table_location, schema, content, &hints)?;
        while let Some(batch) = rows.next().await? {
            writer.write(&fill(&batch, &fields, &lacking)?).await?;
        }
        if let Some(new) = writer.close().await? {
            check_rows(file, &new)?;
            rewritten.push(Rewritten { old_path: file.file_path().to_owned(), file: new });
        }
    }
    Ok(rewritten)
}

fn fill(
    rows: &RecordBatch,
    fields: &[FieldRef],
    constants: &[&(i32, ArrayRef)],
) -> Result<RecordBatch> {
    let zeros = UInt32Array::from(vec![0; rows.num_rows()]);
    let columns = rows.columns().iter().zip(fields).map(|(column, field)| {
        let Some((_, constant)) = constants.iter().find(|(id, _)| field_id(field) == Some(*id))
        else {
            return Ok(column.clone());
        };
        let constant = retype(constant, field.data_type())?;
        take(&constant, &zeros, None)
            .map_err(|e| Error::fatal("LAYOUT", "a default could not be repeated").with_source(e))
    });
    record_batch(&rows.schema(), columns.collect::<Result<_>>()?, rows.num_rows())
}

fn check_rows(old: &DataFile, new: &DataFile) -> Result<()> {
    match old.record_count() == new.record_count() {
        true => Ok(()),
        false => Err(Error::fatal("LAKE_METADATA", format!("{} has other rows", old.file_path()))),
    }
}
