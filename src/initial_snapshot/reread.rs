//! Rows that changed while an initial snapshot had broken off: their older versions go, and they
//! are read once more by their keys (`resume.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::row_delta::SegmentFiles;
use crate::ops::Stats;
use crate::pipeline::{DataWriter, ParquetTarget, write_deletes};
use crate::postgres::catalog::SourceTable;
use crate::postgres::quote::identifier;
use crate::postgres::server_error::from_sql;
use crate::window::relation::{Column, Relation};

use super::changed_keys::{texts, tuples};
use super::copy::{Copier, Counted};
use super::plan;

/// Keys that one statement asks for.
const KEYS_PER_STATEMENT: usize = 1_000;

/// For the planner: a few rows of a large table, each by the index of its key.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
                        SET LOCAL enable_mergejoin = off";

/// The segment that brings the rows with `keys` to what the snapshot of `client` and `copier` shows
/// of them.
pub(super) async fn rows(
    (client, copier): (&Client, &mut Copier),
    (table, target): (&SourceTable, &Arc<ParquetTarget>),
    keys: HashSet<Box<[u8]>>,
    (lake, stats): (&Arc<Lake>, &Stats),
) -> Result<SegmentFiles> {
    let relation = &target.relation;
    let named = |e: Error| e.with_table(relation.display());
    let types = key_types(client, relation).await?;
    let keys: Vec<Box<[u8]>> = keys.into_iter().collect();
    let mut data = DataWriter::new(Arc::clone(lake), Arc::clone(target))?;
    let mut counted = Counted::new(stats);
    copier.run(BY_INDEX).await?;
    for some in keys.chunks(KEYS_PER_STATEMENT) {
        let condition = condition(relation, &types, some)?;
        let statement = plan::copy_where(table, vec![condition]);
        let copied = copier.copy_into(&statement, &mut data, &mut counted, &|| false);
        copied.await.map_err(named)?;
    }
    counted.keep();
    let (rows_inserted, has_raw) = (data.rows, data.has_raw());
    let data = data.close().await?;
    let (buf, mut starts) = tuples(relation, keys.iter().map(AsRef::as_ref))?;
    let deletes = write_deletes(lake, target, relation, (&buf, &mut starts)).await?;
    let rows_deleted = deletes.iter().map(|file| file.record_count()).sum();
    Ok(SegmentFiles { data, deletes, rows_inserted, rows_deleted, has_raw })
}

/// The types of the key's columns as SQL writes them.
async fn key_types(client: &Client, relation: &Relation) -> Result<Vec<String>> {
    let attnums: Vec<i16> = key_columns(relation).map(|column| column.attnum).collect();
    let sql = "\
        SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) \
        FROM pg_catalog.unnest($2::int2[]) WITH ORDINALITY AS k(attnum, nth) \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum \
        ORDER BY k.nth";
    let rows = client.query(sql, &[&relation.oid, &attnums]).await.map_err(from_sql)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn key_columns(relation: &Relation) -> impl Iterator<Item = &Column> {
    relation.key.iter().filter_map(|&at| relation.columns.get(at))
}

/// `(a, b) IN (VALUES ('1'::integer, 'x'::text), ...)`
fn condition(relation: &Relation, types: &[String], keys: &[Box<[u8]>]) -> Result<String> {
    let names: Vec<String> = key_columns(relation).map(|c| identifier(&c.name)).collect();
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let texts = texts(key, relation.key.len())?;
        let values = texts.iter().zip(types).map(|(text, ty)| {
            let text = std::str::from_utf8(text).map_err(|e| {
                Error::fatal("INVALID_UTF8", "a key that changed is not UTF-8").with_source(e)
            })?;
            Ok(format!("{}::{ty}", escaped(text)))
        });
        rows.push(format!("({})", values.collect::<Result<Vec<_>>>()?.join(", ")));
    }
    Ok(format!("({}) IN (VALUES {})", names.join(", "), rows.join(", ")))
}

/// A literal that means the same whatever `standard_conforming_strings` is.
fn escaped(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_no_more_than_its_text() {
        assert_eq!(escaped(r"it's \n"), r"E'it''s \\n'");
    }
}
