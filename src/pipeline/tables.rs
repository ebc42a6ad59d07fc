//! The tables that are followed: as the lake last saw them, as the stream describes them, and as
//! the source's catalog has them now.
//!
//! The stream does not tell everything (`cases.md` D): a Relation message has no attribute numbers,
//! and a rewrite sends no rows. So what differs is looked up in the catalog, which shows the
//! present and not the position of the stream; where the two can't be told apart, the stream stops
//! with
//! `SCHEMA_CHANGED` instead of guessing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::Patterns;
use crate::error::{Error, Result};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::pgoutput::{WireColumn, WireRelation};
use crate::progress::Lsn;
use crate::window::decode::{DecodedColumn, TupleDecoder, arrow_type};
use crate::window::relation::{Column, KeyForm, Relation, ReplicaIdentity};
use crate::window::wire::WalTuple;

use super::intake::Intake;
use super::write::ParquetTarget;

/// Table property: the source table as of `frazil.position`, as JSON ([`SourceFacts`]).
pub(crate) const FACTS_KEY: &str = "frazil.source";
/// How often the catalog is looked at although the stream brought no Relation message.
const CATALOG_CHECK: Duration = Duration::from_secs(30);

/// How long the catalog may take to answer, well below any wal_sender_timeout in use.
const CATALOG_PATIENCE: Duration = Duration::from_secs(15);

/// How long after its arrival a source transaction may become visible in the catalog ...
const VISIBLE_WITHIN: Duration = Duration::from_millis(1500);
/// ... and how often that is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The source table that a lake table is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceFacts {
    /// Its columns and key.
    pub(crate) relation: Relation,
    /// `pg_class.relfilenode`: another one means TRUNCATE or a rewrite.
    pub(crate) relfilenode: u32,
    /// `xmin` of each column's row in `pg_attribute`: another one means ALTER TABLE.
    pub(crate) attributes: String,
}

impl SourceFacts {
    /// What the catalog says of `table`.
    pub(crate) fn of(table: &SourceTable) -> Self {
        Self {
            relation: table.relation.clone(),
            relfilenode: table.relfilenode,
            attributes: table.attribute_xmins.clone(),
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

    fn differ(&self, now: &SourceTable) -> bool {
        self.relfilenode != now.relfilenode || self.attributes != now.attribute_xmins
    }
}

/// One followed table.
#[derive(Debug, Clone)]
pub(crate) struct TableState {
    pub(crate) target: Arc<ParquetTarget>,
    pub(crate) facts: SourceFacts,
    /// Whether the facts are newer than the lake's.
    pub(crate) facts_changed: bool,
    /// The position that the lake's table stood at when this run began.
    pub(crate) position_lsn: Lsn,
}

/// A table whose shape changes from here on.
#[derive(Debug)]
pub(crate) struct Evolution {
    pub(crate) oid: u32,
    facts: SourceFacts,
    wire: WireRelation,
    /// New columns by field id, with the value that older rows have (case 91).
    pub(crate) constants: Vec<(i32, ArrayRef)>,
}

/// See the module.
pub(crate) struct Tables {
    client: Client,
    publications: Vec<String>,
    selection: Patterns,
    is_binary: bool,
    by_oid: Arc<HashMap<u32, TableState>>,
    targets: Arc<HashMap<u32, Arc<ParquetTarget>>>,
    check_due: bool,
    checked: Instant,
}

impl Tables {
    /// The tables in `states`, looked up in the source through `client`; `is_binary`: the stream
    /// sends binary values.
    pub(crate) fn new(
        (client, publications): (Client, Vec<String>),
        selection: Patterns,
        is_binary: bool,
        states: HashMap<u32, TableState>,
    ) -> Self {
        let targets = states.iter().map(|(&oid, s)| (oid, Arc::clone(&s.target))).collect();
        Self {
            client,
            publications,
            selection,
            is_binary,
            by_oid: Arc::new(states),
            targets: Arc::new(targets),
            check_due: false,
            checked: Instant::now(),
        }
    }

    /// Where rows go, by table oid.
    pub(crate) fn targets(&self) -> Arc<HashMap<u32, Arc<ParquetTarget>>> {
        Arc::clone(&self.targets)
    }

    /// The tables as they are now, for a lake commit.
    pub(crate) fn states(&self) -> Arc<HashMap<u32, TableState>> {
        Arc::clone(&self.by_oid)
    }

    /// Takes note of a Relation message. An [`Evolution`] where the table has changed its shape.
    pub(crate) async fn learn(
        &mut self,
        wire: &WireRelation,
        intake: &mut Intake,
    ) -> Result<Option<Evolution>> {
        if intake.knows(wire) {
            self.check_due = true;
            return Ok(None);
        }
        let Some(state) = self.by_oid.get(&wire.oid) else {
            if self.selection.selects(&wire.namespace, &wire.name) {
                intake.expect_no_changes(wire.oid, format!("{}.{}", wire.namespace, wire.name));
            } else {
                intake.ignore(wire.oid);
            }
            return Ok(None);
        };
        if is_described_by(&state.facts.relation, wire) {
            self.check_due = true;
            intake.follow(Arc::clone(&state.target.relation), wire.clone());
            return Ok(None);
        }
        self.reconcile(state, wire).await.map(Some)
    }

    /// The table's new shape, from the Relation message and the catalog together.
    async fn reconcile(&self, state: &TableState, wire: &WireRelation) -> Result<Evolution> {
        let before = &state.facts.relation;
        let (fresh, relation) = self.described(before, wire).await?;
        let added: Vec<&Column> =
            relation.columns.iter().filter(|c| at_attnum(before, c.attnum).is_none()).collect();
        if self.is_binary
            && let Some(column) = added.iter().find(|c| !c.pg_type.has_binary_form())
        {
            return Err(Error::transient(
                "TEXT_MODE_NEEDED",
                "a new column's type has no known binary form: the stream goes on in text mode",
            )
            .with_table(before.display())
            .with_column(&column.name));
        }
        let mut facts = SourceFacts { relation: relation.clone(), ..state.facts.clone() };
        let mut constants = Vec::new();
        if let Some(fresh) = &fresh {
            if state.facts.was_rewritten(fresh) {
                return Err(changed(before, "the table was rewritten, which sends no rows"));
            }
            facts.relfilenode = fresh.relfilenode;
            facts.attributes.clone_from(&fresh.attribute_xmins);
            for column in added {
                if let Some(text) = missing_value(fresh, column.attnum) {
                    constants.push((column.field_id(), constant(before, column, &text)?));
                }
            }
        }
        if facts.relation.key_form == KeyForm::WholeRow
            && (!constants.is_empty() || lost_column(before, &facts.relation))
        {
            let what = "a column of a table without a key was dropped, or added with a default";
            return Err(changed(before, what));
        }
        Ok(Evolution { oid: wire.oid, facts, wire: wire.clone(), constants })
    }

    /// The catalog's view of the table, and what `wire` means by it. A source transaction is in the
    /// stream before it is visible to others, so what does not fit is looked at again for a while.
    async fn described(
        &self,
        before: &Relation,
        wire: &WireRelation,
    ) -> Result<(Option<SourceTable>, Relation)> {
        let deadline = Instant::now() + VISIBLE_WITHIN;
        loop {
            let fresh = self.load(Some(&[wire.oid])).await?.pop();
            match relation_from(before, fresh.as_ref().map(|f| &f.relation), wire) {
                Ok(relation) => return Ok((fresh, relation)),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// From here on the table has its new shape. The segment before it must be closed.
    pub(crate) fn apply(&mut self, change: &Evolution, intake: &mut Intake) -> Result<()> {
        let states = Arc::make_mut(&mut self.by_oid);
        let Some(state) = states.get_mut(&change.oid) else { return Ok(()) };
        let relation = Arc::new(change.facts.relation.clone());
        let (location, ident) = (state.target.location.clone(), state.target.ident.clone());
        state.target = Arc::new(ParquetTarget::new(location, ident, Arc::clone(&relation))?);
        state.facts = change.facts.clone();
        Arc::make_mut(&mut self.targets).insert(change.oid, Arc::clone(&state.target));
        intake.follow(relation, change.wire.clone());
        tracing::info!(table = %change.facts.relation.display(), "the table has a new shape");
        Ok(())
    }

    /// The facts of these tables are in the lake.
    pub(crate) fn saved(&mut self, oids: &[u32]) {
        let stale = |oid: &&u32| self.by_oid.get(oid).is_some_and(|state| state.facts_changed);
        let saved: Vec<u32> = oids.iter().filter(stale).copied().collect();
        if saved.is_empty() {
            return;
        }
        let states = Arc::make_mut(&mut self.by_oid);
        for oid in saved {
            if let Some(state) = states.get_mut(&oid) {
                state.facts_changed = false;
            }
        }
    }

    /// Looks for what the stream does not tell, after a Relation message came again and every 30 s:
    /// rewrites, columns dropped and added again. Before the lake commit, so that nothing is
    /// applied that turns out to mean something else.
    pub(crate) async fn check_catalog(&mut self) -> Result<()> {
        if !self.check_due && self.checked.elapsed() < CATALOG_CHECK {
            return Ok(());
        }
        self.check_due = false;
        self.checked = Instant::now();
        let tables = self.load(None).await?;
        let now: HashMap<u32, &SourceTable> = tables.iter().map(|t| (t.relation.oid, t)).collect();
        let mut moved = Vec::new();
        for (oid, state) in self.by_oid.iter() {
            let Some(now) = now.get(oid) else { continue };
            compare(state, now)?;
            if state.facts.differ(now) && has_same_columns(state, now) {
                moved.push((*oid, now.relfilenode, now.attribute_xmins.clone()));
            }
        }
        if !moved.is_empty() {
            let states = Arc::make_mut(&mut self.by_oid);
            for (oid, relfilenode, attributes) in moved {
                if let Some(state) = states.get_mut(&oid) {
                    state.facts.relfilenode = relfilenode;
                    state.facts.attributes = attributes;
                    state.facts_changed = true;
                }
            }
        }
        Ok(())
    }

    /// The source tables as they are now; in bounded time, for the loop waits.
    async fn load(&self, oids: Option<&[u32]>) -> Result<Vec<SourceTable>> {
        let asked = catalog::load_relations(&self.client, &self.publications, oids);
        tokio::time::timeout(CATALOG_PATIENCE, asked).await.map_err(|_| {
            Error::transient("CATALOG_TIMEOUT", "the source's catalog did not answer in time")
        })?
    }
}

/// Whether the catalog has the columns that the lake knows. While it has others, their Relation
/// message is still to come, and what it needs to be compared with must stay.
fn has_same_columns(state: &TableState, now: &SourceTable) -> bool {
    let attnums = |relation: &Relation| -> Vec<i16> {
        relation.columns.iter().map(|column| column.attnum).collect()
    };
    attnums(&state.facts.relation) == attnums(&now.relation)
}

/// Stops where the catalog shows a rewrite that the lake does not know, or a column that was
/// dropped and added again: its Relation message can be the same as before (case 94).
pub(super) fn compare(state: &TableState, now: &SourceTable) -> Result<()> {
    let before = &state.facts.relation;
    let is_another = |column: &&Column| {
        let same_name = |c: &&Column| c.name == column.name && c.type_oid == column.type_oid;
        at_attnum(&now.relation, column.attnum).is_none()
            && now.relation.columns.iter().any(|c| same_name(&c))
    };
    if let Some(column) = before.columns.iter().find(is_another) {
        let what = "the column was dropped and added again";
        return Err(changed(before, what).with_column(&column.name));
    }
    if state.facts.was_rewritten(now) {
        let what = "ALTER TABLE rewrote the table, which sends no rows";
        return Err(changed(&state.facts.relation, what));
    }
    Ok(())
}

/// Whether `wire` describes exactly `relation`.
fn is_described_by(relation: &Relation, wire: &WireRelation) -> bool {
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

fn lost_column(before: &Relation, now: &Relation) -> bool {
    before.columns.iter().any(|column| at_attnum(now, column.attnum).is_none())
}

fn at_attnum(relation: &Relation, attnum: i16) -> Option<&Column> {
    relation.columns.iter().find(|column| column.attnum == attnum)
}

/// The relation that `wire` describes, with the attribute numbers of the catalog (`fresh`) or, for
/// columns that the catalog no longer has, of `before`.
fn relation_from(
    before: &Relation,
    fresh: Option<&Relation>,
    wire: &WireRelation,
) -> Result<Relation> {
    let mut columns = Vec::with_capacity(wire.columns.len());
    for wire_column in &wire.columns {
        let known = before.columns.iter().find(|column| is_same(column, wire_column));
        let now = fresh.and_then(|f| f.columns.iter().find(|column| is_same(column, wire_column)));
        let named = |what: &str| changed(before, what).with_column(&wire_column.name);
        let column = match (known, now) {
            (Some(known), Some(now)) if known.attnum != now.attnum => {
                return Err(named("the column was dropped and added again"));
            }
            (None, None) => return Err(named("the column has another type, or is gone already")),
            (_, Some(now)) => now,
            (Some(known), None) => known,
        };
        if let Some(old) = at_attnum(before, column.attnum)
            && old.pg_type != column.pg_type
        {
            return Err(named("the column has another type"));
        }
        columns.push(column.clone());
    }
    let key_attnums = |relation: &Relation| -> Vec<i16> {
        let column = |&at: &usize| relation.columns.get(at).map(|column| column.attnum);
        relation.key.iter().filter_map(column).collect()
    };
    let wanted = key_attnums(before);
    if fresh.is_some_and(|fresh| key_attnums(fresh) != wanted) {
        return Err(changed(before, "the table's key changed"));
    }
    let key: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| wanted.contains(&column.attnum))
        .map(|(at, _)| at)
        .collect();
    if key.len() != wanted.len() {
        return Err(changed(before, "a key column was dropped"));
    }
    if wire_key(wire).is_some_and(|sent| sent != key) {
        return Err(changed(before, "the table's key changed"));
    }
    let identity = replica_identity(wire).unwrap_or(before.identity);
    Ok(Relation { columns, key, identity, ..before.clone() })
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
fn missing_value(table: &SourceTable, attnum: i16) -> Option<String> {
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
fn constant(relation: &Relation, column: &Column, text: &str) -> Result<ArrayRef> {
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
    match decoded.columns.into_iter().next() {
        Some(value) if decoded.raw.is_empty() => Ok(value),
        _ => Err(changed(relation, "the new column's default has no place in its lake type")
            .with_column(&column.name)),
    }
}

fn changed(relation: &Relation, what: &str) -> Error {
    Error::table("SCHEMA_CHANGED", relation.display(), what).with_cure(
        "nothing was applied wrongly, and the slot is kept; frazil does not follow this change yet: \
         start a new lake (frazil drop, then frazil run into an empty folder)",
    )
}
