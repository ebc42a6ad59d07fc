//! What was found, for people and as JSON (the fields are `docs/verify.md`).

use serde::Serialize;

use crate::progress::Lsn;
use crate::verify::lake::Columns;

/// What a comparison came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nothing differs.
    pub equal: bool,
    /// P: the position at which source and lake were compared.
    pub position: Lsn,
    /// L: the position of the source's snapshot; what came between was laid over it.
    pub snapshot_position: Lsn,
    /// Which part of the keys was compared, as `k/n`; `None`: all.
    pub sample: Option<String>,
    /// One entry per table, by name.
    pub tables: Vec<TableReport>,
    /// What `--repair` rewrote; `None` where it was not asked for, or there was nothing to do.
    pub repaired: Option<Repaired>,
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// `namespace.name` at the source.
    pub table: String,
    /// Nothing differs.
    pub equal: bool,
    /// Rows that the lake should hold.
    pub source_rows: u64,
    /// Rows that it holds.
    pub lake_rows: u64,
    /// Rows that the lake lacks.
    pub missing: u64,
    /// Rows that the lake has too much: unknown keys, and the second of a key that is there twice.
    pub extra: u64,
    /// Rows with the right key and other values.
    pub differing: u64,
    /// Some of them, 20 at most.
    pub examples: Vec<Example>,
    /// Columns that cannot be compared.
    pub not_compared: Vec<String>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

/// One key that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// `missing`, `extra` or `differing`.
    pub kind: &'static str,
    /// The key's columns with their values as text; all columns where there is no key.
    pub key: Vec<(String, Option<String>)>,
    /// The columns whose values differ, where both sides have the key.
    pub columns: Vec<String>,
}

/// What a repair did.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Repaired {
    /// Rows written.
    pub rows_inserted: u64,
    /// Keys deleted.
    pub keys_deleted: u64,
    /// The position of the lake commit.
    pub position: Lsn,
}

impl Repaired {
    /// Both, one after the other.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            rows_inserted: self.rows_inserted + later.rows_inserted,
            keys_deleted: self.keys_deleted + later.keys_deleted,
            position: later.position,
        }
    }
}

/// How the rows of one key differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) missing: u64,
    pub(super) extra: u64,
    pub(super) differing: u64,
}

impl Difference {
    pub(super) fn is_any(&self) -> bool {
        self.missing + self.extra + self.differing > 0
    }

    pub(super) fn kind(&self) -> &'static str {
        match (self.differing, self.missing) {
            (1.., _) => "differing",
            (0, 1..) => "missing",
            (0, 0) => "extra",
        }
    }
}

impl TableReport {
    pub(super) fn new(name: &str, columns: &Columns) -> Self {
        Self {
            table: name.to_owned(),
            equal: true,
            source_rows: 0,
            lake_rows: 0,
            missing: 0,
            extra: 0,
            differing: 0,
            examples: Vec::new(),
            not_compared: columns.skipped.clone(),
            notes: columns.notes.clone(),
        }
    }

    pub(super) fn add(&mut self, found: &Difference) {
        self.missing += found.missing;
        self.extra += found.extra;
        self.differing += found.differing;
        self.equal = false;
    }
}
