//! Unchanged TOAST that is not in the segment: the value stands in an earlier segment of the
//! window, or in the lake as it is after the window before (cases 76 to 80). It is read by key,
//! never from Postgres, and never replaced by NULL or a placeholder.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, MapArray, RecordBatch};
use arrow_select::interleave::interleave;
use iceberg::spec::DataFile;

use crate::error::{Error, Result};
use crate::iceberg::read;
use crate::iceberg::schema::RAW_FIELD_ID;
use crate::window::decode::{Decoded, RawValue};
use crate::window::outcome::OpenRow;
use crate::window::relation::{Column, Relation};
use crate::window::wire::WalTuple;

use super::write::{DataWriter, Job, key_arrays, key_decoder, row_decoder};

/// Rows completed at once, at most: each may carry a large value.
const ROWS_MAX: usize = 4096;
/// Bytes of values read at once, roughly.
const BYTES_MAX: u64 = 16 << 20;

/// Completes and writes the rows that lack values.
pub(super) async fn write_open_rows(job: &Job, data: &mut DataWriter) -> Result<()> {
    let open = &job.outcome.open;
    if open.is_empty() {
        return Ok(());
    }
    let files = &job.older.data;
    let keys = decode_keys(job, open.iter().map(|row| row.key).collect())?;
    let ids = job.outcome.relation.key_field_ids();
    let places =
        read::locate(&job.lake.storage, &job.target.raw.schema, files, &ids, &keys).await?;
    let mut by_file: BTreeMap<usize, Vec<(u64, &OpenRow)>> = BTreeMap::new();
    for (row, place) in open.iter().zip(places) {
        let place = place.ok_or_else(|| missing_row(job))?;
        by_file.entry(place.file).or_default().push((place.row, row));
    }
    for (file, mut rows) in by_file {
        let (file, _) = files.get(file).ok_or_else(|| missing_row(job))?;
        rows.sort_unstable_by_key(|(row, _)| *row);
        let row_bytes = read::row_bytes(&job.lake.storage, file).await?;
        let at_once = usize::try_from(BYTES_MAX / row_bytes).unwrap_or(1).clamp(1, ROWS_MAX);
        for chunk in rows.chunks(at_once) {
            data.write(complete(job, file, chunk).await?).await?;
        }
    }
    Ok(())
}

/// The keys that the tuples at these positions of the receive buffer have.
pub(super) fn decode_keys(job: &Job, mut tuples: Vec<u32>) -> Result<Vec<ArrayRef>> {
    let mut decoder = key_decoder(&job.outcome.relation, &job.target.plain)?;
    decoder.decode::<WalTuple>(&job.buf, &mut tuples)?;
    Ok(key_arrays(decoder.finish()?))
}

/// Decodes the new tuples of `rows` and takes what they lack from the older rows in `file`.
async fn complete(job: &Job, file: &DataFile, rows: &[(u64, &OpenRow)]) -> Result<Decoded> {
    let relation = &job.outcome.relation;
    let mut decoder = row_decoder(relation, &job.target.plain)?;
    let mut tuples: Vec<u32> = rows.iter().map(|(_, row)| row.at).collect();
    decoder.decode::<WalTuple>(&job.outcome.patched, &mut tuples)?;
    let mut decoded = decoder.finish()?;
    let positions: Vec<u64> = rows.iter().map(|(row, _)| *row).collect();
    let mut wanted: Vec<i32> = relation.columns.iter().map(Column::field_id).collect();
    wanted.push(RAW_FIELD_ID);
    let (storage, schema) = (&job.lake.storage, &job.target.raw.schema);
    let old = read::read_rows(storage, schema, file, &positions, &wanted).await?;
    for (column, array) in decoded.columns.iter_mut().enumerate() {
        let lacks = |row: &OpenRow| row.missing.binary_search(&column).is_ok();
        if !rows.iter().any(|(_, row)| lacks(row)) {
            continue;
        }
        let older = old.column(column);
        let pick: Vec<(usize, usize)> =
            rows.iter().enumerate().map(|(at, (_, row))| (usize::from(lacks(row)), at)).collect();
        *array = interleave(&[array.as_ref(), older.as_ref()], &pick).map_err(arrow_error)?;
        take_raw(&mut decoded.raw, &old, relation, column, rows)?;
    }
    Ok(decoded)
}

/// An older value that went by the `raw` rule keeps its text.
fn take_raw(
    raw: &mut Vec<RawValue>,
    old: &RecordBatch,
    relation: &Relation,
    column: usize,
    rows: &[(u64, &OpenRow)],
) -> Result<()> {
    let Some(name) = relation.columns.get(column).map(|column| column.name.as_str()) else {
        return Ok(());
    };
    let Some(texts) = old.columns().last().and_then(|map| map.as_map_opt()) else {
        return Ok(());
    };
    for (at, (_, row)) in rows.iter().enumerate() {
        if row.missing.binary_search(&column).is_ok()
            && let Some(text) = raw_text(texts, at, name)
        {
            raw.push(RawValue { row: u32::try_from(at).unwrap_or(u32::MAX), column, text });
        }
    }
    Ok(())
}

fn raw_text(texts: &MapArray, row: usize, name: &str) -> Option<String> {
    if texts.is_null(row) {
        return None;
    }
    let entry = texts.value(row);
    let (keys, values) = (entry.column(0).as_string_opt::<i32>()?, entry.column(1));
    let values = values.as_string_opt::<i32>()?;
    let at = (0..keys.len()).find(|&at| keys.value(at) == name)?;
    Some(values.value(at).to_owned())
}

fn missing_row(job: &Job) -> Error {
    Error::table(
        "TOAST_ROW_MISSING",
        job.outcome.relation.display(),
        "an UPDATE left a large value unchanged, and the lake has no row with that key",
    )
    .with_cure(
        "the lake table is not what frazil wrote: check who else writes to it; a new initial \
         snapshot mends it",
    )
}

fn arrow_error(error: arrow_schema::ArrowError) -> Error {
    Error::fatal("ARROW", "columns do not fit together").with_source(error)
}
