//! A source table as the lake last knew it, compared with what the stream and the catalog say now.

use std::collections::HashSet;

use arrow_array::ArrayRef;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::iceberg::schema::{iceberg_type, promotes};
use crate::postgres::catalog::SourceTable;
use crate::postgres::pgoutput::{WireColumn, WireRelation};
use crate::postgres::unannounced::Unannounced;
use crate::window::decode::{DecodedColumn, TupleDecoder, arrow_type};
use crate::window::relation::{Column, Relation, ReplicaIdentity};
use crate::window::wire::WalTuple;

/// Table property: the source table as of `frazil.position`, as JSON ([`SourceFacts`]).
pub(crate) const FACTS_KEY: &str = "frazil.source";
/// The source table that a lake table is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceFacts {
    /// Its columns and key.
    pub(crate) relation: Relation,
    /// `pg_class.relfilenode`: another one means TRUNCATE or a rewrite.
    pub(crate) relfilenode: u32,
    /// `xmin` of each column's row in `pg_attribute`: another one means ALTER TABLE.
    pub(crate) attributes: String,
    /// What changes without an event; not known of a table that an older frazil copied.
    #[serde(default)]
    pub(crate) unannounced: Option<Unannounced>,
}

impl SourceFacts {
    /// What the catalog says of `table`.
    pub(crate) fn of(table: &SourceTable) -> Self {
        Self {
            relation: table.relation.clone(),
            relfilenode: table.relfilenode,
            attributes: table.attribute_xmins.clone(),
            unannounced: Some(table.unannounced.clone()),
        }
    }

    /// As it stands in the table property.
    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::fatal("FACTS", "the source table has no JSON form").with_source(e))
    }

    /// Whether ALTER TABLE may have rewritten the table since: its file is another one, and a
    /// column was added or altered. VACUUM FULL, CLUSTER and TRUNCATE change the file but no
    /// column.
    fn was_rewritten(&self, now: &SourceTable) -> bool {
        let known: HashSet<&str> = self.attributes.split(',').collect();
        let altered = now.attribute_xmins.split(',').any(|column| !known.contains(column));
        self.relfilenode != now.relfilenode && altered
    }

    pub(super) fn differ(&self, now: &SourceTable) -> bool {
        self.relfilenode != now.relfilenode
            || self.attributes != now.attribute_xmins
            || self.unannounced.as_ref() != Some(&now.unannounced)
    }
}

/// A table that the lake can't be made to follow: it has to be copied afresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) oid: u32,
    /// `namespace.name`
    pub(crate) table: String,
    /// Why, for people.
    pub(crate) cause: String,
}

/// Whether the catalog has the columns that the lake knows. While it has others, their Relation
/// message is still to come, and what it needs to be compared with must stay.
pub(super) fn has_same_columns(known: &SourceFacts, now: &SourceTable) -> bool {
    let attnums = |relation: &Relation| -> Vec<i16> {
        relation.columns.iter().map(|column| column.attnum).collect()
    };
    attnums(&known.relation) == attnums(&now.relation)
}

pub(super) fn stale(relation: &Relation, cause: impl Into<String>) -> Stale {
    Stale { oid: relation.oid, table: relation.display(), cause: cause.into() }
}

/// Why the lake can't follow what the catalog shows: a rewrite that the lake does not know, or a
/// column that was dropped and added again: its Relation message can be the same as before (case
/// 94).
pub(super) fn compare(known: &SourceFacts, now: &SourceTable) -> Option<String> {
    let before = &known.relation;
    let is_another = |column: &&Column| {
        let same_name = |c: &&Column| c.name == column.name && c.type_oid == column.type_oid;
        at_attnum(&now.relation, column.attnum).is_none()
            && now.relation.columns.iter().any(|c| same_name(&c))
    };
    if let Some(column) = before.columns.iter().find(is_another) {
        return Some(format!("the column {} was dropped and added again", column.name));
    }
    if let Some(column) = before.stored_otherwise(&now.relation) {
        return Some(format!("the column {} has another lake type by the settings", column.name));
    }
    unannounced(known, now).map(str::to_owned)
}

pub(super) fn unannounced(facts: &SourceFacts, now: &SourceTable) -> Option<&'static str> {
    if facts.was_rewritten(now) {
        return Some("ALTER TABLE rewrote it, which sends no rows");
    }
    facts.unannounced.as_ref().and_then(|known| known.differs(&now.unannounced))
}

/// A column that only text mode can carry: the stream has to be started again in it.
pub(crate) fn refuse_text<'a>(
    relation: &Relation,
    mut columns: impl Iterator<Item = &'a Column>,
) -> Result<()> {
    match columns.find(|column| !column.pg_type.has_binary_form()) {
        None => Ok(()),
        Some(column) => Err(Error::transient(
            "TEXT_MODE_NEEDED",
            "a new column's type has no known binary form: the stream goes on in text mode",
        )
        .with_table(relation.display())
        .with_column(&column.name)),
    }
}

/// Whether `wire` describes exactly `relation`.
pub(super) fn is_described_by(relation: &Relation, wire: &WireRelation) -> bool {
    let same = |(column, wire): (&Column, &WireColumn)| {
        is_same(column, wire) && column.typmod == wire.typmod
    };
    Some(relation.identity) == replica_identity(wire)
        && relation.columns.len() == wire.columns.len()
        && relation.columns.iter().zip(&wire.columns).all(same)
        && wire_key(wire).is_none_or(|key| key == relation.key)
}

/// The key's columns as `wire` flags them; with FULL every column is flagged, which says nothing
/// (case 71).
fn wire_key(wire: &WireRelation) -> Option<Vec<usize>> {
    let flagged = |(at, column): (usize, &WireColumn)| column.key.then_some(at);
    match replica_identity(wire) {
        Some(ReplicaIdentity::Full) => None,
        _ => Some(wire.columns.iter().enumerate().filter_map(flagged).collect()),
    }
}

fn is_same(column: &Column, wire: &WireColumn) -> bool {
    column.name == wire.name && column.type_oid == wire.type_oid
}

pub(super) fn at_attnum(relation: &Relation, attnum: i16) -> Option<&Column> {
    relation.columns.iter().find(|column| column.attnum == attnum)
}

/// The relation that `wire` describes, with the attribute numbers of the catalog (`fresh`) or, for
/// columns that the catalog no longer has, of `before`; or why the lake can't go on with it.
pub(super) fn relation_from(
    before: &Relation,
    fresh: Option<&Relation>,
    wire: &WireRelation,
) -> std::result::Result<Relation, String> {
    let mut columns = Vec::with_capacity(wire.columns.len());
    for wire_column in &wire.columns {
        let known = before.columns.iter().find(|column| is_same(column, wire_column));
        let now = fresh.and_then(|f| f.columns.iter().find(|column| is_same(column, wire_column)));
        let name = &wire_column.name;
        let column = match (known, now) {
            (Some(known), Some(now)) if known.attnum != now.attnum => {
                return Err(format!("the column {name} was dropped and added again"));
            }
            (None, None) => return Err(format!("the column {name} has another type, or is gone")),
            (_, Some(now)) => now,
            (Some(known), None) => known,
        };
        let field_version = match at_attnum(before, column.attnum) {
            Some(old) if !is_or_promotes(old, column) => {
                return Err(format!("the column {name} has another type"));
            }
            Some(old) => old.field_version,
            None => generation(before),
        };
        columns.push(Column { field_version, ..column.clone() });
    }
    let key_attnums = |relation: &Relation| -> Vec<i16> {
        let column = |&at: &usize| relation.columns.get(at).map(|column| column.attnum);
        relation.key.iter().filter_map(column).collect()
    };
    let wanted = key_attnums(before);
    if fresh.is_some_and(|fresh| key_attnums(fresh) != wanted) {
        return Err("its key changed".to_owned());
    }
    let key: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| wanted.contains(&column.attnum))
        .map(|(at, _)| at)
        .collect();
    if key.len() != wanted.len() {
        return Err("a key column was dropped".to_owned());
    }
    if wire_key(wire).is_some_and(|sent| sent != key) {
        return Err("its key changed".to_owned());
    }
    let identity = replica_identity(wire).unwrap_or(before.identity);
    Ok(Relation { columns, key, identity, ..before.clone() })
}

fn is_or_promotes(old: &Column, new: &Column) -> bool {
    let lake = |column: &Column| iceberg_type(old.field_id(), &column.pg_type);
    old.pg_type == new.pg_type || promotes(&lake(old), &lake(new))
}

/// The version that a new column gets: that of the table, which may not be its name's first.
fn generation(relation: &Relation) -> u16 {
    relation.columns.iter().map(|column| column.field_version).min().unwrap_or(0)
}

fn replica_identity(wire: &WireRelation) -> Option<ReplicaIdentity> {
    match wire.identity {
        b'd' => Some(ReplicaIdentity::Default),
        b'n' => Some(ReplicaIdentity::Nothing),
        b'f' => Some(ReplicaIdentity::Full),
        b'i' => Some(ReplicaIdentity::Index),
        _ => None,
    }
}

/// The text of `pg_attribute.attmissingval`'s only element: `{42}`, `{"a \"b\""}`.
pub(super) fn missing_value(table: &SourceTable, attnum: i16) -> Option<String> {
    let column = table.missing.iter().find(|c| c.attnum == attnum && c.has_missing)?;
    let element = column.missing.as_deref()?.strip_prefix('{')?.strip_suffix('}')?;
    let Some(quoted) = element.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Some(element.to_owned());
    };
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(text)
}

/// The value that rows from before the column was added have, as one row of the column's type.
/// `None` where it has no place in that type.
pub(super) fn constant(column: &Column, text: &str) -> Result<Option<ArrayRef>> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut tuple = vec![b't'];
    tuple.extend_from_slice(&length.to_be_bytes());
    tuple.extend_from_slice(text.as_bytes());
    let mut decoder = TupleDecoder::new(vec![Some(DecodedColumn {
        name: column.name.clone(),
        pg_type: column.pg_type.clone(),
        data_type: arrow_type(&column.pg_type),
    })])?;
    decoder.decode::<WalTuple>(&tuple, &mut [0])?;
    let decoded = decoder.finish()?;
    Ok(decoded.columns.into_iter().next().filter(|_| decoded.raw.is_empty()))
}
