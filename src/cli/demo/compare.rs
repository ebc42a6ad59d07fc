//! Source and lake, table by table: rows and a hash of all their values.
//!
//! Both sides become the lake's Arrow rows, each row is encoded canonically (`arrow_row`, columns
//! by name) and hashed to 128 bits; the sum over the rows does not depend on their order.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_row::{RowConverter, SortField};
use foldhash::quality::FixedState;
use futures::{StreamExt, pin_mut};
use tokio_postgres::Client;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::read::LiveRows;
use crate::iceberg::table_ident;
use crate::initial_snapshot::selected;
use crate::pipeline::ParquetTarget;
use crate::postgres::catalog::SourceTable;
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::server_error::from_sql;
use crate::window::decode::{DecodedColumn, TupleDecoder};
use crate::window::wire::CopyTuple;

/// Column of values that their own column can't hold.
const RAW_COLUMN: &str = "_pg_raw";
/// Signature, flags and the length of the (empty) header extension of COPY's binary format.
const COPY_HEADER_BYTES: usize = 19;
/// Rows decoded together.
const BATCH_ROWS: usize = 8192;
/// Seeds of the two halves of a row's hash.
const SEEDS: (u64, u64) = (0x6672_617a, 0x696c_2121);

/// One table on both sides.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) table: String,
    pub(super) source: Content,
    pub(super) lake: Content,
}

/// How many rows, and what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) rows: u64,
    pub(super) hash: u128,
}

impl Compared {
    pub(super) fn is_equal(&self) -> bool {
        self.source == self.lake
    }
}

/// Compares every published table. The source must be at rest.
pub(super) async fn compare(
    client: &Client,
    lake: &Arc<Lake>,
    config: &Config,
) -> Result<Vec<Compared>> {
    let publications = [config.settings.publication.clone()];
    let mut compared = Vec::new();
    for table in selected(client, &publications, &config.settings).await? {
        let name = table.relation.display();
        let source = source_content(client, lake, &table).await.map_err(|e| e.with_table(&name))?;
        let lake = lake_content(lake, &table).await.map_err(|e| e.with_table(&name))?;
        compared.push(Compared { table: name, source, lake });
    }
    compared.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(compared)
}

async fn source_content(client: &Client, lake: &Arc<Lake>, table: &SourceTable) -> Result<Content> {
    let relation = Arc::new(table.relation.clone());
    let ident = table_ident(&relation.namespace, &relation.name);
    let location = lake.storage.table_location(&ident);
    let target = ParquetTarget::new(location, ident, Arc::clone(&relation))?;
    let layout = &target.plain.layout;
    let column = |column: &crate::window::relation::Column| {
        let field = layout.arrow().field_with_name(&column.name).map_err(unreadable)?;
        let (name, pg_type) = (column.name.clone(), column.pg_type.clone());
        Ok(Some(DecodedColumn { name, pg_type, data_type: field.data_type().clone() }))
    };
    let columns: Vec<_> = relation.columns.iter().map(column).collect::<Result<_>>()?;
    let mut decoder = TupleDecoder::new(columns)?;
    let mut content = Content::default();
    let stream = client.copy_out(&statement(table)).await.map_err(from_sql)?;
    pin_mut!(stream);
    let mut rows = Rows::default();
    loop {
        let chunk = stream.next().await.transpose().map_err(from_sql)?;
        let is_end = chunk.is_none();
        rows.take(chunk.as_deref().unwrap_or_default())?;
        if rows.starts.len() >= BATCH_ROWS || (is_end && !rows.starts.is_empty()) {
            decoder.decode::<CopyTuple>(&rows.buf, &mut rows.starts)?;
            let decoded = decoder.finish()?;
            let raw = decoded.raw.into_iter().map(|raw| (raw.row, raw.column, raw.text));
            let raw: Vec<_> = raw.collect();
            content.add(&layout.rows(&decoded.columns, &raw, decoded.rows)?)?;
            rows.buf.clear();
            rows.starts.clear();
        }
        if is_end {
            return Ok(content);
        }
    }
}

/// Rows of COPY, one after the other.
#[derive(Default)]
struct Rows {
    buf: Vec<u8>,
    starts: Vec<u32>,
    header_seen: bool,
}

impl Rows {
    /// Takes one CopyData message: the header, perhaps with a row, a row, or the trailer.
    fn take(&mut self, mut chunk: &[u8]) -> Result<()> {
        if !self.header_seen && !chunk.is_empty() {
            chunk = chunk.get(COPY_HEADER_BYTES..).unwrap_or_default();
            self.header_seen = true;
        }
        // The count of fields comes first; -1 is the trailer.
        let Some((count, fields)) = chunk.split_at_checked(2) else { return Ok(()) };
        if count != [0xff, 0xff] {
            self.starts.push(u32::try_from(self.buf.len()).map_err(unreadable)?);
            self.buf.extend_from_slice(fields);
        }
        Ok(())
    }
}

fn statement(table: &SourceTable) -> String {
    let columns = table.relation.columns.iter().map(|column| {
        let name = identifier(&column.name);
        match column.pg_type.has_binary_form() {
            true => name,
            false => format!("{name}::text"),
        }
    });
    let columns: Vec<String> = columns.collect();
    let name = qualified(&table.relation.namespace, &table.relation.name);
    format!("COPY (SELECT {} FROM ONLY {name}) TO STDOUT (FORMAT binary)", columns.join(", "))
}

async fn lake_content(lake: &Arc<Lake>, table: &SourceTable) -> Result<Content> {
    let ident = table_ident(&table.relation.namespace, &table.relation.name);
    let mut content = Content::default();
    let Some(table) = lake.committer.table(&ident).await? else { return Ok(content) };
    let mut rows = LiveRows::open(&lake.storage, &table).await?;
    while let Some(batch) = rows.next().await? {
        content.add(&batch)?;
    }
    Ok(content)
}

impl Content {
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema();
        let mut columns: Vec<(&str, ArrayRef)> = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| (field.name().as_str(), Arc::clone(column)))
            .filter(|(name, _)| *name != RAW_COLUMN)
            .collect();
        columns.sort_by_key(|(name, _)| *name);
        let columns: Vec<ArrayRef> = columns.into_iter().map(|(_, column)| column).collect();
        let types = columns.iter().map(|column| SortField::new(column.data_type().clone()));
        let converter = RowConverter::new(types.collect()).map_err(unreadable)?;
        let rows = converter.convert_columns(&columns).map_err(unreadable)?;
        let (high, low) = (FixedState::with_seed(SEEDS.0), FixedState::with_seed(SEEDS.1));
        for row in &rows {
            let bytes = row.as_ref();
            let hash = u128::from(high.hash_one(bytes)) << 64 | u128::from(low.hash_one(bytes));
            self.hash = self.hash.wrapping_add(hash);
            self.rows += 1;
        }
        Ok(())
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::fatal("DEMO_COMPARE", "rows could not be compared").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, StringArray};

    fn content(pairs: &[(i64, Option<&str>)]) -> Content {
        let ids: ArrayRef = Arc::new(pairs.iter().map(|(id, _)| *id).collect::<Int64Array>());
        let names: ArrayRef = Arc::new(pairs.iter().map(|(_, n)| *n).collect::<StringArray>());
        let mut content = Content::default();
        let batch =
            RecordBatch::try_from_iter_with_nullable([("name", names, true), ("id", ids, true)]);
        content.add(&batch.unwrap()).unwrap();
        content
    }

    #[test]
    fn order_does_not_matter_and_values_do() {
        let one = content(&[(1, Some("a")), (2, None)]);
        assert_eq!(one, content(&[(2, None), (1, Some("a"))]));
        assert_eq!(one.rows, 2);
        for other in [
            content(&[(1, Some("a")), (2, Some(""))]),
            content(&[(1, None), (2, Some("a"))]),
            content(&[(1, Some("a"))]),
            content(&[(1, Some("a")), (2, None), (2, None)]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn rows_are_found_between_header_and_trailer() {
        let mut rows = Rows::default();
        let mut first = vec![0; COPY_HEADER_BYTES];
        first.extend([0, 1, 0xff, 0xff, 0xff, 0xff]);
        rows.take(&first).unwrap();
        rows.take(&[0, 1, 0, 0, 0, 0]).unwrap();
        rows.take(&[0xff, 0xff]).unwrap();
        assert_eq!((rows.starts.as_slice(), rows.buf.len()), ([0, 4].as_slice(), 8));
    }
}
