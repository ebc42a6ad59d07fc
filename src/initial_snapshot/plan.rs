//! What is copied in which piece: ranges of pages of every table, the largest table first.

use crate::postgres::catalog::SourceTable;
use crate::postgres::quote::{identifier, qualified};

/// Pages (of 8 KiB) in the largest range: 256 MiB of heap.
const RANGE_PAGES_MAX: u64 = 32_768;
/// ... and in the smallest one that a table is split into: 64 MiB, for each range gives a file.
const RANGE_PAGES_MIN: u64 = 8_192;
/// Ranges of a table per worker, at least, so that all end at about the same time.
const RANGES_PER_WORKER: u64 = 2;

/// One COPY to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index of the table.
    pub(crate) table: usize,
    /// `COPY ... TO STDOUT (FORMAT binary)`.
    pub(crate) statement: String,
}

/// The pieces of `tables`, in the order in which they are worth starting. `can_range`: the server
/// scans ranges of ctid (version 14 and newer).
pub(crate) fn pieces(tables: &[SourceTable], can_range: bool, workers: usize) -> Vec<Piece> {
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|&at| {
        std::cmp::Reverse(
            tables.get(at).map_or(0, |table| u64::try_from(table.relpages).unwrap_or(0)),
        )
    });
    let mut pieces = Vec::new();
    for table in order {
        let Some(source) = tables.get(table) else { continue };
        let pages = u64::try_from(source.relpages).unwrap_or(0);
        let ranged = can_range && has_pages(source);
        let ranges = if ranged { page_ranges(pages, workers) } else { vec![None] };
        for range in ranges {
            pieces.push(Piece { table, statement: statement(source, range) });
        }
    }
    pieces
}

/// Whether the table's rows are in its own pages, not in its partitions'.
fn has_pages(table: &SourceTable) -> bool {
    table.kind != 'p'
}

/// A value's text as its type's output function gives it, which a cast to text is not always
/// (inet);
/// `IS NULL` would call a row of NULLs NULL.
fn as_text(name: &str) -> String {
    format!("CASE num_nulls({name}) WHEN 0 THEN format('%s', {name}) END")
}

type PageRange = Option<(u64, Option<u64>)>;

/// Ranges over `pages`; the last is open at its end, for the table has grown since it was counted.
fn page_ranges(pages: u64, workers: usize) -> Vec<PageRange> {
    let wanted = u64::try_from(workers).unwrap_or(1) * RANGES_PER_WORKER;
    let size = pages.div_ceil(wanted).clamp(RANGE_PAGES_MIN, RANGE_PAGES_MAX);
    let count = pages.div_ceil(size);
    if workers == 1 || count <= 1 {
        return vec![None];
    }
    let range = |nth| Some((nth * size, (nth + 1 < count).then_some((nth + 1) * size)));
    (0..count).map(range).collect()
}

fn statement(table: &SourceTable, range: PageRange) -> String {
    let relation = &table.relation;
    let columns: Vec<String> = relation
        .columns
        .iter()
        .map(|column| {
            let name = identifier(&column.name);
            if column.pg_type.has_binary_form() { name } else { as_text(&name) }
        })
        .collect();
    let mut conditions: Vec<String> = Vec::new();
    if let Some((from, to)) = range {
        conditions.push(format!("ctid >= '({from},0)'::tid"));
        conditions.extend(to.map(|to| format!("ctid < '({to},0)'::tid")));
    }
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

    #[test]
    fn ranges_meet_and_the_last_is_open() {
        assert_eq!(page_ranges(0, 2), [None]);
        assert_eq!(page_ranges(RANGE_PAGES_MIN, 2), [None]);
        assert_eq!(page_ranges(1_000_000, 1), [None]);
        let ranges = page_ranges(RANGE_PAGES_MIN * 2 + 1, 2);
        let (one, two) = (RANGE_PAGES_MIN, RANGE_PAGES_MIN * 2);
        assert_eq!(ranges, [Some((0, Some(one))), Some((one, Some(two))), Some((two, None))]);
        let many = page_ranges(10_000_000, 2);
        assert_eq!(many.first(), Some(&Some((0, Some(RANGE_PAGES_MAX)))));
    }
}
