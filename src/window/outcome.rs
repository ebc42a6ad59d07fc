//! What a fold comes to: the rows to write, the keys to delete, and the rows that lack a value.
//!
//! Columns that an UPDATE left as unchanged TOAST are looked for along the row's chain: the old
//! tuple of the same message, then the version before it, and so on. A row found whole is put
//! together in a side buffer as one complete tuple, so that it is decoded like any other. What is
//! not in the segment stays open and names the key under which the lake knows the row (cases 76 to
//! 80).

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::window::fold::{Fold, NONE, Version};
use crate::window::multiset::Multiset;
use crate::window::relation::Relation;
use crate::window::wire::{Field, Framing, WalTuple, has_unchanged};

/// The outcome of one table in one segment.
#[derive(Debug)]
pub struct Outcome {
    /// The table as it was in this segment.
    pub relation: Arc<Relation>,
    /// Whether everything older is gone (TRUNCATE).
    pub truncated: bool,
    /// Tuples of the rows to insert, in the segment's receive buffer.
    pub rows: Vec<u32>,
    /// Tuples put together from several versions: their bytes ...
    pub patched: Vec<u8>,
    /// ... where the whole ones begin in `patched` ...
    pub patched_rows: Vec<u32>,
    /// ... and the ones that still lack values.
    pub open: Vec<OpenRow>,
    /// Tuples (in the receive buffer) whose key columns name the rows to delete.
    pub deletes: Vec<u32>,
    /// Rows of a table without a key of which there are fewer now, also named by `deletes`.
    pub fewer: Vec<Fewer>,
    /// Changes that arrived, folded away or not.
    pub changes: u64,
}

/// Equal rows of which some are gone.
#[derive(Debug, Clone, Copy)]
pub struct Fewer {
    /// One of them, in the receive buffer.
    pub at: u32,
    /// Its bytes.
    pub len: u32,
    /// How many fewer there are.
    pub count: u64,
}

/// A row whose unchanged TOAST is not in this segment.
#[derive(Debug)]
pub struct OpenRow {
    /// Its tuple in [`Outcome::patched`].
    pub at: u32,
    /// A tuple in the receive buffer with the key the row had before this segment.
    pub key: u32,
    /// The columns that lack a value, ascending.
    pub missing: Vec<usize>,
}

impl Outcome {
    /// Settles `fold`, whose tuples stand in `buf`.
    pub fn of(fold: &Fold, buf: &[u8]) -> Result<Self> {
        let mut outcome = Self {
            relation: Arc::clone(&fold.relation),
            truncated: fold.truncated,
            rows: Vec::with_capacity(fold.versions.len()),
            patched: Vec::new(),
            patched_rows: Vec::new(),
            open: Vec::new(),
            deletes: fold.deletes(),
            fewer: Vec::new(),
            changes: fold.changes,
        };
        if let Some(rows) = &fold.whole_rows {
            outcome.balance(rows, buf);
            return Ok(outcome);
        }
        let columns = fold.relation.columns.len();
        let toastable = fold.relation.columns.iter().any(|column| column.toastable);
        for version in fold.versions.iter().filter(|version| version.live) {
            if version.is_update && toastable && has_unchanged(buf, version.new, columns)? {
                outcome.patch(fold, buf, version)?;
            } else {
                outcome.rows.push(version.new);
            }
        }
        Ok(outcome)
    }

    /// Whether older rows must be looked at to write this.
    pub fn needs_older_rows(&self) -> bool {
        !self.open.is_empty() || !self.fewer.is_empty()
    }

    fn balance(&mut self, rows: &Multiset, buf: &[u8]) {
        for row in rows.changed() {
            let (bytes, in_buffer) = rows.bytes_of(buf, row.tuple);
            let count = row.net.unsigned_abs();
            match (row.net > 0, in_buffer) {
                (true, Some(at)) => self.rows.extend((0..count).map(|_| at)),
                (true, None) => {
                    let at = u32::try_from(self.patched.len()).unwrap_or(NONE);
                    self.patched.extend_from_slice(bytes);
                    self.patched_rows.extend((0..count).map(|_| at));
                }
                // The old tuple of a change is in the buffer.
                (false, at) => {
                    let at = at.unwrap_or(NONE);
                    self.fewer.push(Fewer { at, len: row.tuple.len, count });
                }
            }
        }
        self.rows.sort_unstable();
        self.fewer.sort_unstable_by_key(|row| row.at);
        self.deletes = self.fewer.iter().map(|row| row.at).collect();
    }

    fn patch(&mut self, fold: &Fold, buf: &[u8], version: &Version) -> Result<()> {
        let mut chain = Chain::new(fold, buf);
        let key = chain.follow(*version)?;
        let at = u32::try_from(self.patched.len()).unwrap_or(NONE);
        let mut missing = Vec::new();
        for (column, field) in chain.fields.iter().enumerate() {
            match field.as_ref().and_then(|field| buf.get(field.clone())) {
                Some(bytes) => self.patched.extend_from_slice(bytes),
                None => {
                    self.patched.push(b'u');
                    missing.push(column);
                }
            }
        }
        if missing.is_empty() {
            self.patched_rows.push(at);
        } else {
            self.open.push(OpenRow { at, key, missing });
        }
        Ok(())
    }
}

/// The values of one row, gathered from the newest version backwards.
struct Chain<'a> {
    fold: &'a Fold,
    buf: &'a [u8],
    fields: Vec<Option<Range<usize>>>,
}

impl<'a> Chain<'a> {
    fn new(fold: &'a Fold, buf: &'a [u8]) -> Self {
        Self { fold, buf, fields: vec![None; fold.relation.columns.len()] }
    }

    /// Goes back from `version` until every value is found or the chain ends. Gives a tuple with
    /// the key of the oldest version seen.
    fn follow(&mut self, mut version: Version) -> Result<u32> {
        loop {
            self.take(version.new, |_| true)?;
            if version.old != NONE {
                let key = &self.fold.relation.key;
                self.take(version.old, |c| version.old_is_full || key.binary_search(&c).is_ok())?;
            }
            let done = self.fields.iter().all(Option::is_some);
            match self.fold.versions.get(version.previous as usize) {
                Some(previous) if !done => version = *previous,
                _ if version.old != NONE => return Ok(version.old),
                _ => return Ok(version.new),
            }
        }
    }

    /// Takes the values still missing from the tuple at `at`, where it has them.
    fn take(&mut self, at: u32, has: impl Fn(usize) -> bool) -> Result<()> {
        let mut cursor = at;
        for (column, slot) in self.fields.iter_mut().enumerate() {
            let start = cursor as usize;
            let field = WalTuple::next(self.buf, &mut cursor)?;
            if slot.is_none() && has(column) && !matches!(field, Field::Unchanged) {
                *slot = Some(start..cursor as usize);
            }
        }
        Ok(())
    }
}
