//! Folding without a key (REPLICA IDENTITY FULL, case 74): rows may be equal, so what counts is how
//! many more or fewer of a row there are after the segment than before.
//!
//! ```text
//!   I(a) I(a) D(a)          ->  one a more
//!   D(a) U(a -> b)          ->  two a fewer, one b more
//!   U(a -> a)               ->  nothing
//! ```
//! Equal rows can't be told apart, so their order does not matter. Rows are compared as the bytes
//! that were sent: the old tuple is whole, and what an UPDATE leaves as unchanged TOAST is taken
//! from there first (case 78).

use std::hash::BuildHasher;

use hashbrown::hash_table::{Entry, HashTable};

use crate::error::{Error, Result};
use crate::window::wire::{Field, Framing, WalTuple};

/// Rows by their bytes, each with how many more (fewer) of it there are.
#[derive(Debug, Default)]
pub(crate) struct Multiset {
    rows: HashTable<Row>,
    /// Tuples that were completed from their old ones.
    completed: Vec<u8>,
    seed: foldhash::fast::FixedState,
}

/// One row and its balance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    hash: u64,
    pub(crate) tuple: WholeTuple,
    /// Rows more, or fewer, than before the segment.
    pub(crate) net: i64,
}

/// Where a whole tuple stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeTuple {
    at: u32,
    pub(crate) len: u32,
    is_completed: bool,
}

impl Multiset {
    /// One row more: the tuple at `at`.
    pub(crate) fn add(&mut self, buf: &[u8], at: u32, columns: usize) -> Result<()> {
        let tuple = whole(buf, at, columns)?;
        self.count(buf, tuple, 1);
        Ok(())
    }

    /// One row fewer: the tuple at `at`.
    pub(crate) fn remove(&mut self, buf: &[u8], at: u32, columns: usize) -> Result<()> {
        let tuple = whole(buf, at, columns)?;
        self.count(buf, tuple, -1);
        Ok(())
    }

    /// The row `old` became `new`, which may lack unchanged TOAST.
    pub(crate) fn replace(&mut self, buf: &[u8], old: u32, new: u32, columns: usize) -> Result<()> {
        let new = self.complete(buf, old, new, columns)?;
        self.count(buf, new, 1);
        self.remove(buf, old, columns)
    }

    /// TRUNCATE.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.completed.clear();
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.completed.capacity()
    }

    /// The rows of which there are more or fewer now, in no particular order.
    pub(crate) fn changed(&self) -> impl Iterator<Item = Row> {
        self.rows.iter().copied().filter(|row| row.net != 0)
    }

    /// The bytes of a tuple, and its place in `buf` where it stands there.
    pub(crate) fn bytes_of<'a>(
        &'a self,
        buf: &'a [u8],
        tuple: WholeTuple,
    ) -> (&'a [u8], Option<u32>) {
        (bytes(buf, &self.completed, tuple), (!tuple.is_completed).then_some(tuple.at))
    }

    fn count(&mut self, buf: &[u8], tuple: WholeTuple, change: i64) {
        let completed = &self.completed;
        let wanted = bytes(buf, completed, tuple);
        let hash = self.seed.hash_one(wanted);
        let same = |row: &Row| row.hash == hash && bytes(buf, completed, row.tuple) == wanted;
        match self.rows.entry(hash, same, |row| row.hash) {
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.net += change;
                // So that each row of which there are fewer stands in the receive buffer.
                if !tuple.is_completed {
                    row.tuple = tuple;
                }
            }
            Entry::Vacant(slot) => {
                slot.insert(Row { hash, tuple, net: change });
            }
        }
    }

    fn complete(&mut self, buf: &[u8], old: u32, new: u32, columns: usize) -> Result<WholeTuple> {
        let start = self.completed.len();
        let (mut from_old, mut from_new) = (old, new);
        let mut lacked = false;
        for _ in 0..columns {
            let (old_start, new_start) = (from_old, from_new);
            WalTuple::next(buf, &mut from_old)?;
            let field = match WalTuple::next(buf, &mut from_new)? {
                Field::Unchanged => {
                    lacked = true;
                    old_start..from_old
                }
                _ => new_start..from_new,
            };
            let field = buf.get(field.start as usize..field.end as usize);
            self.completed.extend_from_slice(field.unwrap_or_default());
        }
        if lacked {
            return place(start, self.completed.len() - start, true);
        }
        self.completed.truncate(start);
        Ok(WholeTuple { at: new, len: from_new - new, is_completed: false })
    }
}

/// The tuple at `at`, which must have all its values.
fn whole(buf: &[u8], at: u32, columns: usize) -> Result<WholeTuple> {
    let mut cursor = at;
    for _ in 0..columns {
        if WalTuple::next(buf, &mut cursor)? == Field::Unchanged {
            return Err(Error::fatal("BAD_MESSAGE", "a whole row lacks a value"));
        }
    }
    Ok(WholeTuple { at, len: cursor - at, is_completed: false })
}

fn place(at: usize, len: usize, is_completed: bool) -> Result<WholeTuple> {
    let number =
        |n| u32::try_from(n).map_err(|_| Error::fatal("BAD_MESSAGE", "over 4 GiB of rows"));
    Ok(WholeTuple { at: number(at)?, len: number(len)?, is_completed })
}

fn bytes<'a>(buf: &'a [u8], completed: &'a [u8], tuple: WholeTuple) -> &'a [u8] {
    let from = if tuple.is_completed { completed } else { buf };
    let end = tuple.at.saturating_add(tuple.len);
    from.get(tuple.at as usize..end as usize).unwrap_or_default()
}
