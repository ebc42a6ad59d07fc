//! Folding by key: many changes of a row in one segment become at most one delete and one insert.
//!
//! ```text
//!   I(1,a) U(1,b) U(1,c)   ->  insert (1,c)                 first change is an insert: no delete
//!   U(1,b) D(1)            ->  delete 1
//!   U(1->2)                ->  delete 1, insert (2,...)
//! ```
//! An equality delete is written for a key if and only if its first change in the segment is not an
//! insert: equality deletes reach smaller sequence numbers only (Iceberg spec, "Scan Planning"),
//! so a segment's own inserts are safe, and an earlier segment's insert is deleted by a later
//! segment.
//!
//! Nothing is decoded here. Keys are compared as the bytes that were sent (case 68); a version is
//! two positions in the receive buffer. Versions of one row are linked, because a later one may
//! leave columns as unchanged TOAST (cases 76 to 80).

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use hashbrown::hash_table::{Entry, HashTable};

use crate::error::{Error, Result};

use crate::window::multiset::Multiset;
use crate::window::relation::{KeyForm, OldTuple, Relation, Tuple};
use crate::window::wire::{Field, Framing, WalTuple, skip};

/// "No such position" in a [`Version`].
pub const NONE: u32 = u32::MAX;

/// One image of a row, as positions in the segment's receive buffer.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// The new tuple's first field.
    pub new: u32,
    /// The old tuple's first field (`K` or `O`), or [`NONE`].
    pub old: u32,
    /// Whether the old tuple is the whole row (`O`).
    pub old_is_full: bool,
    /// The version of the same row before this one in the segment, or [`NONE`].
    pub previous: u32,
    /// Whether it came as an UPDATE, so that columns may be unchanged TOAST.
    pub is_update: bool,
    /// Whether the row looks like this at the end of the segment.
    pub live: bool,
}

#[derive(Debug, Clone, Copy)]
struct KeyAt {
    at: u32,
    len: u32,
    gathered: bool,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    key: KeyAt,
    /// A tuple that holds all key columns, for the delete file.
    tuple: u32,
    /// The live version, or [`NONE`] when the row is gone.
    last: u32,
    first_is_insert: bool,
}

/// The changes of one table in one segment.
#[derive(Debug)]
pub struct Fold {
    /// The table as it was when the changes were made: one relation version per segment.
    pub relation: Arc<Relation>,
    /// Every image that arrived, in order; those with `live` are the outcome.
    pub versions: Vec<Version>,
    /// Whether the table was truncated: what stood before in the lake and in the window is gone.
    pub truncated: bool,
    /// Changes that arrived, folded away or not.
    pub changes: u64,
    slots: HashTable<Slot>,
    /// Takes the place of `slots` and `versions` where whole rows are the key.
    pub(crate) whole_rows: Option<Box<Multiset>>,
    /// Keys whose columns do not lie side by side in the tuple, put together.
    gathered: Vec<u8>,
    seed: foldhash::fast::FixedState,
}

impl Fold {
    /// An empty fold for `relation`.
    pub fn new(relation: Arc<Relation>) -> Self {
        let is_whole_row = relation.key_form == KeyForm::WholeRow;
        Self {
            relation,
            whole_rows: is_whole_row.then(Box::default),
            versions: Vec::new(),
            truncated: false,
            changes: 0,
            slots: HashTable::new(),
            gathered: Vec::new(),
            seed: foldhash::fast::FixedState::default(),
        }
    }

    /// Bytes of the index, without the receive buffer.
    pub fn index_bytes(&self) -> usize {
        self.versions.capacity() * size_of::<Version>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.gathered.capacity()
            + self.whole_rows.as_ref().map_or(0, |rows| rows.bytes())
    }

    /// INSERT of the tuple `new`.
    pub fn insert(&mut self, buf: &[u8], new: Tuple) -> Result<()> {
        self.check_columns(new)?;
        if self.relation.key.is_empty() {
            return self.insert_without_key(buf, new);
        }
        let version = self.push(new.at, NONE, false, NONE, false);
        let key = self.key_of(buf, new.at)?;
        self.upsert(buf, key, new.at, version, true);
        Ok(())
    }

    /// UPDATE to the tuple `new`, with the old tuple where the server sent one.
    pub fn update(&mut self, buf: &[u8], old: Option<(OldTuple, Tuple)>, new: Tuple) -> Result<()> {
        self.check_columns(new)?;
        if self.relation.key.is_empty() {
            return self.update_without_key(buf, old, new);
        }
        let Some((kind, old)) = old else {
            let key = self.key_of(buf, new.at)?;
            let previous = self.last_of(buf, key);
            let version = self.push(new.at, NONE, false, previous, true);
            self.upsert(buf, key, new.at, version, false);
            return Ok(());
        };
        self.check_columns(old)?;
        let full = matches!(kind, OldTuple::Full);
        let old_key = self.key_of(buf, old.at)?;
        let new_key = self.key_or_old(buf, new.at, old.at)?;
        let previous = self.last_of(buf, old_key);
        let version = self.push(new.at, old.at, full, previous, true);
        if self.key_bytes(buf, old_key) == self.key_bytes(buf, new_key) {
            self.upsert(buf, new_key, old.at, version, false);
        } else {
            self.remove(buf, old_key, old.at);
            self.upsert(buf, new_key, new.at, version, true);
        }
        Ok(())
    }

    /// DELETE of the row that `old` names.
    pub fn delete(&mut self, buf: &[u8], (kind, old): (OldTuple, Tuple)) -> Result<()> {
        self.check_columns(old)?;
        if self.relation.key.is_empty() {
            let columns = self.relation.columns.len();
            self.whole_rows("DELETE", Some(kind))?.remove(buf, old.at, columns)?;
            self.changes += 1;
            return Ok(());
        }
        self.changes += 1;
        let key = self.key_of(buf, old.at)?;
        self.remove(buf, key, old.at);
        Ok(())
    }

    /// TRUNCATE: nothing that came before counts, and the rule starts afresh (case 81).
    pub fn truncate(&mut self) {
        self.slots.clear();
        self.versions.clear();
        self.gathered.clear();
        if let Some(rows) = &mut self.whole_rows {
            rows.clear();
        }
        self.truncated = true;
        self.changes += 1;
    }

    /// Tuples that name the keys to delete, each once, in no particular order.
    pub fn deletes(&self) -> Vec<u32> {
        let mut tuples: Vec<u32> =
            self.slots.iter().filter(|slot| !slot.first_is_insert).map(|slot| slot.tuple).collect();
        tuples.sort_unstable();
        tuples
    }

    fn insert_without_key(&mut self, buf: &[u8], new: Tuple) -> Result<()> {
        match &mut self.whole_rows {
            Some(rows) => {
                rows.add(buf, new.at, self.relation.columns.len())?;
                self.changes += 1;
            }
            None => {
                self.push(new.at, NONE, false, NONE, false);
            }
        }
        Ok(())
    }

    fn update_without_key(
        &mut self,
        buf: &[u8],
        old: Option<(OldTuple, Tuple)>,
        new: Tuple,
    ) -> Result<()> {
        old.map_or(Ok(()), |(_, old)| self.check_columns(old))?;
        let columns = self.relation.columns.len();
        let rows = self.whole_rows("UPDATE", old.map(|(kind, _)| kind))?;
        if let Some((_, old)) = old {
            rows.replace(buf, old.at, new.at, columns)?;
        }
        self.changes += 1;
        Ok(())
    }

    /// The rows of a table without a key, for a change that shows the whole old row.
    fn whole_rows(&mut self, what: &str, old: Option<OldTuple>) -> Result<&mut Multiset> {
        match &mut self.whole_rows {
            Some(rows) if old == Some(OldTuple::Full) => Ok(rows),
            _ => Err(without_key(&self.relation, what)),
        }
    }

    fn push(&mut self, new: u32, old: u32, full: bool, previous: u32, is_update: bool) -> u32 {
        self.changes += 1;
        let index = u32::try_from(self.versions.len()).unwrap_or(NONE);
        let version = Version { new, old, old_is_full: full, previous, is_update, live: true };
        self.versions.push(version);
        index
    }

    /// The row with `key` now looks like `version`.
    fn upsert(&mut self, buf: &[u8], key: KeyAt, tuple: u32, version: u32, fresh: bool) {
        let (hash, entry) = find(&mut self.slots, &self.gathered, &self.seed, buf, key);
        let superseded = match entry {
            Entry::Occupied(mut slot) => std::mem::replace(&mut slot.get_mut().last, version),
            Entry::Vacant(slot) => {
                slot.insert(Slot { hash, key, tuple, last: version, first_is_insert: fresh });
                NONE
            }
        };
        self.supersede(superseded);
    }

    /// The row with `key` is gone.
    fn remove(&mut self, buf: &[u8], key: KeyAt, tuple: u32) {
        let (hash, entry) = find(&mut self.slots, &self.gathered, &self.seed, buf, key);
        let superseded = match entry {
            Entry::Occupied(mut slot) => std::mem::replace(&mut slot.get_mut().last, NONE),
            Entry::Vacant(slot) => {
                slot.insert(Slot { hash, key, tuple, last: NONE, first_is_insert: false });
                NONE
            }
        };
        self.supersede(superseded);
    }

    fn supersede(&mut self, version: u32) {
        if let Some(version) = self.versions.get_mut(version as usize) {
            version.live = false;
        }
    }

    fn last_of(&mut self, buf: &[u8], key: KeyAt) -> u32 {
        match find(&mut self.slots, &self.gathered, &self.seed, buf, key).1 {
            Entry::Occupied(slot) => slot.get().last,
            Entry::Vacant(_) => NONE,
        }
    }

    fn key_bytes<'a>(&'a self, buf: &'a [u8], key: KeyAt) -> &'a [u8] {
        key.bytes(buf, &self.gathered)
    }

    /// The key in the tuple at `new`, or in the one at `old` where the key itself is unchanged
    /// TOAST (case 79).
    fn key_or_old(&mut self, buf: &[u8], new: u32, old: u32) -> Result<KeyAt> {
        match self.try_key(buf, new)? {
            Some(key) => Ok(key),
            None => self.key_of(buf, old),
        }
    }

    fn key_of(&mut self, buf: &[u8], at: u32) -> Result<KeyAt> {
        self.try_key(buf, at)?.ok_or_else(|| {
            Error::table(
                "KEY_MISSING",
                self.relation.display(),
                "a key column arrived as unchanged TOAST without the old key",
            )
        })
    }

    /// Where the key's bytes are, kind and length of each field included. `None` where a key column
    /// is unchanged TOAST.
    fn try_key(&mut self, buf: &[u8], at: u32) -> Result<Option<KeyAt>> {
        let (mut cursor, mut field) = (at, 0);
        let mut found = KeyAt { at: 0, len: 0, gathered: false };
        let gathered_at = self.gathered.len();
        let last = self.relation.key.len().saturating_sub(1);
        for (nth, &column) in self.relation.key.iter().enumerate() {
            skip::<WalTuple>(buf, &mut cursor, column - field)?;
            let start = cursor;
            match WalTuple::next(buf, &mut cursor)? {
                Field::Unchanged => return Ok(None),
                Field::Null => return Err(null_key(&self.relation, column)),
                Field::Binary(_) | Field::Text(_) => {}
            }
            field = column + 1;
            if nth == 0 {
                found = KeyAt { at: start, len: cursor - start, gathered: false };
            } else if !found.gathered && found.at + found.len == start {
                found.len = cursor - found.at;
            } else {
                if !found.gathered {
                    self.gathered.extend_from_slice(found.bytes(buf, &[]));
                }
                self.gathered.extend_from_slice(range(buf, start, cursor - start));
                found = side_key(gathered_at, self.gathered.len());
            }
            if nth == last {
                return Ok(Some(found));
            }
        }
        Ok(Some(found))
    }

    fn check_columns(&self, tuple: Tuple) -> Result<()> {
        if usize::from(tuple.columns) == self.relation.columns.len() {
            return Ok(());
        }
        Err(Error::table(
            "COLUMN_COUNT",
            self.relation.display(),
            format!(
                "a row has {} columns where the table has {}",
                tuple.columns,
                self.relation.columns.len()
            ),
        )
        .with_cure("start again: the server describes the table anew; if it repeats, report it"))
    }
}

impl KeyAt {
    fn bytes<'a>(self, buf: &'a [u8], gathered: &'a [u8]) -> &'a [u8] {
        range(if self.gathered { gathered } else { buf }, self.at, self.len)
    }
}

fn side_key(start: usize, end: usize) -> KeyAt {
    let at = u32::try_from(start).unwrap_or(NONE);
    KeyAt { at, len: u32::try_from(end - start).unwrap_or(0), gathered: true }
}

fn range(bytes: &[u8], at: u32, len: u32) -> &[u8] {
    bytes.get(at as usize..(at + len) as usize).unwrap_or_default()
}

fn hash_of(seed: &foldhash::fast::FixedState, key: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// The slot of `key`, or the place for it, with its hash.
#[inline]
fn find<'a>(
    slots: &'a mut HashTable<Slot>,
    gathered: &[u8],
    seed: &foldhash::fast::FixedState,
    buf: &[u8],
    key: KeyAt,
) -> (u64, Entry<'a, Slot>) {
    let bytes = key.bytes(buf, gathered);
    let hash = hash_of(seed, bytes);
    let same = |slot: &Slot| slot.hash == hash && slot.key.bytes(buf, gathered) == bytes;
    (hash, slots.entry(hash, same, |slot| slot.hash))
}

fn null_key(relation: &Relation, column: usize) -> Error {
    let name = relation.columns.get(column).map_or("?", |column| column.name.as_str());
    Error::table("KEY_NULL", relation.display(), "a key column is NULL").with_column(name)
}

fn without_key(relation: &Relation, what: &str) -> Error {
    let message = format!("{what} of a row that nothing identifies");
    Error::table("CHANGE_WITHOUT_KEY", relation.display(), message).with_cure(
        "give the table a primary key or REPLICA IDENTITY FULL and copy it afresh, or publish only \
         its inserts (publish = 'insert')",
    )
}
