//! A row in canonical form, and what it is known by: two 128-bit hashes.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

use crate::verify::Sample;

/// The seed of samples: part k of n is the same rows every time.
const SAMPLE_SEED: u64 = 0x6672_617a_696c;

/// Canonical texts of one row's columns, NULL apart.
#[derive(Debug, Default)]
pub(super) struct Cells {
    bytes: Vec<u8>,
    places: Vec<Option<(usize, usize)>>,
}

impl Cells {
    /// Begins a new row.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    /// Adds NULL.
    pub(super) fn null(&mut self) {
        self.places.push(None);
    }

    /// Adds a value that `write` appends.
    pub(super) fn value<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.bytes.len();
        let done = write(&mut self.bytes);
        self.places.push(Some((start, self.bytes.len())));
        done
    }

    /// One column; `None` is NULL.
    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        let (start, end) = self.places.get(at).copied().flatten()?;
        self.bytes.get(start..end)
    }

    /// How many columns there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

/// What a row is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    /// Hash of the key; of the whole row where there is no key.
    pub(super) key: u128,
    /// Hash of the whole row.
    pub(super) row: u128,
}

/// Hashes rows, differently in every run: two rows that meet once do not meet again.
#[derive(Debug, Clone)]
pub(super) struct RowHasher {
    high: FixedState,
    low: FixedState,
    sample: Option<Sample>,
}

impl RowHasher {
    pub(super) fn new(sample: Option<Sample>) -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self { high: FixedState::with_seed(high), low: FixedState::with_seed(low), sample }
    }

    /// The identity of a row, `key` the places of its key; `None` where it is not in the sample.
    pub(super) fn identify(&self, cells: &Cells, key: &[usize]) -> Option<Identity> {
        let all = 0..cells.len();
        if let Some(sample) = self.sample {
            let mut hasher = FixedState::with_seed(SAMPLE_SEED).build_hasher();
            match key.is_empty() {
                true => write(&mut hasher, cells, all.clone()),
                false => write(&mut hasher, cells, key.iter().copied()),
            }
            if hasher.finish() % sample.of + 1 != sample.part {
                return None;
            }
        }
        let row = self.hash(cells, all);
        let key = if key.is_empty() { row } else { self.hash(cells, key.iter().copied()) };
        Some(Identity { key, row })
    }

    fn hash(&self, cells: &Cells, columns: impl Iterator<Item = usize> + Clone) -> u128 {
        let (mut high, mut low) = (self.high.build_hasher(), self.low.build_hasher());
        write(&mut high, cells, columns.clone());
        write(&mut low, cells, columns);
        u128::from(high.finish()) << 64 | u128::from(low.finish())
    }
}

/// Lengths go in too: no two rows are written alike.
fn write(hasher: &mut impl Hasher, cells: &Cells, columns: impl Iterator<Item = usize>) {
    for at in columns {
        match cells.get(at) {
            None => hasher.write_u64(u64::MAX),
            Some(value) => {
                hasher.write_usize(value.len());
                hasher.write(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(values: &[Option<&str>]) -> Cells {
        let mut cells = Cells::default();
        for value in values {
            match value {
                None => cells.null(),
                Some(value) => cells.value(|into| into.extend_from_slice(value.as_bytes())),
            }
        }
        cells
    }

    #[test]
    fn rows_are_told_apart() {
        let hasher = RowHasher::new(None);
        let of = |values: &[Option<&str>]| hasher.identify(&cells(values), &[0]).unwrap();
        let one = of(&[Some("a"), Some("bc")]);
        assert_eq!(one, of(&[Some("a"), Some("bc")]));
        assert_eq!(one.key, of(&[Some("a"), None]).key);
        for other in [[Some("ab"), Some("c")], [Some("a"), None], [Some("a"), Some("")]] {
            assert_ne!(one.row, of(&other).row);
        }
        assert_ne!(of(&[None, Some("x")]).row, of(&[Some(""), Some("x")]).row);
    }

    #[test]
    fn the_parts_of_a_sample_are_the_whole() {
        let rows: Vec<Cells> = (0..1000).map(|n| cells(&[Some(&n.to_string())])).collect();
        let in_part = |part| {
            let hasher = RowHasher::new(Some(Sample { part, of: 4 }));
            rows.iter().filter(|row| hasher.identify(row, &[0]).is_some()).count()
        };
        let parts: Vec<usize> = (1..=4).map(in_part).collect();
        assert_eq!(parts.iter().sum::<usize>(), 1000);
        assert!(parts.iter().all(|&rows| rows > 150), "{parts:?}");
    }
}
