//! One segment: the receive buffer as the socket filled it, and a fold per table over it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::window::fold::Fold;
use crate::window::outcome::Outcome;
use crate::window::relation::Relation;

/// Receive buffer and folds of the changes in it. Positions in the folds are positions in `buf`.
#[derive(Debug, Default)]
pub struct Segment {
    /// Backend messages as they arrived, framing included.
    pub buf: Vec<u8>,
    folds: HashMap<u32, Fold, foldhash::fast::FixedState>,
}

impl Segment {
    /// A segment whose receive buffer begins with `rest` and has room for `bytes`.
    pub fn with_rest(rest: &[u8], bytes: usize) -> Self {
        let mut buf = Vec::with_capacity(bytes.max(rest.len()));
        buf.extend_from_slice(rest);
        Self { buf, folds: HashMap::default() }
    }

    /// The receive buffer beside the fold of `relation`.
    pub fn fold(&mut self, relation: &Arc<Relation>) -> (&[u8], &mut Fold) {
        let fold =
            self.folds.entry(relation.oid).or_insert_with(|| Fold::new(Arc::clone(relation)));
        (&self.buf, fold)
    }

    /// Whether any table has changes here.
    pub fn has_changes(&self) -> bool {
        !self.folds.is_empty()
    }

    /// Bytes held: the receive buffer and the index over it.
    pub fn bytes(&self) -> usize {
        self.buf.len() + self.folds.values().map(Fold::index_bytes).sum::<usize>()
    }

    /// Forgets all folds; the receive buffer stays.
    pub fn clear_folds(&mut self) {
        self.folds.clear();
    }

    /// Settles every fold. Gives the receive buffer and the outcomes over it, in order of oid.
    pub fn settle(self) -> Result<(Vec<u8>, Vec<Outcome>)> {
        let mut folds: Vec<&Fold> = self.folds.values().collect();
        folds.sort_unstable_by_key(|fold| fold.relation.oid);
        let outcomes =
            folds.into_iter().map(|fold| Outcome::of(fold, &self.buf)).collect::<Result<_>>()?;
        Ok((self.buf, outcomes))
    }
}
