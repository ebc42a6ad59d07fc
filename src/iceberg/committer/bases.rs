//! Tables as this process last saw them, or left them: what a lake commit is staged on without
//! asking the catalog again. One that has moved meanwhile makes the catalog refuse the lake commit,
//! and then all of them are asked for afresh.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use iceberg::TableIdent;
use iceberg::table::Table;

/// Weight of all that is kept, an iceberg_snapshot being 1: some 4 KiB each. What is over is loaded
/// again when it is needed.
const WEIGHT_MAX: usize = 8192;

/// What the rest of a table's metadata weighs.
const TABLE_WEIGHT: usize = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Bases(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tables: HashMap<TableIdent, Table>,
    weight: usize,
}

impl Bases {
    pub(super) fn get(&self, ident: &TableIdent) -> Option<Table> {
        self.kept().tables.get(ident).cloned()
    }

    /// Keeps a table, and lets others go where it is too much.
    pub(super) fn keep(&self, table: Table) {
        let mut kept = self.kept();
        kept.weight += weight(&table);
        let ident = table.identifier().clone();
        if let Some(old) = kept.tables.insert(ident.clone(), table) {
            kept.weight -= weight(&old);
        }
        while kept.weight > WEIGHT_MAX {
            let Some(other) = kept.tables.keys().find(|other| **other != ident).cloned() else {
                return;
            };
            kept.forget(&other);
        }
    }

    pub(super) fn forget(&self, ident: &TableIdent) {
        self.kept().forget(ident);
    }

    pub(super) fn forget_all(&self) {
        *self.kept() = Kept::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget(&mut self, ident: &TableIdent) {
        if let Some(old) = self.tables.remove(ident) {
            self.weight -= weight(&old);
        }
    }
}

fn weight(table: &Table) -> usize {
    table.metadata().snapshots().len() + TABLE_WEIGHT
}
