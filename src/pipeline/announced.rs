//! What the source's event triggers say in the stream (`frazil install-ddl-capture`): the catalog
//! as
//! it was at that very place, so that nothing has to be guessed from how it is now.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::postgres::catalog::SourceTable;
use crate::postgres::ddl_message::{DdlKind, DdlMessage};
use crate::postgres::pg_types::load_types;
use crate::postgres::pgoutput::{WireColumn, WireRelation};
use crate::window::relation::{Relation, ReplicaIdentity};

use super::facts::{Stale, announced_relation, differs_announced, stale};
use super::tables::{Learned, TableState, Tables};

impl Tables {
    /// What a message of the source transaction `xid` means for the tables that are followed. One
    /// that can't be read, or is not the capture's, says nothing: the catalog is looked at then.
    pub(crate) async fn announced(
        &mut self,
        content: &[u8],
        xid: Option<u32>,
    ) -> Result<Vec<Learned>> {
        self.look_after(xid);
        let message = match DdlMessage::parse(content) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(code = error.code(), "{error}");
                self.look_soon();
                return Ok(Vec::new());
            }
        };
        if !self.believes(&message).await? {
            tracing::warn!(tag = message.tag, "a DDL message without the capture's token");
            self.look_soon();
            return Ok(Vec::new());
        }
        let mut found: Vec<Learned> = Vec::new();
        let causes = self.stale_by(&message);
        let named: BTreeSet<u32> = causes.iter().map(|stale| stale.oid).collect();
        found.extend(causes.into_iter().map(Learned::Stale));
        match message.kind {
            DdlKind::Rewrite | DdlKind::Truncate => return Ok(found),
            DdlKind::Publication => self.look_soon(),
            DdlKind::Drop if !message.publications.is_empty() => self.look_soon(),
            _ => {}
        }
        let types = load_types(self.client(), self.version(), message.type_oids()).await?;
        for relation in message.relations.iter().filter(|r| !named.contains(&r.oid())) {
            let Some(mut state) = self.state(relation.oid()).cloned() else {
                // A leaf that is published by itself may be new.
                self.look_soon();
                continue;
            };
            let Some(mut table) =
                relation.source_table(self.publications(), (&types, self.type_rules()))?
            else {
                self.look_soon();
                continue;
            };
            let keeps_values = self.kept_values(relation.oid());
            // What happened to its partitions is told apart from it.
            let tells_leaves = matches!(message.kind, DdlKind::Partitions | DdlKind::Drop);
            if let Some(known) = &mut state.facts.unannounced {
                match relation.leaves.is_some() {
                    false => table.unannounced.leaves.clone_from(&known.leaves),
                    true if tells_leaves || keeps_values => {
                        known.leaves.clone_from(&table.unannounced.leaves);
                    }
                    true => {}
                }
            }
            found.push(self.follow_announced(&state, table, keeps_values)?);
        }
        Ok(found)
    }

    /// The tables whose rows changed without being sent.
    fn stale_by(&mut self, message: &DdlMessage) -> Vec<Stale> {
        let mut found = Vec::new();
        let mut add = |tables: &Self, oid: u32, cause: &str| {
            let relation = tables.state(oid).map(|state| &state.facts.relation);
            found.extend(relation.map(|relation| stale(relation, cause)));
        };
        if let Some(rewritten) = message.rewritten {
            let above = message.relation(rewritten).map(|r| r.ancestors.as_slice());
            let line = std::iter::once(rewritten).chain(above.unwrap_or_default().iter().copied());
            for oid in line {
                match message.may_change_values() {
                    true => add(self, oid, "ALTER TABLE rewrote it, which sends no rows"),
                    false => self.keeps_values(oid),
                }
            }
        }
        for leaf in &message.leaves {
            // The leaf may have been followed by itself, while it was no part of the root.
            if !leaf.is_empty && self.is_published(leaf.root) {
                add(self, leaf.root, "a partition was attached, detached or truncated");
            }
        }
        for dropped in &message.dropped {
            if let Some(root) = dropped.root.filter(|&root| self.is_published(root)) {
                add(self, root, "a partition was dropped");
            }
        }
        found
    }

    /// The table has the shape of `table` from here on.
    pub(super) fn follow_announced(
        &mut self,
        state: &TableState,
        table: SourceTable,
        keeps_values: bool,
    ) -> Result<Learned> {
        let before = &state.facts.relation;
        if let Some(cause) = differs_announced(&state.facts, &table, keeps_values) {
            return Ok(Learned::Stale(stale(before, cause)));
        }
        let relation = match announced_relation(before, &table.relation) {
            Ok(relation) => relation,
            Err(cause) => return Ok(Learned::Stale(stale(before, cause))),
        };
        if relation == *before {
            self.take_note(&table);
            return Ok(Learned::Known);
        }
        let wire = wire_of(&relation);
        self.evolution(state, &wire, Some(table), relation)
    }
}

/// The Relation message that is to be expected.
fn wire_of(relation: &Relation) -> WireRelation {
    let is_key = |at: usize| match relation.identity {
        ReplicaIdentity::Full => true,
        ReplicaIdentity::Nothing => false,
        ReplicaIdentity::Default | ReplicaIdentity::Index => relation.key.contains(&at),
    };
    let columns = relation.columns.iter().enumerate().map(|(at, column)| WireColumn {
        key: is_key(at),
        name: column.name.clone(),
        type_oid: column.type_oid,
        typmod: column.typmod,
    });
    WireRelation {
        oid: relation.oid,
        namespace: relation.namespace.clone(),
        name: relation.name.clone(),
        identity: match relation.identity {
            ReplicaIdentity::Default => b'd',
            ReplicaIdentity::Nothing => b'n',
            ReplicaIdentity::Full => b'f',
            ReplicaIdentity::Index => b'i',
        },
        columns: columns.collect(),
    }
}
