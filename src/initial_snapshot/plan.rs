//! What is copied in which piece: ranges of pages of all tables, in one order, the largest first.
//!
//! A range is as many pages as hold about the same bytes, those that its rows have out of line
//! (TOAST) included, so that a table with few pages and long values is split too.

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::server_error::from_sql;

/// Bytes of a table in its largest range, ...
const RANGE_BYTES_MAX: u64 = 256 << 20;
/// ... and in the smallest one that a table is split into, for each range gives a file.
const RANGE_BYTES_MIN: u64 = 64 << 20;
/// Ranges per worker, at least, so that all end at about the same time.
const RANGES_PER_WORKER: u64 = 4;
/// The server version that can scan ranges of ctid.
const TID_RANGE_SCAN: u32 = 140_000;

/// Pages of a table, `to` excluded; without it, to the end, however far the table has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PageRange {
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
}

impl PageRange {
    /// All pages.
    pub(crate) const WHOLE: Self = Self { from: 0, to: None };
}

/// How large a table is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TableSize {
    /// Pages that hold its rows.
    pub(crate) pages: u64,
    /// Bytes of those, and of values that are stored out of line.
    pub(crate) bytes: u64,
    /// The server scans ranges of its pages (version 14 and newer; not those of partitions).
    pub(crate) has_ranges: bool,
}

/// One COPY to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index of the table.
    pub(crate) table: usize,
    pub(crate) range: PageRange,
    /// `COPY ... TO STDOUT (FORMAT binary)`.
    pub(crate) statement: String,
    /// What it reads, in bytes, about.
    pub(crate) bytes: u64,
}

/// How large `tables` are, in their order.
pub(crate) async fn sizes(client: &Client, tables: &[SourceTable]) -> Result<Vec<TableSize>> {
    let version = catalog::server_version(client).await?;
    let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
    // A partitioned table has no file: its leaves have.
    let sql = "\
        SELECT t.oid, sum(pg_catalog.pg_relation_size(f.oid) \
                 / pg_catalog.current_setting('block_size')::int8)::int8, \
               sum(pg_catalog.pg_table_size(f.oid))::int8 \
        FROM pg_catalog.unnest($1::oid[]) AS t(oid) CROSS JOIN LATERAL ( \
            WITH RECURSIVE tree(oid) AS (SELECT t.oid \
              UNION ALL SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i \
                ON i.inhparent = tree.oid JOIN pg_catalog.pg_class c ON c.oid = t.oid \
                WHERE c.relkind = 'p') \
            SELECT oid FROM tree) AS f(oid) \
        GROUP BY t.oid";
    let rows = client.query(sql, &[&oids]).await.map_err(from_sql)?;
    let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let size = |table: &SourceTable| {
        let row = rows.iter().find(|row| row.get::<_, u32>(0) == table.relation.oid);
        let has_ranges = version >= TID_RANGE_SCAN && has_pages(table);
        let (pages, bytes) = row.map_or((0, 0), |row| (number(row.get(1)), number(row.get(2))));
        TableSize { pages, bytes, has_ranges }
    };
    Ok(tables.iter().map(size).collect())
}

/// The pieces of `tables` but for the ranges in `done`, the largest first.
pub(crate) fn pieces(
    tables: &[SourceTable],
    sizes: &[TableSize],
    done: &[Vec<PageRange>],
    workers: usize,
) -> Vec<Piece> {
    let total: u64 = sizes.iter().map(|size| size.bytes).sum();
    let wanted = u64::try_from(workers).unwrap_or(1) * RANGES_PER_WORKER;
    let range_bytes = total.div_ceil(wanted).clamp(RANGE_BYTES_MIN, RANGE_BYTES_MAX);
    let mut pieces = Vec::new();
    for (table, ((source, size), done)) in tables.iter().zip(sizes).zip(done).enumerate() {
        for range in page_ranges(*size, done, range_bytes) {
            let end = range.to.unwrap_or(size.pages.max(range.from + 1));
            let share = u128::from(end.saturating_sub(range.from)) * u128::from(size.bytes)
                / u128::from(size.pages.max(1));
            pieces.push(Piece {
                table,
                range,
                statement: statement(source, range),
                bytes: u64::try_from(share).unwrap_or(u64::MAX),
            });
        }
    }
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.bytes));
    pieces
}

/// Whether the table's rows are in its own pages, not in its partitions'.
fn has_pages(table: &SourceTable) -> bool {
    table.kind != 'p'
}

/// A value's text as its type's output function gives it, which a cast to text is not always
/// (inet); `IS NULL` would call a row of NULLs NULL.
fn as_text(name: &str) -> String {
    format!("CASE num_nulls({name}) WHEN 0 THEN format('%s', {name}) END")
}

/// Ranges over what `done` leaves of a table; the last is open at its end, for the table has grown
/// since it was counted.
fn page_ranges(size: TableSize, done: &[PageRange], range_bytes: u64) -> Vec<PageRange> {
    if !size.has_ranges {
        return if done.is_empty() { vec![PageRange::WHOLE] } else { Vec::new() };
    }
    let share = u128::from(range_bytes) * u128::from(size.pages) / u128::from(size.bytes.max(1));
    let pages = range_pages().unwrap_or(u64::try_from(share).unwrap_or(u64::MAX)).max(1);
    let mut done = done.to_vec();
    done.sort_unstable();
    let (mut ranges, mut from) = (Vec::new(), 0);
    for done in done {
        while from < done.from {
            let to = done.from.min(from.saturating_add(pages));
            ranges.push(PageRange { from, to: Some(to) });
            from = to;
        }
        match done.to {
            Some(to) => from = from.max(to),
            None => return ranges,
        }
    }
    while from.saturating_add(pages) < size.pages {
        ranges.push(PageRange { from, to: Some(from + pages) });
        from += pages;
    }
    ranges.push(PageRange { from, to: None });
    ranges
}

/// Pages of a range, where a test asks for it by the fail point `range_pages`.
fn range_pages() -> Option<u64> {
    fail::fail_point!("range_pages", |pages| pages.and_then(|pages| pages.parse().ok()));
    None
}

fn statement(table: &SourceTable, range: PageRange) -> String {
    let mut conditions: Vec<String> = Vec::new();
    if range != PageRange::WHOLE {
        conditions.push(format!("ctid >= '({},0)'::tid", range.from));
        conditions.extend(range.to.map(|to| format!("ctid < '({to},0)'::tid")));
    }
    copy_where(table, conditions)
}

/// The COPY of the published rows of `table` that meet all `conditions` too.
pub(super) fn copy_where(table: &SourceTable, mut conditions: Vec<String>) -> String {
    let relation = &table.relation;
    let columns: Vec<String> = relation
        .columns
        .iter()
        .map(|column| {
            let name = identifier(&column.name);
            if column.pg_type.has_binary_form() { name } else { as_text(&name) }
        })
        .collect();
    conditions.extend(table.row_filter.iter().map(|filter| format!("({filter})")));
    let filter = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    format!(
        "COPY (SELECT {} FROM {}{}{filter}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        if has_pages(table) { "ONLY " } else { "" },
        qualified(&relation.namespace, &relation.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn size(pages: u64, bytes: u64) -> TableSize {
        TableSize { pages, bytes, has_ranges: true }
    }

    fn range(from: u64, to: Option<u64>) -> PageRange {
        PageRange { from, to }
    }

    #[test]
    fn ranges_meet_and_the_last_is_open() {
        assert_eq!(page_ranges(size(0, 0), &[], 64 * MIB), [PageRange::WHOLE]);
        assert_eq!(page_ranges(size(8_192, 64 * MIB), &[], 64 * MIB), [PageRange::WHOLE]);
        let ranges = page_ranges(size(16_385, 128 * MIB + 8_192), &[], 64 * MIB);
        let expected = [range(0, Some(8_192)), range(8_192, Some(16_384)), range(16_384, None)];
        assert_eq!(ranges, expected);
        // Values out of line make the ranges shorter.
        let ranges = page_ranges(size(100, 320 * MIB), &[], 64 * MIB);
        assert_eq!(ranges.len(), 5);
        let whole = TableSize { has_ranges: false, ..size(100_000, 800 * MIB) };
        assert_eq!(page_ranges(whole, &[], 64 * MIB), [PageRange::WHOLE]);
        assert_eq!(page_ranges(whole, &[PageRange::WHOLE], 64 * MIB), []);
    }

    #[test]
    fn only_what_is_not_done_is_left() {
        let size = size(100, 100 * MIB);
        let left = |done: &[PageRange]| page_ranges(size, done, 40 * MIB);
        assert_eq!(left(&[PageRange::WHOLE]), []);
        assert_eq!(left(&[range(80, None), range(0, Some(80))]), []);
        assert_eq!(left(&[range(0, Some(40))]), [range(40, Some(80)), range(80, None)]);
        let holes = left(&[range(70, None), range(10, Some(20))]);
        assert_eq!(holes, [range(0, Some(10)), range(20, Some(60)), range(60, Some(70))]);
        // It was open at its end when the table was shorter.
        assert_eq!(left(&[range(10, None)]), [range(0, Some(10))]);
        assert_eq!(left(&[range(0, Some(500))]), [range(500, None)]);
    }
}
