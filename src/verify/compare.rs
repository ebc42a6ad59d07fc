//! One table: source against lake, in at most three readings of both.
//!
//! 1. Every row goes into one of 65,536 buckets by the hash of its key; a bucket is a sum of row
//!    hashes and a count, so the order of rows does not matter and memory is fixed.
//! 2. Only rows of buckets that differ: their hashes, compared key by key (on disk where they are
//!    many).
//! 3. Only rows that differ and are to be shown.

use std::collections::HashMap;

use indicatif::ProgressBar;

use crate::error::Result;
use crate::iceberg::Table;
use crate::iceberg::lake::Lake;
use crate::verify::cells::{Cells, Identity, RowHasher};
use crate::verify::lake::{self, Columns, Reader};
use crate::verify::report::{Difference, Example, TableReport};
use crate::verify::source::Expected;
use crate::verify::spill::Spill;

/// Buckets of the first reading.
const BUCKETS: usize = 1 << 16;
/// Differing keys that are shown of a table, at most.
const EXAMPLES_MAX: usize = 20;
/// Characters of a key that are shown, at most.
const SHOWN_MAX: usize = 200;
/// How often the progress bar is told, in rows.
const TOLD_EVERY: u64 = 4_096;

/// What of a table is compared, and how.
pub(super) struct Job<'a> {
    pub(super) lake: (&'a Lake, &'a Reader),
    pub(super) table: Option<&'a Table>,
    pub(super) columns: &'a Columns,
    pub(super) hasher: &'a RowHasher,
    pub(super) bar: &'a ProgressBar,
}

/// Which keys differ, by hash.
pub(super) type Differing = HashMap<u128, Difference>;

impl Job<'_> {
    /// Compares; gives the report, and the keys that differ (`keys_max` of them at most).
    ///
    /// # Errors
    /// Those of the source and the lake.
    pub(super) async fn compare(
        &self,
        name: &str,
        expected: &mut Expected<'_>,
        keys_max: usize,
    ) -> Result<(TableReport, Differing)> {
        let mut report = TableReport::new(name, self.columns);
        let (mut source, mut lake) = (Buckets::new(), Buckets::new());
        self.read(
            expected,
            &mut |one, count, _| {
                source.add(one, count);
                Ok(())
            },
            &mut |one, _| {
                lake.add(one, 1);
                Ok(())
            },
        )
        .await?;
        (report.source_rows, report.lake_rows) = (source.rows(), lake.rows());
        let doubted = source.differing(&lake);
        if doubted.rows == 0 {
            return Ok((report, Differing::new()));
        }
        let differing = self.look_closer(expected, &doubted, &mut report, keys_max).await?;
        self.examples(expected, &differing, &mut report).await?;
        Ok((report, differing))
    }

    /// Reads both sides at the same time.
    async fn read(
        &self,
        expected: &mut Expected<'_>,
        on_source: &mut (dyn FnMut(Identity, i64, &Cells) -> Result<()> + Send),
        on_lake: &mut (dyn FnMut(Identity, &Cells) -> Result<()> + Send),
    ) -> Result<()> {
        let (mut cells, key) = (Cells::default(), self.columns.key.as_slice());
        let (mut told, mut seen) = (Told::new(self.bar), Told::new(self.bar));
        let mut source_row = |row: &super::source::TextRow<'_>, count: i64| -> Result<()> {
            told.row();
            self.columns.source_cells(row, &mut cells);
            match self.hasher.identify(&cells, key) {
                Some(identity) => on_source(identity, count, &cells),
                None => Ok(()),
            }
        };
        let mut lake_row = |cells: &Cells| -> Result<()> {
            seen.row();
            match self.hasher.identify(cells, key) {
                Some(identity) => on_lake(identity, cells),
                None => Ok(()),
            }
        };
        let source = expected.rows(&mut source_row);
        let lake = lake::rows(self.lake, self.table, self.columns, &mut lake_row);
        tokio::try_join!(source, lake).map(|_| ())
    }

    async fn look_closer(
        &self,
        expected: &mut Expected<'_>,
        doubted: &Doubted,
        report: &mut TableReport,
        keys_max: usize,
    ) -> Result<Differing> {
        let (mut source, mut lake) = (Spill::new(doubted.rows)?, Spill::new(doubted.rows)?);
        self.read(
            expected,
            &mut |one, count, _| match doubted.has(one) {
                true => source.add(one, count),
                false => Ok(()),
            },
            &mut |one, _| match doubted.has(one) {
                true => lake.add(one, 1),
                false => Ok(()),
            },
        )
        .await?;
        let mut differing = Differing::new();
        for part in 0..source.parts() {
            let (source, lake) = (source.take(part)?, lake.take(part)?);
            settle(&source, &lake, |key, found| {
                report.add(&found);
                if differing.len() < keys_max {
                    differing.insert(key, found);
                }
            });
        }
        Ok(differing)
    }

    async fn examples(
        &self,
        expected: &mut Expected<'_>,
        differing: &Differing,
        report: &mut TableReport,
    ) -> Result<()> {
        let wanted: Vec<u128> = differing.keys().copied().take(EXAMPLES_MAX).collect();
        let (mut source, mut lake) = (Shown::default(), Shown::default());
        self.read(
            expected,
            &mut |one, _, cells| {
                source.add(&wanted, one, cells);
                Ok(())
            },
            &mut |one, cells| {
                lake.add(&wanted, one, cells);
                Ok(())
            },
        )
        .await?;
        for key in wanted {
            let Some(difference) = differing.get(&key) else { continue };
            let (source, lake) = (source.rows.remove(&key), lake.rows.remove(&key));
            report.examples.push(self.example(*difference, source, lake));
        }
        report.examples.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(())
    }

    fn example(
        &self,
        difference: Difference,
        source: Option<Vec<Option<Vec<u8>>>>,
        lake: Option<Vec<Option<Vec<u8>>>>,
    ) -> Example {
        let names = self.columns.names();
        let either = source.as_ref().or(lake.as_ref());
        let shown = |at: usize| {
            let value = either.and_then(|row| row.get(at)).cloned().flatten();
            let value = value.map(|bytes| shorten(&String::from_utf8_lossy(&bytes)));
            (names.get(at).cloned().unwrap_or_default(), value)
        };
        let of_key = self.columns.key.iter().copied();
        let key: Vec<_> = match self.columns.key.is_empty() {
            true => (0..names.len()).map(shown).collect(),
            false => of_key.map(shown).collect(),
        };
        let columns = match (&source, &lake) {
            (Some(source), Some(lake)) => {
                let pairs = names.iter().zip(source.iter().zip(lake));
                pairs.filter(|(_, (s, l))| s != l).map(|(name, _)| name.clone()).collect()
            }
            _ => Vec::new(),
        };
        Example { kind: difference.kind(), key, columns }
    }
}

fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The rows of the keys that are shown; of a key that is there twice the first.
#[derive(Default)]
struct Shown {
    rows: HashMap<u128, Vec<Option<Vec<u8>>>>,
}

impl Shown {
    fn add(&mut self, wanted: &[u128], one: Identity, cells: &Cells) {
        if wanted.contains(&one.key) {
            let row = || (0..cells.len()).map(|at| cells.get(at).map(<[u8]>::to_vec)).collect();
            self.rows.entry(one.key).or_insert_with(row);
        }
    }
}

/// Tells the progress bar now and then.
struct Told<'a> {
    bar: &'a ProgressBar,
    rows: u64,
}

impl<'a> Told<'a> {
    fn new(bar: &'a ProgressBar) -> Self {
        Self { bar, rows: 0 }
    }

    fn row(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(TOLD_EVERY) {
            self.bar.inc(TOLD_EVERY);
        }
    }
}

/// Sums of row hashes, by key.
struct Buckets(Vec<(u128, i64)>);

impl Buckets {
    fn new() -> Self {
        Self(vec![(0, 0); BUCKETS])
    }

    fn add(&mut self, one: Identity, count: i64) {
        if let Some((sum, rows)) = self.0.get_mut(bucket(one)) {
            // The hash as often as the row is there, in arithmetic modulo 2^128.
            *sum = sum.wrapping_add(one.row.wrapping_mul(i128::from(count).cast_unsigned()));
            *rows += count;
        }
    }

    fn rows(&self) -> u64 {
        u64::try_from(self.0.iter().map(|(_, rows)| rows).sum::<i64>()).unwrap_or(0)
    }

    fn differing(&self, other: &Self) -> Doubted {
        let pairs = self.0.iter().zip(&other.0);
        let rows = |a: &(u128, i64), b: &(u128, i64)| a.1.max(b.1).max(0).unsigned_abs();
        Doubted {
            buckets: pairs.clone().map(|(a, b)| a != b).collect(),
            // A bucket that differs has a row, if only one that was counted away.
            rows: pairs.filter(|(a, b)| a != b).map(|(a, b)| rows(a, b).max(1)).sum(),
        }
    }
}

fn bucket(one: Identity) -> usize {
    usize::try_from(one.key >> (128 - BUCKETS.ilog2())).unwrap_or(0)
}

/// Buckets that differ, and about how many rows they have on the larger side.
struct Doubted {
    buckets: Vec<bool>,
    rows: u64,
}

impl Doubted {
    fn has(&self, one: Identity) -> bool {
        self.buckets.get(bucket(one)).copied().unwrap_or_default()
    }
}

/// Goes through both sides, sorted, key by key, and says which keys differ and how.
fn settle(
    source: &[(Identity, i64)],
    lake: &[(Identity, i64)],
    mut found: impl FnMut(u128, Difference),
) {
    let (mut source, mut lake) = (source, lake);
    loop {
        let next = [source.first(), lake.first()].into_iter().flatten().map(|(one, _)| one.key);
        let Some(key) = next.min() else { return };
        let of_source = take_key(&mut source, key);
        let of_lake = take_key(&mut lake, key);
        let difference = difference(of_source, of_lake);
        if difference.is_any() {
            found(key, difference);
        }
    }
}

fn take_key<'a>(side: &mut &'a [(Identity, i64)], key: u128) -> &'a [(Identity, i64)] {
    let end = side.partition_point(|(one, _)| one.key == key);
    let (taken, rest) = side.split_at(end);
    *side = rest;
    taken
}

/// How the rows of one key differ: what is on one side only is paired, the rest is missing or too
/// much.
fn difference(source: &[(Identity, i64)], lake: &[(Identity, i64)]) -> Difference {
    let mut surplus: HashMap<u128, i64> = HashMap::new();
    for (one, count) in source {
        *surplus.entry(one.row).or_default() += count;
    }
    for (one, count) in lake {
        *surplus.entry(one.row).or_default() -= count;
    }
    let missing: i64 = surplus.values().filter(|count| **count > 0).sum();
    let extra: i64 = surplus.values().filter(|count| **count < 0).map(|count| -count).sum();
    let differing = missing.min(extra);
    let number = |count: i64| u64::try_from(count).unwrap_or(0);
    Difference {
        missing: number(missing - differing),
        extra: number(extra - differing),
        differing: number(differing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(pairs: &[(u128, u128)]) -> Vec<(Identity, i64)> {
        let mut spill = Spill::new(1).unwrap();
        for &(key, row) in pairs {
            spill.add(Identity { key, row }, 1).unwrap();
        }
        spill.take(0).unwrap()
    }

    fn settled(source: &[(u128, u128)], lake: &[(u128, u128)]) -> Vec<(u128, u64, u64, u64)> {
        let mut all = Vec::new();
        settle(&rows(source), &rows(lake), |key, d| {
            all.push((key, d.missing, d.extra, d.differing));
        });
        all
    }

    #[test]
    fn each_difference_has_its_name() {
        let source = [(1, 10), (2, 20), (3, 30), (5, 50)];
        let lake = [(1, 10), (2, 21), (4, 40), (5, 50), (5, 50)];
        let want = [(2, 0, 0, 1), (3, 1, 0, 0), (4, 0, 1, 0), (5, 0, 1, 0)];
        assert_eq!(settled(&source, &lake), want);
        assert_eq!(settled(&[(1, 10)], &[(1, 11), (1, 12)]), [(1, 0, 1, 1)]);
        assert_eq!(settled(&source, &source), []);
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_their_number_does() {
        let of = |rows: &[(u128, u128)]| {
            let mut buckets = Buckets::new();
            for &(key, row) in rows {
                buckets.add(Identity { key: key << 120, row }, 1);
            }
            buckets
        };
        let one = of(&[(1, 5), (2, 7), (2, 9)]);
        assert_eq!(one.differing(&of(&[(2, 9), (1, 5), (2, 7)])).rows, 0);
        assert_ne!(one.differing(&of(&[(1, 5), (2, 7)])).rows, 0);
        let mut back = of(&[(1, 5), (2, 7), (2, 9), (3, 4)]);
        back.add(Identity { key: 3 << 120, row: 4 }, -1);
        assert_eq!(one.differing(&back).rows, 0);
    }
}
