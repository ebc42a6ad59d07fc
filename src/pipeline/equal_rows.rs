//! Tables without a key (REPLICA IDENTITY FULL, case 74): a DELETE removes one of n equal rows, an
//! equality delete all of them. So where k rows are gone, the equality delete removes the n that
//! earlier segments and the lake have, and n - k of them are written again.

use std::collections::HashMap;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;

use crate::error::{Error, Result};
use crate::iceberg::read;
use crate::window::outcome::Fewer;

use super::toast::decode_keys;
use super::write::{BATCH_BYTES, BATCH_ROWS, DataWriter, Job};

/// Writes those of the equal rows that remain.
pub(super) async fn write_remaining(job: &Job, data: &mut DataWriter) -> Result<()> {
    let fewer = &job.outcome.fewer;
    if fewer.is_empty() {
        return Ok(());
    }
    let keys = decode_keys(job, fewer.iter().map(|row| row.at).collect())?;
    let files = (job.older.data.as_slice(), job.older.deletes.as_slice());
    let ids = job.outcome.relation.key_field_ids();
    let (storage, schema) = (&job.lake.storage, &job.target.raw.schema);
    let found = read::count_live(storage, schema, files, &ids, &keys).await?;
    let mut again: Vec<u32> = Vec::new();
    let mut bytes = 0;
    for gone in by_key(fewer, &keys, &found) {
        let remaining = gone.found.checked_sub(gone.row.count).ok_or_else(|| missing(job))?;
        for _ in 0..remaining {
            again.push(gone.row.at);
            bytes += gone.row.len;
            if again.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                data.tuples(&job.buf, &mut again).await?;
                again.clear();
                bytes = 0;
            }
        }
    }
    data.tuples(&job.buf, &mut again).await
}

/// Rows with one key, of which some are gone.
struct Gone {
    row: Fewer,
    /// How many there were.
    found: u64,
}

/// Rows with the same key taken together, in the order of the receive buffer: values of different
/// bytes can have the same text (an array with and without a bitmap of NULLs).
fn by_key(fewer: &[Fewer], keys: &[ArrayRef], found: &[u64]) -> Vec<Gone> {
    let texts = keys.iter().filter_map(|keys| keys.as_string_opt::<i32>()).flatten();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut gone: Vec<Gone> = Vec::with_capacity(fewer.len());
    for ((&row, &found), key) in fewer.iter().zip(found).zip(texts) {
        let place = *places.entry(key.unwrap_or_default()).or_insert(gone.len());
        match gone.get_mut(place) {
            Some(gone) => gone.row.count += row.count,
            None => gone.push(Gone { row, found }),
        }
    }
    gone
}

fn missing(job: &Job) -> Error {
    Error::table(
        "ROW_MISSING",
        job.outcome.relation.display(),
        "a row of a table without a key was changed, and the lake has no such row",
    )
    .with_cure(
        "the lake table is not what frazil wrote, or a column with a default was added since: a new \
         initial snapshot mends it",
    )
}
