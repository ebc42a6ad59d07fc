//! The tables that are followed: as the lake last saw them, as the stream describes them, and as
//! the source's catalog has them now.
//!
//! The stream does not tell everything (`docs/reference/cases.md` D): a Relation message has no
//! attribute numbers, and a rewrite sends no rows. So what differs is looked up in the catalog,
//! which shows the present and not the position of the stream; where the lake can't be made to
//! follow from what is known, the table is [`Stale`] and copied afresh (`refresh.rs`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use iceberg::TableIdent;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::{Patterns, Settings};
use crate::error::{Error, Result};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::ddl_capture::capture_token;
use crate::postgres::ddl_message::DdlMessage;
use crate::postgres::pgoutput::WireRelation;
use crate::progress::Lsn;
use crate::window::relation::{Column, Relation};
use crate::window::rules::TypeRules;

use super::facts::{
    self, SourceFacts, Stale, at_attnum, compare, constant, has_same_columns, is_described_by,
    is_missing_unknown, keeps_whole_rows, missing_value, refuse_text, relation_from, stale,
};
use super::intake::Intake;
use super::refresh::ResyncWish;
use super::write::ParquetTarget;

/// How often the catalog is looked at although the stream brought no Relation message.
const CATALOG_CHECK: Duration = Duration::from_secs(30);

/// ... and how often while it shows a shape of which no row has come.
const SILENT_CHECK: Duration = Duration::from_secs(1);

/// How long the catalog may take to answer, well below any wal_sender_timeout in use.
const CATALOG_PATIENCE: Duration = Duration::from_secs(15);

/// How long after its arrival a source transaction may become visible in the catalog ...
const VISIBLE_WITHIN: Duration = Duration::from_millis(1500);
/// ... and how often that is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    /// What the table was until then.
    pub(crate) before: Relation,
    facts: SourceFacts,
    wire: WireRelation,
    /// New columns by field id, with the value that older rows have (case 91).
    pub(crate) constants: Vec<(i32, ArrayRef)>,
}

/// What a Relation message means.
#[derive(Debug)]
pub(crate) enum Learned {
    /// Nothing new.
    Known,
    /// The table has changed its shape.
    Evolved(Box<Evolution>),
    /// The table must be copied afresh.
    Stale(Stale),
}

/// See the module.
pub(crate) struct Tables {
    client: Client,
    publications: Vec<String>,
    selection: Patterns,
    types: TypeRules,
    is_binary: bool,
    by_oid: Arc<HashMap<u32, TableState>>,
    targets: Arc<HashMap<u32, Arc<ParquetTarget>>>,
    /// Described by the stream, not in the lake, and not yet looked up: since when.
    unknown: HashMap<u32, Instant>,
    /// Followed, but not published when last looked up.
    unpublished: HashSet<u32>,
    /// The last source transaction that described a table anew: the catalog is of use only once it
    /// is visible in it.
    described_by_xid: Option<u32>,
    /// Tables that changed without a row or message since: how they looked, and where the WAL ended
    /// when that was seen.
    silent: HashMap<u32, (String, Lsn)>,
    /// Tables whose rewrite, announced and not yet seen to its end, keeps all values.
    keep_values: HashSet<u32>,
    /// What the messages of the source's DDL capture carry, once it was read.
    capture_token: Option<i64>,
    version: u32,
    check_due: bool,
    checked: Instant,
}

impl Tables {
    /// The tables in `states`, looked up in the source (of that version) through `client`;
    /// `is_binary`: the stream sends binary values.
    pub(crate) fn new(
        (client, publications, version): (Client, Vec<String>, u32),
        settings: &Settings,
        is_binary: bool,
        states: HashMap<u32, TableState>,
    ) -> Self {
        let targets = states.iter().map(|(&oid, s)| (oid, Arc::clone(&s.target))).collect();
        Self {
            client,
            publications,
            selection: settings.tables.clone(),
            types: settings.types.clone(),
            is_binary,
            by_oid: Arc::new(states),
            targets: Arc::new(targets),
            unknown: HashMap::new(),
            unpublished: HashSet::new(),
            described_by_xid: None,
            silent: HashMap::new(),
            keep_values: HashSet::new(),
            capture_token: None,
            version,
            check_due: false,
            checked: Instant::now(),
        }
    }

    pub(super) fn type_rules(&self) -> &TypeRules {
        &self.types
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn publications(&self) -> &[String] {
        &self.publications
    }

    pub(super) fn state(&self, oid: u32) -> Option<&TableState> {
        self.by_oid.get(&oid)
    }

    /// Whether it was published when last looked up.
    pub(super) fn is_published(&self, oid: u32) -> bool {
        !self.unpublished.contains(&oid)
    }

    /// The catalog is to be looked at before the next lake commit.
    pub(super) fn look_soon(&mut self) {
        self.check_due = true;
    }

    /// The catalog is of use only once this source transaction is visible in it.
    pub(super) fn look_after(&mut self, xid: Option<u32>) {
        self.described_by_xid = xid;
    }

    /// Whether the DDL capture made the message; it may have been installed a moment ago.
    /// Whether event triggers speak in the stream; then the catalog, which is ahead of it, is not
    /// taken at its word at once.
    pub(super) async fn find_capture(&mut self) -> Result<bool> {
        self.capture_token = capture_token(&self.client).await?;
        self.check_due = true;
        Ok(self.capture_token.is_some())
    }

    pub(super) async fn believes(&mut self, message: &DdlMessage) -> Result<bool> {
        if !message.is_from(self.capture_token) {
            self.capture_token = capture_token(&self.client).await?;
        }
        Ok(message.is_from(self.capture_token))
    }

    /// The rewrite of this table that was announced keeps all values.
    pub(super) fn keeps_values(&mut self, oid: u32) {
        self.keep_values.insert(oid);
    }

    /// Whether that was said of it; it holds once.
    pub(super) fn kept_values(&mut self, oid: u32) -> bool {
        self.keep_values.remove(&oid)
    }

    /// The table is what it was, in other words of the catalog.
    pub(super) fn take_note(&mut self, table: &SourceTable) {
        let facts = SourceFacts::of(table);
        if self.by_oid.get(&table.relation.oid).is_some_and(|state| state.facts.differ(table)) {
            self.take_over_facts(vec![(table.relation.oid, facts)]);
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

    /// Takes note of a Relation message.
    pub(crate) async fn learn(
        &mut self,
        wire: &WireRelation,
        intake: &mut Intake,
    ) -> Result<Learned> {
        self.described_by_xid = intake.open_xid();
        if intake.knows(wire) {
            self.check_due = true;
            return Ok(Learned::Known);
        }
        let Some(state) = self.by_oid.get(&wire.oid) else {
            if self.selection.selects(&wire.namespace, &wire.name) {
                self.unknown.insert(wire.oid, Instant::now());
                self.check_due = true;
                intake.hold(wire.oid, Some(wire.clone()));
            } else {
                intake.ignore(wire.oid);
            }
            return Ok(Learned::Known);
        };
        if is_described_by(&state.facts.relation, wire) {
            self.check_due = true;
            intake.follow(Arc::clone(&state.target.relation), wire.clone());
            return Ok(Learned::Known);
        }
        let (fresh, relation) = self.described(&state.facts.relation, wire).await?;
        let learned = match relation {
            Ok(relation) => {
                let before = &state.facts;
                let cause = fresh.as_ref().and_then(|fresh| {
                    let rows = facts::unannounced(before, fresh).map(str::to_owned);
                    rows.or_else(|| facts::ambiguous(before, fresh, &relation))
                });
                match cause {
                    Some(cause) => Learned::Stale(stale(&before.relation, cause)),
                    None => self.evolution(state, wire, fresh, relation)?,
                }
            }
            Err(cause) => Learned::Stale(stale(&state.facts.relation, cause)),
        };
        if matches!(learned, Learned::Stale(_)) {
            // The server does not say it again, and the copy is to be read by it.
            intake.hold(wire.oid, Some(wire.clone()));
        }
        Ok(learned)
    }

    /// The table's new shape, from the Relation message and the catalog together.
    pub(super) fn evolution(
        &self,
        state: &TableState,
        wire: &WireRelation,
        fresh: Option<SourceTable>,
        relation: Relation,
    ) -> Result<Learned> {
        let before = &state.facts.relation;
        let is_new = |c: &&Column| at_attnum(before, c.attnum).is_none();
        let added: Vec<&Column> = relation.columns.iter().filter(is_new).collect();
        if self.is_binary {
            refuse_text(before, added.iter().copied())?;
        }
        let mut facts = SourceFacts { relation: relation.clone(), ..state.facts.clone() };
        let newest = relation.columns.iter().map(|column| column.attnum).max();
        facts.attnum_max = facts.attnum_max.max(newest.unwrap_or(0));
        let mut constants = Vec::new();
        if let Some(fresh) = &fresh {
            facts.relfilenode = fresh.relfilenode;
            facts.attributes.clone_from(&fresh.attribute_xmins);
            facts.unannounced = Some(fresh.unannounced.clone());
            for column in added {
                if is_missing_unknown(fresh, column.attnum) {
                    let cause = format!("what older rows have in {} is not known", column.name);
                    return Ok(Learned::Stale(stale(before, cause)));
                }
                let Some(text) = missing_value(fresh, column.attnum) else { continue };
                let Some(value) = constant(column, &text, relation.rules)? else {
                    let cause = format!("the default of {} has no place in its type", column.name);
                    return Ok(Learned::Stale(stale(before, cause)));
                };
                constants.push((column.field_id(), value));
            }
        }
        if !keeps_whole_rows(before, &facts.relation, constants.len()) {
            let cause = "a column of a table without a key was dropped, or added with a default";
            return Ok(Learned::Stale(stale(before, cause)));
        }
        let (before, wire) = (before.clone(), wire.clone());
        let evolution = Evolution { oid: wire.oid, before, facts, wire, constants };
        Ok(Learned::Evolved(Box::new(evolution)))
    }

    /// The catalog's view of the table, and what `wire` means by it, or why that can't be known. A
    /// source transaction is in the stream before it is visible to others, so what does not fit is
    /// looked at again for a while.
    async fn described(
        &self,
        before: &Relation,
        wire: &WireRelation,
    ) -> Result<(Option<SourceTable>, std::result::Result<Relation, String>)> {
        let deadline = Instant::now() + VISIBLE_WITHIN;
        loop {
            let fresh = self.load(Some(&[wire.oid])).await?.pop();
            let relation = relation_from(before, fresh.as_ref().map(|f| &f.relation), wire);
            if relation.is_ok() || Instant::now() >= deadline {
                return Ok((fresh, relation));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
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
    /// rewrites, columns dropped and added again, tables that are new. Before the lake commit, so
    /// that nothing is applied that turns out to mean something else. Gives the tables to copy
    /// afresh, apart from those that `being_copied` already are, and those of which no row came
    /// since they changed their shape, although the stream is past that (`received_lsn`).
    pub(crate) async fn check_catalog(
        &mut self,
        being_copied: impl Fn(u32) -> bool,
        received_lsn: Lsn,
        intake: &mut Intake,
    ) -> Result<Vec<Learned>> {
        if !self.check_due && !self.is_check_due() {
            return Ok(Vec::new());
        }
        self.check_due = false;
        self.checked = Instant::now();
        if crate::ops::is_failpoint_on("no_ddl_detection") {
            return Ok(Vec::new());
        }
        self.wait_until_visible().await?;
        let tables = self.load(None).await?;
        let now: HashMap<u32, &SourceTable> = tables.iter().map(|t| (t.relation.oid, t)).collect();
        let (mut found, mut moved, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for (oid, state) in self.by_oid.iter().filter(|(oid, _)| !being_copied(**oid)) {
            let Some(now) = now.get(oid) else {
                if self.unpublished.insert(*oid) {
                    not_published(&state.facts.relation);
                }
                continue;
            };
            let cause = match self.unpublished.remove(oid) {
                true => Some("it was not published for a while".to_owned()),
                false => compare(&state.facts, now),
            };
            match cause {
                // The stream may be about to say it.
                Some(cause) if self.capture_token.is_some() => {
                    silent.push(((*now).clone(), Some(cause)));
                }
                Some(cause) => found.push(stale(&now.relation, cause)),
                None if !has_same_columns(&state.facts, now) => silent.push(((*now).clone(), None)),
                None if state.facts.differ(now) => {
                    moved.push((*oid, SourceFacts::of(now)));
                }
                None => {}
            }
        }
        self.take_over_facts(moved);
        found.extend(self.new_tables(&tables, being_copied));
        self.settle_unknown(&now, intake);
        let mut learned: Vec<Learned> = found.into_iter().map(Learned::Stale).collect();
        learned.extend(self.follow_silent(silent, received_lsn).await?);
        Ok(learned)
    }

    /// Tables that changed without a row since, or without a message of the event triggers. Whether
    /// one is still to come is known once the stream has passed the place where the catalog was
    /// looked at first: then the catalog alone says it all, and the server will describe the table
    /// again before its next row.
    async fn follow_silent(
        &mut self,
        tables: Vec<(SourceTable, Option<String>)>,
        received_lsn: Lsn,
    ) -> Result<Vec<Learned>> {
        let seen = std::mem::take(&mut self.silent);
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let here = catalog::wal_position(&self.client).await?;
        let mut learned = Vec::new();
        for (table, cause) in tables {
            let oid = table.relation.oid;
            let looks = format!("{} {:?}", table.attribute_xmins, table.unannounced);
            let first = seen.get(&oid).filter(|(looked, _)| *looked == looks);
            let at = first.map_or(here, |(_, at)| *at);
            let state = self.by_oid.get(&oid).filter(|_| first.is_some() && received_lsn >= at);
            match (state.cloned(), cause) {
                (None, _) => {
                    self.silent.insert(oid, (looks, at));
                }
                (Some(_), Some(cause)) => {
                    learned.push(Learned::Stale(stale(&table.relation, cause)));
                }
                (Some(state), None) => learned.push(self.follow_announced(&state, table, false)?),
            }
        }
        Ok(learned)
    }

    /// Whether the catalog shows something that the stream may still explain.
    pub(crate) fn has_doubts(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Whether it is time to look at the catalog although nothing in the stream asks for it.
    pub(crate) fn is_check_due(&self) -> bool {
        self.checked.elapsed() >= self.check_every()
    }

    fn check_every(&self) -> Duration {
        if self.silent.is_empty() { CATALOG_CHECK } else { SILENT_CHECK }
    }

    /// Returns when it is.
    pub(crate) async fn check_comes_due(&self) {
        tokio::time::sleep_until(self.checked + self.check_every()).await;
    }

    /// Published tables that the lake lacks.
    pub(crate) fn new_tables(
        &self,
        tables: &[SourceTable],
        being_copied: impl Fn(u32) -> bool,
    ) -> Vec<Stale> {
        let is_new = |oid: &u32| !self.by_oid.contains_key(oid) && !being_copied(*oid);
        let relations = tables.iter().map(|table| &table.relation);
        relations
            .filter(|r| is_new(&r.oid) && self.selection.selects(&r.namespace, &r.name))
            .map(|relation| stale(relation, "it is new in the publication".to_owned()))
            .collect()
    }

    /// The tables that somebody wishes to be copied afresh, where this pipeline is meant.
    pub(crate) fn wished(&self, wish: &ResyncWish, slot: &str) -> Vec<Stale> {
        if wish.slot != slot {
            return Vec::new();
        }
        let Ok(patterns) = Patterns::parse(&wish.tables) else { return Vec::new() };
        let relations = self.by_oid.values().map(|state| &state.facts.relation);
        let wished = relations.filter(|r| patterns.selects(&r.namespace, &r.name));
        wished.map(|relation| stale(relation, "frazil resync")).collect()
    }

    fn take_over_facts(&mut self, moved: Vec<(u32, SourceFacts)>) {
        if moved.is_empty() {
            return;
        }
        let states = Arc::make_mut(&mut self.by_oid);
        for (oid, facts) in moved {
            if let Some(state) = states.get_mut(&oid) {
                let (relation, attnum_max) = (state.facts.relation.clone(), state.facts.attnum_max);
                state.facts = SourceFacts { relation, attnum_max, ..facts };
                state.facts_changed = true;
            }
        }
    }

    /// What the stream described and the publications do not show: a partition that is published
    /// by its root, or a table that is gone already.
    fn settle_unknown(&mut self, now: &HashMap<u32, &SourceTable>, intake: &mut Intake) {
        let mut waits = false;
        self.unknown.retain(|oid, since| {
            let wait = !now.contains_key(oid) && since.elapsed() < VISIBLE_WITHIN;
            if !now.contains_key(oid) && !wait {
                intake.ignore(*oid);
            }
            waits |= wait;
            wait
        });
        self.check_due |= waits;
    }

    /// The lake table of this name, and the source table it is bound to.
    pub(crate) fn bound(&self) -> HashMap<TableIdent, u32> {
        self.by_oid.iter().map(|(&oid, state)| (state.target.ident.clone(), oid)).collect()
    }

    /// From the next lake commit on the table is this one; the table whose place in the lake it
    /// takes is followed no longer.
    pub(crate) fn adopt(&mut self, state: TableState, instead_of: Option<u32>) {
        let oid = state.facts.relation.oid;
        let targets = Arc::make_mut(&mut self.targets);
        targets.insert(oid, Arc::clone(&state.target));
        let states = Arc::make_mut(&mut self.by_oid);
        states.insert(oid, state);
        if let Some(old) = instead_of {
            targets.remove(&old);
            states.remove(&old);
        }
    }

    /// A source transaction is in the stream before others see what it did, and with synchronous
    /// replication that may take long: then the catalog is looked at once more later.
    async fn wait_until_visible(&mut self) -> Result<()> {
        let Some(xid) = self.described_by_xid.filter(|xid| *xid > 0) else { return Ok(()) };
        let deadline = Instant::now() + CATALOG_PATIENCE;
        while !catalog::is_visible(&self.client, xid).await? {
            if Instant::now() >= deadline {
                self.check_due = true;
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN / 10).await;
        }
        self.described_by_xid = None;
        Ok(())
    }

    /// The source tables as they are now; in bounded time, for the loop waits.
    async fn load(&self, oids: Option<&[u32]>) -> Result<Vec<SourceTable>> {
        let asked = catalog::load_relations(&self.client, &self.publications, oids, &self.types);
        tokio::time::timeout(CATALOG_PATIENCE, asked).await.map_err(|_| {
            Error::transient("CATALOG_TIMEOUT", "the source's catalog did not answer in time")
        })?
    }
}

fn not_published(relation: &Relation) {
    tracing::warn!(
        table = %relation.display(),
        "no longer published, or dropped: its lake table stays as it is"
    );
}
