//! Metrics of a data file, from its Parquet footer (Iceberg spec, Manifests: `column_sizes`,
//! `value_counts`, `null_value_counts`, `lower_bounds`, `upper_bounds`).
//!
//! A bound may be loose but never wrong: readers skip files by it, and equality deletes reach only
//! files whose bounds they meet. So a statistic that Parquet shortened is still taken (a shortened
//! minimum is smaller, a shortened maximum is rounded up), a row group without one drops the bound
//! of the whole file, and floats have none (NaN).

use std::cmp::Ordering;
use std::collections::HashMap;

use iceberg::spec::{Datum, PrimitiveType, Schema, Type};
use parquet::basic::Type as Physical;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;

/// Bounds of strings are cut after this many characters, those of binaries after this many bytes
/// (`write.metadata.metrics.default` = `truncate(16)`).
const BOUND_LENGTH: usize = 16;

/// What a manifest says about a file's columns, by field id.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) column_sizes: HashMap<i32, u64>,
    pub(crate) value_counts: HashMap<i32, u64>,
    pub(crate) null_value_counts: HashMap<i32, u64>,
    pub(crate) lower_bounds: HashMap<i32, Datum>,
    pub(crate) upper_bounds: HashMap<i32, Datum>,
    pub(crate) split_offsets: Vec<i64>,
}

/// The bounds of one column, gathered over row groups.
#[derive(Default)]
struct Bounds {
    lower: Option<Datum>,
    upper: Option<Datum>,
    lost: bool,
}

/// Metrics of a file that was written with `schema`.
pub(crate) fn metrics(footer: &ParquetMetaData, schema: &Schema) -> Metrics {
    let mut metrics = Metrics::default();
    let mut bounds: HashMap<i32, Bounds> = HashMap::new();
    for group in footer.row_groups() {
        metrics.split_offsets.extend(group.file_offset());
        for chunk in group.columns() {
            let info = chunk.column_descr().self_type().get_basic_info();
            if info.has_id() {
                count(&mut metrics, info.id(), chunk);
                if let Some(primitive) = bounded_type(schema, info.id()) {
                    bounds.entry(info.id()).or_default().gather(chunk, primitive);
                }
            }
        }
    }
    for (id, found) in bounds.into_iter().filter(|(_, b)| !b.lost) {
        metrics.lower_bounds.extend(found.lower.map(|d| (id, shorten_lower(d))));
        metrics.upper_bounds.extend(found.upper.and_then(shorten_upper).map(|d| (id, d)));
    }
    metrics.split_offsets.sort_unstable();
    metrics
}

fn count(metrics: &mut Metrics, id: i32, chunk: &ColumnChunkMetaData) {
    let add = |map: &mut HashMap<i32, u64>, n: u64| *map.entry(id).or_default() += n;
    add(&mut metrics.column_sizes, u64::try_from(chunk.compressed_size()).unwrap_or(0));
    add(&mut metrics.value_counts, u64::try_from(chunk.num_values()).unwrap_or(0));
    if let Some(nulls) = chunk.statistics().and_then(Statistics::null_count_opt) {
        add(&mut metrics.null_value_counts, nulls);
    }
}

/// The type of a top-level field that can have bounds.
fn bounded_type(schema: &Schema, id: i32) -> Option<&PrimitiveType> {
    match schema.as_struct().field_by_id(id)?.field_type.as_ref() {
        Type::Primitive(PrimitiveType::Float | PrimitiveType::Double | PrimitiveType::Uuid) => None,
        Type::Primitive(primitive) => Some(primitive),
        _ => None,
    }
}

impl Bounds {
    fn gather(&mut self, chunk: &ColumnChunkMetaData, primitive: &PrimitiveType) {
        let statistics = chunk.statistics();
        let nulls = statistics.and_then(Statistics::null_count_opt);
        if nulls.is_some_and(|n| i64::try_from(n) == Ok(chunk.num_values())) {
            return;
        }
        let datum = |bytes: Option<&[u8]>| datum(bytes?, statistics?.physical_type(), primitive);
        let lower = datum(statistics.and_then(Statistics::min_bytes_opt));
        let upper = datum(statistics.and_then(Statistics::max_bytes_opt));
        match (lower, upper) {
            (Some(lower), Some(upper)) => {
                self.widen_lower(lower);
                self.widen_upper(upper);
            }
            _ => self.lost = true,
        }
    }

    fn widen_lower(&mut self, new: Datum) {
        match self.lower.as_ref().map(|old| new.partial_cmp(old)) {
            Some(None) => self.lost = true,
            None | Some(Some(Ordering::Less)) => self.lower = Some(new),
            _ => {}
        }
    }

    fn widen_upper(&mut self, new: Datum) {
        match self.upper.as_ref().map(|old| new.partial_cmp(old)) {
            Some(None) => self.lost = true,
            None | Some(Some(Ordering::Greater)) => self.upper = Some(new),
            _ => {}
        }
    }
}

/// A Parquet statistic as an Iceberg value. Both are little endian but for decimals, which are
/// little-endian integers or big-endian bytes in Parquet and big-endian in Iceberg.
fn datum(bytes: &[u8], physical: Physical, primitive: &PrimitiveType) -> Option<Datum> {
    let value = match (primitive, physical) {
        (PrimitiveType::Decimal { .. }, Physical::INT32) => {
            i128::from(i32::from_le_bytes(bytes.try_into().ok()?)).to_be_bytes().to_vec()
        }
        (PrimitiveType::Decimal { .. }, Physical::INT64) => {
            i128::from(i64::from_le_bytes(bytes.try_into().ok()?)).to_be_bytes().to_vec()
        }
        _ => bytes.to_vec(),
    };
    Datum::try_from_bytes(&value, primitive.clone()).ok()
}

fn shorten_lower(datum: Datum) -> Datum {
    match (datum.data_type(), text(&datum), binary(&datum)) {
        (PrimitiveType::String, Some(text), _) => {
            Datum::string(text.chars().take(BOUND_LENGTH).collect::<String>())
        }
        (PrimitiveType::Binary, _, Some(bytes)) => {
            Datum::binary(bytes.iter().take(BOUND_LENGTH).copied())
        }
        _ => datum,
    }
}

/// `None` where no short value is as large: then there is no upper bound.
fn shorten_upper(datum: Datum) -> Option<Datum> {
    match (datum.data_type(), text(&datum), binary(&datum)) {
        (PrimitiveType::String, Some(text), _) => upper_text(text).map(Datum::string),
        (PrimitiveType::Binary, _, Some(bytes)) => upper_bytes(bytes).map(Datum::binary),
        _ => Some(datum),
    }
}

fn text(datum: &Datum) -> Option<&str> {
    match datum.literal() {
        iceberg::spec::PrimitiveLiteral::String(text) => Some(text),
        _ => None,
    }
}

fn binary(datum: &Datum) -> Option<&[u8]> {
    match datum.literal() {
        iceberg::spec::PrimitiveLiteral::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

fn upper_text(text: &str) -> Option<String> {
    let mut short: Vec<char> = text.chars().take(BOUND_LENGTH).collect();
    if text.chars().nth(BOUND_LENGTH).is_none() {
        return Some(text.to_owned());
    }
    while let Some(last) = short.pop() {
        if let Some(next) = next_char(last) {
            short.push(next);
            return Some(short.into_iter().collect());
        }
    }
    None
}

/// The next Unicode scalar value; the surrogates are none.
fn next_char(c: char) -> Option<char> {
    match c {
        '\u{D7FF}' => Some('\u{E000}'),
        _ => char::from_u32(u32::from(c).checked_add(1)?),
    }
}

fn upper_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut short: Vec<u8> = bytes.iter().take(BOUND_LENGTH).copied().collect();
    if bytes.len() <= BOUND_LENGTH {
        return Some(short);
    }
    while let Some(last) = short.pop() {
        if let Some(next) = last.checked_add(1) {
            short.push(next);
            return Some(short);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_bound_is_rounded_up_or_dropped() {
        assert_eq!(upper_text("short").as_deref(), Some("short"));
        assert_eq!(upper_text("aaaaaaaaaaaaaaaaZ").as_deref(), Some("aaaaaaaaaaaaaaab"));
        let tail = format!("{}b\u{10FFFF}x", "a".repeat(14));
        assert_eq!(upper_text(&tail), Some(format!("{}c", "a".repeat(14))));
        assert_eq!(upper_text(&"\u{10FFFF}".repeat(17)), None);
        assert_eq!(
            upper_text(&"\u{D7FF}".repeat(17)),
            Some(format!("{}\u{E000}", "\u{D7FF}".repeat(15)))
        );
        assert_eq!(upper_bytes(&[0xff; 17]), None);
        assert_eq!(upper_bytes(&[7; 17]), Some([vec![7; 15], vec![8]].concat()));
    }
}
