//! What changed between the snapshot (L) and the lake's position (P), last change per key.
//!
//! `snapshot rows with all source transactions L <= commit_lsn < P laid over them` is what the lake
//! must hold: P is an `end_lsn`, so each source transaction in the lake has a smaller commit_lsn.
//! Tables without a key are multisets: each change adds to the count of a row, or takes from it.

use std::collections::HashMap;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::progress::Lsn;
use crate::verify::follow::{Follower, Step};
use crate::verify::source::Subject;
use crate::verify::wire::{self, Cell, Change, Described, Old, Tuple};

/// Changes that are held in memory, in bytes, at most.
const BYTES_MAX: usize = 2 << 30;
/// What an entry costs beside its values, about.
const ENTRY_BYTES: usize = 120;

/// Key columns' texts, each with its length: equal if and only if the keys are.
pub(super) type Key = Box<[u8]>;

/// The key of a row of texts, in the order of `columns`.
pub(super) fn key_of<'a>(cells: impl Iterator<Item = Option<&'a [u8]>>) -> Key {
    let mut key = Vec::new();
    for cell in cells {
        match cell {
            None => key.push(0),
            Some(text) => {
                key.push(1);
                key.extend_from_slice(&text.len().to_be_bytes());
                key.extend_from_slice(text);
            }
        }
    }
    key.into()
}

/// A row that an INSERT or UPDATE left.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) cells: Tuple,
    /// The key under which the snapshot has the values that are unchanged TOAST.
    pub(super) origin: Key,
}

impl Row {
    fn is_whole(&self) -> bool {
        !self.cells.contains(&Cell::Unchanged)
    }
}

/// The changes of one table.
#[derive(Debug)]
pub(super) struct TableOverlay {
    /// Places of the key columns; empty without a key.
    key: Vec<usize>,
    /// Nothing of the snapshot is left.
    pub(super) truncated: bool,
    /// By key: the row, or nothing after a DELETE.
    pub(super) rows: HashMap<Key, Option<Row>>,
    /// Without a key: how often each row was added, less how often it was taken away.
    pub(super) loose: HashMap<Tuple, i64>,
    /// Old and new rows of the changes since [`Overlay::mark`].
    recent: Option<Recent>,
}

/// What changed of a table.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Rows whose key changed hands: the key columns are there.
    pub(super) rows: Vec<Tuple>,
    /// All of them.
    pub(super) truncated: bool,
}

impl TableOverlay {
    fn new(key: Vec<usize>) -> Self {
        let (rows, loose) = (HashMap::new(), HashMap::new());
        Self { key, truncated: false, rows, loose, recent: None }
    }

    /// The keys whose snapshot rows lend their TOAST values.
    pub(super) fn origins(&self) -> HashMap<Key, Option<Vec<Option<Bytes>>>> {
        let open = self.rows.values().flatten().filter(|row| !row.is_whole());
        open.map(|row| (row.origin.clone(), None)).collect()
    }

    fn key(&self, cells: &Tuple) -> Key {
        key_of(self.key.iter().map(|&at| cells.get(at).and_then(Cell::text)))
    }

    /// What changed since [`Overlay::mark`].
    pub(super) fn recent(&self) -> Option<&Recent> {
        self.recent.as_ref()
    }

    fn touch(&mut self, row: &Tuple) {
        if let Some(recent) = &mut self.recent {
            recent.rows.push(row.clone());
        }
    }

    fn insert(&mut self, cells: Tuple) {
        self.touch(&cells);
        if self.key.is_empty() {
            return self.count(cells, 1);
        }
        let key = self.key(&cells);
        self.rows.insert(key.clone(), Some(Row { cells, origin: key }));
    }

    fn delete(&mut self, old: Old) {
        self.touch(old.tuple());
        if self.key.is_empty() {
            return match old {
                Old::Full(cells) => self.count(cells, -1),
                Old::Key(_) => {}
            };
        }
        self.rows.insert(self.key(old.tuple()), None);
    }

    fn update(&mut self, old: Option<Old>, mut new: Tuple) {
        if let Some(old) = &old {
            self.fill_from_old(&mut new, old);
            self.touch(old.tuple());
        }
        self.touch(&new);
        if self.key.is_empty() {
            if let Some(Old::Full(before)) = old {
                self.count(before, -1);
            }
            return self.count(new, 1);
        }
        let key = self.key(&new);
        let before = old.as_ref().map_or_else(|| key.clone(), |old| self.key(old.tuple()));
        let mut row = Row { cells: new, origin: before.clone() };
        if let Some(Some(earlier)) = self.rows.get(&before) {
            for (cell, was) in row.cells.iter_mut().zip(&earlier.cells) {
                if *cell == Cell::Unchanged {
                    *cell = was.clone();
                }
            }
            row.origin = earlier.origin.clone();
        }
        if before != key {
            self.rows.insert(before, None);
        }
        self.rows.insert(key, Some(row));
    }

    /// Unchanged values that the old row of the same message holds (cases 78, 79).
    fn fill_from_old(&self, new: &mut Tuple, old: &Old) {
        let is_full = matches!(old, Old::Full(_));
        for (at, (cell, was)) in new.iter_mut().zip(old.tuple()).enumerate() {
            let holds = is_full || self.key.contains(&at);
            if holds && *cell == Cell::Unchanged && *was != Cell::Unchanged {
                *cell = was.clone();
            }
        }
    }

    fn count(&mut self, cells: Tuple, by: i64) {
        let count = self.loose.entry(cells).or_insert(0);
        *count += by;
    }

    fn truncate(&mut self) {
        self.rows.clear();
        self.loose.clear();
        self.truncated = true;
        if let Some(recent) = &mut self.recent {
            recent.truncated = true;
        }
    }
}

/// The changes of all tables, up to where the stream was followed.
#[derive(Debug)]
pub(super) struct Overlay {
    tables: HashMap<u32, TableOverlay>,
    expected: HashMap<u32, Vec<(String, u32)>>,
    /// Everything that commits before this is in it.
    reached: Lsn,
    /// A source transaction that was begun and not ended: its commit_lsn.
    open: Option<Lsn>,
    bytes: usize,
}

impl Overlay {
    /// Nothing yet, on the snapshot at `consistent_point`.
    pub(super) fn new(subjects: &[Subject], consistent_point: Lsn) -> Self {
        let relation = |subject: &Subject| (subject.oid(), subject.described());
        let table = |subject: &Subject| (subject.oid(), TableOverlay::new(subject.key().to_vec()));
        Self {
            tables: subjects.iter().map(table).collect(),
            expected: subjects.iter().map(relation).collect(),
            reached: consistent_point,
            open: None,
            bytes: 0,
        }
    }

    /// Follows the stream until everything that commits before `until` is laid over.
    ///
    /// # Errors
    /// `SCHEMA_MOVED` (transient) where a table has other columns than in the snapshot,
    /// `VERIFY_TOO_FAR` (transient) where too much changed, and those of the connection.
    pub(super) async fn follow(&mut self, follower: &mut Follower, until: Lsn) -> Result<()> {
        while self.reached < until && self.open.is_none_or(|commit_lsn| commit_lsn < until) {
            match follower.next().await? {
                Step::Begin { commit_lsn } => self.open = Some(commit_lsn),
                Step::Change(message) => self.apply(wire::parse(&message)?)?,
                Step::End { end_lsn } => {
                    self.open = None;
                    self.reached = self.reached.max(end_lsn);
                }
                Step::Reached(lsn) if self.open.is_none() => self.reached = self.reached.max(lsn),
                Step::Reached(_) => {}
            }
        }
        Ok(())
    }

    /// The changes of one table.
    pub(super) fn table(&self, oid: u32) -> Option<&TableOverlay> {
        self.tables.get(&oid)
    }

    /// From here on it is remembered which rows change.
    pub(super) fn mark(&mut self) {
        for table in self.tables.values_mut() {
            table.recent = Some(Recent::default());
        }
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Relation(described) => self.check(&described)?,
            Change::Insert(oid, new) => self.on(oid, weight(&new), |table| table.insert(new))?,
            Change::Update(oid, old, new) => {
                let bytes = weight(&new) + old.as_ref().map_or(0, |old| weight(old.tuple()));
                self.on(oid, bytes, |table| table.update(old, new))?;
            }
            Change::Delete(oid, old) => {
                self.on(oid, weight(old.tuple()), |table| table.delete(old))?;
            }
            Change::Truncate(oids) => {
                for oid in oids {
                    self.on(oid, 0, TableOverlay::truncate)?;
                }
            }
            Change::Other => {}
        }
        Ok(())
    }

    fn on(&mut self, oid: u32, bytes: usize, act: impl FnOnce(&mut TableOverlay)) -> Result<()> {
        let Some(table) = self.tables.get_mut(&oid) else { return Ok(()) };
        act(table);
        self.bytes += bytes;
        if self.bytes > BYTES_MAX {
            let what =
                "more changed between the snapshot and the lake's position than memory holds";
            return Err(Error::transient("VERIFY_TOO_FAR", what).with_cure(
                "verify again once the lake has caught up, or fewer tables at a time: --tables",
            ));
        }
        Ok(())
    }

    fn check(&self, described: &Described) -> Result<()> {
        match self.expected.get(&described.oid) {
            Some(expected) if *expected != described.columns => {
                Err(Error::transient("SCHEMA_MOVED", "a table was altered while it was verified")
                    .with_cure("verify again"))
            }
            _ => Ok(()),
        }
    }
}

fn weight(cells: &Tuple) -> usize {
    ENTRY_BYTES + cells.iter().map(|cell| cell.len() + size_of::<Cell>()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Tuple {
        values
            .iter()
            .map(|value| match *value {
                "u" => Cell::Unchanged,
                "-" => Cell::Null,
                text => Cell::Text(Bytes::copy_from_slice(text.as_bytes())),
            })
            .collect()
    }

    fn key(value: &str) -> Key {
        key_of([Some(value.as_bytes())].into_iter())
    }

    #[test]
    fn unchanged_values_follow_a_row_through_its_keys() {
        let mut table = TableOverlay::new(vec![0]);
        table.update(None, row(&["1", "a", "u"]));
        table.update(Some(Old::Key(row(&["1", "-", "-"]))), row(&["2", "b", "u"]));
        table.update(Some(Old::Key(row(&["2", "-", "-"]))), row(&["3", "b", "u"]));
        assert!(table.rows[&key("1")].is_none() && table.rows[&key("2")].is_none());
        let last = table.rows[&key("3")].as_ref().unwrap();
        assert_eq!((last.cells.clone(), &last.origin), (row(&["3", "b", "u"]), &key("1")));
        table.update(None, row(&["3", "c", "long"]));
        table.update(None, row(&["3", "d", "u"]));
        assert_eq!(table.rows[&key("3")].as_ref().unwrap().cells, row(&["3", "d", "long"]));
        assert!(table.origins().is_empty());
    }

    #[test]
    fn rows_without_a_key_are_counted() {
        let mut table = TableOverlay::new(vec![]);
        table.insert(row(&["a", "long"]));
        table.insert(row(&["a", "long"]));
        table.update(Some(Old::Full(row(&["a", "long"]))), row(&["b", "u"]));
        table.delete(Old::Full(row(&["c", "-"])));
        assert_eq!(table.loose[&row(&["a", "long"])], 1);
        assert_eq!(table.loose[&row(&["b", "long"])], 1);
        assert_eq!(table.loose[&row(&["c", "-"])], -1);
        table.truncate();
        assert!(table.truncated && table.loose.is_empty());
    }

    #[test]
    fn keys_are_not_confused() {
        let pair = |a: &'static str, b: &'static str| {
            key_of([Some(a.as_bytes()), Some(b.as_bytes())].into_iter())
        };
        assert_ne!(pair("a", "bc"), pair("ab", "c"));
        assert_ne!(key_of([None].into_iter()), key_of([Some(&b""[..])].into_iter()));
    }
}
