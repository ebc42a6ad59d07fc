//! Tables that are copied afresh while the others stream on: what they wait for, and how they
//! come back.
//!
//! ```text
//!  cause ──► hold changes ──► copy at L (temporary slot) ──► first lake commit with P >= L:
//!            (held.rs)         (initial_snapshot/afresh.rs)   all older rows go, the copy comes,
//!                                                             then what was held from L on
//! ```
//! Until then the lake table stays as it was, and the ledger says so (`frazil.behind`); after a
//! crash that is where it begins again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::TableIdent;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::iceberg::ledger::Behind;
use crate::iceberg::schema::GoOn;
use crate::initial_snapshot::afresh::{self, Afresh, Context, Fresh};
use crate::progress::Lsn;

use super::facts::{SourceFacts, Stale};
use super::held::Held;
use super::intake::Intake;
use super::past::Past;
use super::tables::{TableState, Tables};
use super::write::{TableFiles, Writers, Written};

/// How often a table is copied because it changed its shape while it was copied.
const ATTEMPTS_MAX: usize = 20;

/// The content of the logical message that `frazil resync` emits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResyncWish {
    /// The pipeline that is meant.
    pub(crate) slot: String,
    /// Table patterns.
    pub(crate) tables: String,
}

impl ResyncWish {
    /// The message's prefix.
    pub(crate) const PREFIX: &str = "frazil.resync";

    /// As it stands in the message.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What a message says; `None` for one that was not made by `frazil resync`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match serde_json::from_str(text) {
            Ok(wish) => Some(wish),
            Err(error) => {
                tracing::warn!(%error, "a message `{}` that says nothing", Self::PREFIX);
                None
            }
        }
    }
}

/// The tables that wait for a copy.
pub(crate) struct Refreshes {
    context: Context,
    waiting: BTreeMap<u32, Refresh>,
    /// The copy under way, and what it copies.
    job: Option<(Vec<u32>, JoinHandle<Result<Afresh>>)>,
    ready: Option<Afresh>,
}

#[derive(Debug)]
struct Refresh {
    table: String,
    cause: String,
    /// The position of its rows in the lake; unknown until the next lake commit.
    position: Option<Lsn>,
    attempts: usize,
    /// It changed after its copy was begun, in the source transaction that commits there: a copy as
    /// of a later position has that in it.
    changed_at: Option<Lsn>,
}

/// A table that comes back with the window's lake commit.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) oid: u32,
    /// How its lake table goes on; `None` where it is born.
    pub(crate) go_on: Option<GoOn>,
    /// The copy, and what was held.
    pub(crate) files: JoinHandle<Result<Vec<Written>>>,
}

impl Refreshes {
    /// None yet.
    pub(crate) fn new(context: Context) -> Self {
        Self { context, waiting: BTreeMap::new(), job: None, ready: None }
    }

    /// Tables that were behind when the last run ended.
    pub(crate) fn resume(&mut self, behind: &BTreeMap<u32, Behind>) {
        for (&oid, behind) in behind {
            if let Some(refresh) = self.waiting.get_mut(&oid) {
                refresh.position = Some(behind.position);
            }
        }
    }

    /// A table must be copied afresh; its changes are held from now on.
    pub(crate) fn request(&mut self, stale: Stale, intake: &mut Intake) {
        intake.hold(stale.oid, None);
        let Stale { oid, table, cause } = stale;
        let in_job = self.job.as_ref().is_some_and(|(oids, _)| oids.contains(&oid));
        let copied = |ready: &Afresh| ready.tables.iter().any(|t| t.table.relation.oid == oid);
        let is_begun = in_job || self.ready.as_ref().is_some_and(copied);
        let changed_at = is_begun.then(|| intake.open_commit_lsn().unwrap_or(Lsn(u64::MAX)));
        match self.waiting.get_mut(&oid) {
            Some(refresh) => {
                tracing::info!(table, cause, "the table that is copied has changed once more");
                (refresh.cause, refresh.changed_at) = (cause, changed_at);
            }
            None => {
                tracing::warn!(table, cause, "the table is copied afresh");
                let refresh = Refresh { table, cause, position: None, attempts: 1, changed_at };
                self.waiting.insert(oid, refresh);
            }
        }
    }

    /// Whether the table waits for its copy.
    pub(crate) fn has(&self, oid: u32) -> bool {
        self.waiting.contains_key(&oid)
    }

    /// Whether no table waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a copy is under way.
    pub(crate) fn is_copying(&self) -> bool {
        self.job.is_some()
    }

    /// Begins the next copy, of all tables that wait, unless one is under way.
    pub(crate) fn begin(&mut self, bound: HashMap<TableIdent, u32>) {
        if self.job.is_some() || self.ready.is_some() || self.waiting.is_empty() {
            return;
        }
        let oids: Vec<u32> = self.waiting.keys().copied().collect();
        let (context, wanted) = (self.context.clone(), oids.clone());
        let task = tokio::spawn(async move { afresh::copy(&context, &wanted, &bound).await });
        self.job = Some((oids, task));
    }

    /// The copy under way is over. Cancel-safe.
    pub(crate) async fn copied(&mut self) -> Result<()> {
        let Some((_, task)) = &mut self.job else { return std::future::pending().await };
        let done = task.await;
        self.job = None;
        self.ready = Some(done.map_err(|panic| {
            Error::fatal("WRITER", "a table's copy broke off").with_source(panic)
        })??);
        Ok(())
    }

    /// L of the copies that wait for their lake commit.
    pub(crate) fn ready_at(&self) -> Option<Lsn> {
        self.ready.as_ref().map(|ready| ready.consistent_point)
    }

    /// Makes the copies part of the window that ends at `end_lsn`, where it reaches them.
    pub(crate) fn adopt(
        &mut self,
        end_lsn: Lsn,
        (tables, intake): (&mut Tables, &mut Intake),
        (writers, past): (&Writers, &Past),
    ) -> Result<Vec<Adopted>> {
        let Some(ready) = self.ready.take_if(|ready| ready.consistent_point <= end_lsn) else {
            return Ok(Vec::new());
        };
        let mut adopted = Vec::with_capacity(ready.tables.len());
        for oid in ready.gone {
            if let Some(refresh) = self.waiting.remove(&oid) {
                tracing::warn!(table = refresh.table, "no longer published: it is not copied");
                intake.ignore(oid);
            }
        }
        for fresh in ready.tables {
            let oid = fresh.table.relation.oid;
            let Some(held) = intake.release(oid) else { continue };
            let refresh = self
                .waiting
                .get_mut(&oid)
                .filter(|refresh| refresh.changed_at.is_none_or(|at| at < ready.consistent_point));
            if refresh.is_none() || !held.fits(&fresh.table.relation, ready.consistent_point) {
                self.once_more(&fresh, held, intake)?;
                continue;
            }
            self.waiting.remove(&oid);
            let relation = Arc::clone(&fresh.target.relation);
            if let Some(wire) = held.last_shape(&relation) {
                intake.follow(Arc::clone(&relation), wire.clone());
            }
            tables.adopt(state_of(&fresh), fresh.instead_of);
            if let Some(old) = fresh.instead_of {
                self.waiting.remove(&old);
                intake.ignore(old);
            }
            let go_on = fresh.go_on;
            let replayed = Replayed {
                max_message_bytes: self.context.settings.max_value_bytes,
                consistent_point: ready.consistent_point,
                writers: writers.clone(),
                committed: past.committed.clone(),
                window: past.window,
            };
            let files = tokio::spawn(replayed.write(fresh, held));
            adopted.push(Adopted { oid, go_on, files });
        }
        Ok(adopted)
    }

    /// The copy is of another shape than the stream from L on: it is made again.
    fn once_more(&mut self, fresh: &Fresh, held: Held, intake: &mut Intake) -> Result<()> {
        let relation = &fresh.table.relation;
        let (oid, table) = (relation.oid, relation.display());
        intake.hold(oid, held.into_last_shape());
        let cause = "it changed its shape while it was copied".to_owned();
        self.request(Stale { oid, table: table.clone(), cause }, intake);
        let attempts = self.waiting.get_mut(&oid).map_or(0, |refresh| {
            refresh.attempts += 1;
            refresh.attempts
        });
        if attempts > ATTEMPTS_MAX {
            let what = "the table changed its shape during every attempt to copy it";
            return Err(Error::table("SCHEMA_CHANGED", table, what)
                .with_cure("wait until the changes are done, then start frazil again"));
        }
        Ok(())
    }

    /// The tables that are not at P after the next lake commit, which begins at `base`.
    pub(crate) fn behind(&mut self, base: Lsn, tables: &Tables) -> BTreeMap<u32, Behind> {
        let states = tables.states();
        let behind = self.waiting.iter_mut().map(|(oid, refresh)| {
            let here = if states.contains_key(oid) { base } else { Lsn::ZERO };
            let position = *refresh.position.get_or_insert(here);
            let (table, cause) = (refresh.table.clone(), refresh.cause.clone());
            (*oid, Behind { table, position, cause })
        });
        behind.collect()
    }
}

impl Drop for Refreshes {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.job {
            task.abort();
        }
    }
}

fn state_of(fresh: &Fresh) -> TableState {
    TableState {
        target: Arc::clone(&fresh.target),
        facts: SourceFacts::of(&fresh.table),
        facts_changed: false,
        position_lsn: Lsn::ZERO,
    }
}

/// What was held, on its way into files.
struct Replayed {
    max_message_bytes: usize,
    consistent_point: Lsn,
    writers: Writers,
    committed: watch::Receiver<u64>,
    window: u64,
}

impl Replayed {
    /// The copy as if it were a TRUNCATE and its rows, and each segment of what was held.
    async fn write(self, mut fresh: Fresh, held: Held) -> Result<Vec<Written>> {
        let oid = fresh.table.relation.oid;
        let files = std::mem::take(&mut fresh.files);
        let copy = TableFiles { files, truncated: true, changes: 0, lacks: None };
        let mut done: Vec<Written> = vec![Arc::new(HashMap::from([(oid, copy)]))];
        let (relation, limit) = (Arc::clone(&fresh.target.relation), self.max_message_bytes);
        let mut replay = held.replay(&relation, self.consistent_point, limit)?;
        let targets = Arc::new(HashMap::from([(oid, Arc::clone(&fresh.target))]));
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let segment = replay.next_segment();
                (replay, segment)
            });
            let (rest, segment) = read.await.map_err(|panic| {
                Error::fatal("WRITER", "held changes could not be read").with_source(panic)
            })?;
            replay = rest;
            let Some(segment) = segment? else { return Ok(done) };
            let past = Past {
                committed: self.committed.clone(),
                window: self.window,
                segments: done.iter().map(|w| watch::channel(Some(Arc::clone(w))).1).collect(),
            };
            let ticket = self.writers.write(segment, Arc::clone(&targets), past);
            done.push(ticket.task.await.map_err(|panic| {
                Error::fatal("WRITER", "a segment's writer broke off").with_source(panic)
            })??);
        }
    }
}
