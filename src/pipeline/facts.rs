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
use crate::window::relation::{Column, KeyForm, PgType, Relation, ReplicaIdentity};
use crate::window::rules::ValueRules;
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
    /// The largest attribute number there had been, as far as the stream has come.
    #[serde(default)]
    pub(crate) attnum_max: i16,
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
            attnum_max: table.attnum_max,
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

/// Whether the catalog has the columns that the lake knows, by their names. While it has others,
/// their Relation message is still to come, and what it needs to be compared with must stay.
pub(super) fn has_same_columns(known: &SourceFacts, now: &SourceTable) -> bool {
    let columns = |relation: &Relation| -> Vec<(i16, String)> {
        relation.columns.iter().map(|column| (column.attnum, column.name.clone())).collect()
    };
    columns(&known.relation) == columns(&now.relation)
}

/// Why the catalog, which may be ahead of the stream, can't say which column a new one of
/// `relation` is: another one came and went before it, or came and is not in the stream; or it may
/// be one that was renamed first, and dropped and added again later.
pub(super) fn ambiguous(
    known: &SourceFacts,
    now: &SourceTable,
    relation: &Relation,
) -> Option<String> {
    let columns = || relation.columns.iter().map(|column| column.attnum);
    let before = known.relation.columns.iter().map(|column| column.attnum);
    let before = before.max().unwrap_or(0).max(known.attnum_max);
    let live: HashSet<i16> = now
        .attribute_xmins
        .split(',')
        .filter_map(|attribute| attribute.split(':').next()?.parse().ok())
        .collect();
    let is_published = |attnum| at_attnum(&now.relation, attnum).is_some();
    let is_lacking = |attnum: &i16| {
        let is_here = columns().any(|here| here == *attnum);
        !live.contains(attnum) || (is_published(*attnum) && !is_here)
    };
    let lost = known.relation.columns.iter().find(|c| at_attnum(relation, c.attnum).is_none());
    let has_new = columns().any(|attnum| at_attnum(&known.relation, attnum).is_none());
    if let Some(lost) = lost.filter(|_| has_new) {
        return Some(format!("its column {} went, and another one came", lost.name));
    }
    if !columns().is_sorted() {
        return Some("its columns stand in another order than they were added in".to_owned());
    }
    let newest = columns().max().unwrap_or(0);
    let lacking = ((before + 1)..newest).find(is_lacking)?;
    Some(format!("what became of its column number {lacking} is not known"))
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
    if let Some(cause) = stored_otherwise(known, now) {
        return Some(cause);
    }
    unannounced(known, now).map(str::to_owned)
}

/// Why the lake can't go on with how it stores a column that is declared as before: `types:` was
/// changed, or an older frazil knew less of the type.
pub(super) fn stored_otherwise(known: &SourceFacts, now: &SourceTable) -> Option<String> {
    let column = known.relation.stored_otherwise(&now.relation)?;
    Some(format!("the column {} has another lake type by now", column.name))
}

pub(super) fn unannounced(facts: &SourceFacts, now: &SourceTable) -> Option<&'static str> {
    if facts.was_rewritten(now) {
        return Some("ALTER TABLE rewrote it, which sends no rows");
    }
    facts.unannounced.as_ref().and_then(|known| known.differs(&now.unannounced))
}

/// Why the lake can't follow what was announced of a table, apart from its shape. A rewrite that
/// `keeps_values` is none.
pub(super) fn differs_announced(
    facts: &SourceFacts,
    now: &SourceTable,
    keeps_values: bool,
) -> Option<&'static str> {
    match keeps_values {
        false => unannounced(facts, now),
        true => facts.unannounced.as_ref().and_then(|known| known.differs(&now.unannounced)),
    }
}

/// The shape that a table was announced to have, where the lake can go on with it: attribute
/// numbers tell a column from another one of the same name.
pub(super) fn announced_relation(
    before: &Relation,
    now: &Relation,
) -> std::result::Result<Relation, String> {
    let mut columns = Vec::with_capacity(now.columns.len());
    for column in &now.columns {
        let field_version = match at_attnum(before, column.attnum) {
            Some(old) if !is_or_promotes(old, column) => {
                return Err(format!("the column {} has another type", column.name));
            }
            Some(old) => old.field_version,
            None => generation(before),
        };
        columns.push(Column { field_version, ..column.clone() });
    }
    if key_attnums(before) != key_attnums(now) {
        return Err("its key changed".to_owned());
    }
    let form = KeyForm::of(&columns, &now.key, now.identity);
    if form == KeyForm::WholeRow && before.key_form != form {
        return Err("REPLICA IDENTITY FULL identifies its rows from now on".to_owned());
    }
    let (key, identity) = (now.key.clone(), now.identity);
    Ok(Relation { columns, key, identity, ..before.clone() })
}

fn key_attnums(relation: &Relation) -> Vec<i16> {
    let column = |&at: &usize| relation.columns.get(at).map(|column| column.attnum);
    relation.key.iter().filter_map(column).collect()
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
            Some(old) if !is_or_promotes(old, column) || has_other_text(before, old, column) => {
                return Err(format!("the column {name} has another type"));
            }
            Some(old) => old.field_version,
            None => generation(before),
        };
        columns.push(Column { field_version, ..column.clone() });
    }
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
    let form = KeyForm::of(&columns, &key, identity);
    if form == KeyForm::WholeRow && before.key_form != form {
        return Err("REPLICA IDENTITY FULL identifies its rows from now on".to_owned());
    }
    Ok(Relation { columns, key, identity, ..before.clone() })
}

fn is_or_promotes(old: &Column, new: &Column) -> bool {
    let lake = |column: &Column| iceberg_type(old.field_id(), &column.pg_type);
    old.pg_type == new.pg_type || promotes(&lake(old), &lake(new))
}

/// Whether values of a hidden key are written otherwise from now on: the float 0.1 is the double
/// 0.10000000149011612.
fn has_other_text(before: &Relation, old: &Column, new: &Column) -> bool {
    let is_float = |column: &Column| column.pg_type == PgType::Float4;
    let at = before.columns.iter().position(|column| column.attnum == old.attnum);
    is_float(old) && !is_float(new) && at.is_some_and(|at| before.is_in_hidden_key(at))
}

/// Whether what the rows are addressed by goes on as it was: where whole rows are, a column that is
/// dropped takes its values with it, and the `constants` of a new one come into older rows.
pub(super) fn keeps_whole_rows(before: &Relation, now: &Relation, constants: usize) -> bool {
    let is_there = |column: &Column| at_attnum(now, column.attnum).is_some();
    let same = constants == 0 && before.columns.iter().all(is_there);
    same || now.key_form != KeyForm::WholeRow
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

/// Rows from before the column have a value in it, and which is not known.
pub(super) fn is_missing_unknown(table: &SourceTable, attnum: i16) -> bool {
    table.missing.iter().any(|c| c.attnum == attnum && c.has_missing && c.missing.is_none())
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
/// `None` where it has no place in that type, by the table's `rules`.
pub(super) fn constant(column: &Column, text: &str, rules: ValueRules) -> Result<Option<ArrayRef>> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut tuple = vec![b't'];
    tuple.extend_from_slice(&length.to_be_bytes());
    tuple.extend_from_slice(text.as_bytes());
    let mut decoder = TupleDecoder::new(vec![Some(DecodedColumn {
        name: column.name.clone(),
        pg_type: column.pg_type.clone(),
        data_type: arrow_type(&column.pg_type),
    })])?
    .with_rules(rules, &[]);
    decoder.decode::<WalTuple>(&tuple, &mut [0])?;
    let decoded = decoder.finish()?;
    Ok(decoded
        .columns
        .into_iter()
        .next()
        .filter(|_| decoded.raw.is_empty() && decoded.clamped == 0))
}
