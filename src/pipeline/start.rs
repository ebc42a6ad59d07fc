//! Before the stream: is this the same database, the same history, the same slot, and does the lake
//! stand where it can go on? The server would skip silently instead of complaining (cases 5 to 8,
//! 16 to 18, 22), so all of it is decided here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::{Settings, SlotLoss};
use crate::error::{Error, Result};
use crate::iceberg::POSITION_KEY;
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::{LedgerRecord, PIPELINE_KEY};
use crate::initial_snapshot::afresh::Context;
use crate::initial_snapshot::slot::export_snapshot;
use crate::ops::{Shutdown, Stats};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::dsn::Source;
use crate::postgres::publication;
use crate::postgres::session::{Session, SystemIdentity};
use crate::postgres::slot::{self, SlotInfo};
use crate::postgres::sql::connect_sql;
use crate::postgres::stream::StreamOptions;
use crate::progress::{Lsn, Progress};
use crate::window::relation::Relation;

use super::commit::Window;
use super::facts::{FACTS_KEY, SourceFacts, Stale, compare, stale, stored_otherwise};
use super::intake::Intake;
use super::refresh::Refreshes;
use super::tables::{TableState, Tables};
use super::write::{ParquetTarget, Writers};
use super::{Flow, feedback_every};

/// Tables that are looked at in the lake at the same time.
const TABLES_PARALLEL: usize = 16;

/// How often the server is asked where it stands while somebody waits for the end.
const EAGER_FEEDBACK: Duration = Duration::from_millis(200);

/// The first server that sends binary values, logical messages and open source transactions
/// through pgoutput.
const VERSION_14: u32 = 140_000;

/// The history a position belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) timeline: u32,
    pub(crate) system_id: String,
}

/// Connects, checks that everything fits, and starts the stream at P.
pub(super) async fn connect(
    source: &Source,
    lake: &Arc<Lake>,
    settings: &Settings,
    until: Option<Lsn>,
    (shutdown, stats): (&Shutdown, &Arc<Stats>),
) -> Result<Flow> {
    let (ledger, client, (mut session, identity)) = reach(source, lake).await?;
    let committed_lsn = ledger.committed_lsn;
    let slot = slot::slot_info(&client, &settings.slot).await?;
    let is_there = slot.is_some();
    let fits = check_slot(slot, settings, &source.database, committed_lsn);
    check_history(&mut session, &identity, &ledger).await?;
    // The slot is looked at after the lake: whoever has it may have moved both in between.
    if fits.is_err() {
        check_not_moved(lake, committed_lsn).await?;
    }
    let lost = slot_lost(fits, (&client, &mut session, is_there), settings, shutdown).await?;
    let publications = publications(&client, settings).await?;
    let (source_tables, version, mut states) = tokio::try_join!(
        catalog::load_relations(&client, &publications, None, &settings.types),
        catalog::server_version(&client),
        lake_tables(lake),
    )?;
    take_rules(&mut states, &source_tables)?;
    settings_name_columns(settings, &source_tables);
    let binary = version >= VERSION_14 && has_binary_forms(&states, &source_tables, settings);
    let options = stream_options(settings, committed_lsn, &publications, (version, binary));
    let stream = session.start_replication(&options).await?;
    // The slot is ours only now: whoever had it until then may have moved P.
    check_not_moved(lake, committed_lsn).await?;
    stats.resumed(committed_lsn);
    say_following(settings, committed_lsn, states.len(), binary);
    let interval = if until.is_some() { EAGER_FEEDBACK } else { stream.status_interval() };
    let context = Context {
        source: source.clone(),
        lake: Arc::clone(lake),
        settings: settings.clone(),
        publications: publications.clone(),
        is_binary: binary,
        shutdown: shutdown.clone(),
        stats: Arc::clone(stats),
    };
    let tables = (client, publications, version);
    let mut flow = Flow {
        stream,
        intake: Intake::new(committed_lsn, ahead(&states, committed_lsn), settings.max_value_bytes),
        window: Window::first(committed_lsn, settings.commit_interval),
        committing: None,
        writers: Writers::new(Arc::clone(lake), settings.window_bytes_max / 2),
        tables: Tables::new(tables, settings, binary, states),
        refreshes: Refreshes::new(context),
        progress: Progress::resume(committed_lsn),
        position: Position { timeline: identity.timeline, system_id: identity.system_id },
        last_commit: Instant::now(),
        feedback: feedback_every(interval),
        heard: Instant::now(),
        until,
        leaving: None,
        shutdown: shutdown.clone(),
        lake: Arc::clone(lake),
        stats: Arc::clone(stats),
    };
    flow.doubt(&source_tables, &ledger, lost, settings).await?;
    Ok(flow)
}

/// What the ledger says, and both connections to the source.
async fn reach(
    source: &Source,
    lake: &Lake,
) -> Result<(LedgerRecord, Client, (Session, SystemIdentity))> {
    tokio::try_join!(
        async { lake.committer.position().await?.ok_or_else(no_position) },
        connect_sql(source, "stream"),
        identified(source),
    )
}

async fn identified(source: &Source) -> Result<(Session, SystemIdentity)> {
    let mut session = Session::connect(source, "stream").await?;
    let identity = session.identify_system().await?;
    Ok((session, identity))
}

impl Flow {
    /// The tables that can't go on from where the lake has them are copied afresh.
    async fn doubt(
        &mut self,
        source_tables: &[SourceTable],
        ledger: &LedgerRecord,
        lost: Option<&str>,
        settings: &Settings,
    ) -> Result<()> {
        let has_capture = self.tables.find_capture().await?;
        let states = self.tables.states();
        let tables = (states.as_ref(), source_tables);
        let stale = stale_tables(tables, ledger, lost, (settings, has_capture));
        let new = self.tables.new_tables(source_tables, |_| false);
        self.refresh(stale.into_iter().chain(new).collect());
        self.refreshes.resume(&ledger.behind);
        self.look().await
    }
}

fn say_following(settings: &Settings, position: Lsn, tables: usize, binary: bool) {
    let slot = &settings.slot;
    tracing::info!(slot, %position, tables, binary, "following the stream");
}

async fn check_not_moved(lake: &Lake, committed_lsn: Lsn) -> Result<()> {
    let now = lake.committer.position().await?;
    if now.map(|record| record.committed_lsn) == Some(committed_lsn) {
        return Ok(());
    }
    let message = "another frazil has moved the lake's position; starting again from there";
    Err(Error::transient("POSITION_MOVED", message).with_lsn(committed_lsn))
}

fn no_position() -> Error {
    Error::fatal("NO_POSITION", "the lake has no position to go on from")
}

fn stream_options(
    settings: &Settings,
    start: Lsn,
    publications: &[String],
    (version, binary): (u32, bool),
) -> StreamOptions {
    let streaming = settings.streaming && version >= VERSION_14;
    StreamOptions {
        slot: settings.slot.clone(),
        start,
        publications: publications.to_vec(),
        protocol: if streaming { 2 } else { 1 },
        binary,
        messages: version >= VERSION_14,
        streaming,
        two_phase: false,
        origin: settings.only_local_origin.then(|| "none".to_owned()),
    }
}

/// The slot must be ours to use and must not have moved past P (cases 6, 17, 18).
fn check_slot(
    slot: Option<SlotInfo>,
    settings: &Settings,
    database: &str,
    committed_lsn: Lsn,
) -> Result<()> {
    let name = &settings.slot;
    let resync = "changes between the lake's position and now may be gone: copy all tables afresh \
                  (source.on_slot_loss: resync), or start a new lake";
    let Some(slot) = slot else {
        return Err(Error::fatal(
            "SLOT_LOST",
            format!("the replication slot {name} does not exist"),
        )
        .with_lsn(committed_lsn)
        .with_cure(resync));
    };
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().unwrap_or("physical replication");
        let message = format!("the slot {name} is for {plugin}, not for pgoutput");
        return Err(Error::config("WRONG_SLOT", message).with_cure("name another one: --slot"));
    }
    if let Some(other) = slot.database.as_deref().filter(|other| *other != database) {
        let message = format!("the slot {name} is for the database {other}, not {database}");
        return Err(Error::config("WRONG_SLOT", message).with_cure("name another one: --slot"));
    }
    if slot.is_lost() {
        let why = slot.invalidation.as_deref().unwrap_or("the WAL it needs is gone");
        let message = format!("the server has invalidated the slot {name}: {why}");
        return Err(Error::fatal("SLOT_LOST", message).with_lsn(committed_lsn).with_cure(resync));
    }
    match slot.confirmed_flush_lsn {
        Some(confirmed) if confirmed > committed_lsn => {
            let message =
                format!("the slot {name} was moved to {confirmed}, past what the lake holds");
            Err(Error::fatal("SLOT_AHEAD", message).with_lsn(committed_lsn).with_cure(resync))
        }
        _ => Ok(()),
    }
}

async fn check_history(
    session: &mut Session,
    identity: &SystemIdentity,
    ledger: &LedgerRecord,
) -> Result<()> {
    let history = match identity.timeline > ledger.timeline && ledger.timeline > 0 {
        true => session.timeline_history(identity.timeline).await?,
        false => Vec::new(),
    };
    check_position(identity, &history, ledger)
}

/// Whether P lies in the history that the server has (cases 7, 22). `history`: timelines that
/// ended, each with the LSN where the next one began.
pub(crate) fn check_position(
    identity: &SystemIdentity,
    history: &[(u32, Lsn)],
    ledger: &LedgerRecord,
) -> Result<()> {
    let position = ledger.committed_lsn;
    let stop = |code, message: String| {
        Err(Error::fatal(code, message).with_lsn(position).with_cure(
            "this is not the history the lake was written from: connect to the right server, or \
             start a new lake",
        ))
    };
    if identity.system_id != ledger.system_id {
        let (now, then) = (&identity.system_id, &ledger.system_id);
        return stop(
            "OTHER_SYSTEM",
            format!("the server's system identifier is {now}, the lake's is {then}"),
        );
    }
    if position > identity.xlogpos_lsn {
        let end = identity.xlogpos_lsn;
        return stop(
            "LAKE_AHEAD",
            format!("the server's WAL ends at {end}, before what the lake holds"),
        );
    }
    if identity.timeline < ledger.timeline {
        let (now, then) = (identity.timeline, ledger.timeline);
        return stop("TIMELINE", format!("the server is on timeline {now}, the lake on {then}"));
    }
    if identity.timeline > ledger.timeline {
        let switch = history.iter().find(|(timeline, _)| *timeline == ledger.timeline);
        match switch {
            Some((_, switch)) if position <= *switch => {}
            _ => {
                let then = ledger.timeline;
                return stop(
                    "TIMELINE",
                    format!("timeline {then} was left before the lake's position"),
                );
            }
        }
    }
    Ok(())
}

async fn publications(client: &Client, settings: &Settings) -> Result<Vec<String>> {
    let mut publications = Vec::new();
    for name in [settings.publication.clone(), settings.append_publication()] {
        let Some(info) = publication::publication_info(client, &name).await? else { continue };
        if let Some(missing) = info.publish.left_out()
            && name == settings.publication
        {
            tracing::warn!(
                code = "PUBLISH_OPTIONS",
                "publication `{name}` leaves out {missing}: the lake will differ from the source"
            );
        }
        publications.push(name);
    }
    if publications.first() != Some(&settings.publication) {
        let message = format!("the publication {} does not exist", settings.publication);
        return Err(Error::config("PUBLICATION_MISSING", message)
            .with_cure("create it again with the same tables, or start a new lake"));
    }
    Ok(publications)
}

/// What is missing between P and where a slot can begin, where that is no reason to stop: a new
/// slot is made if need be.
async fn slot_lost(
    fits: Result<()>,
    (client, session, is_there): (&Client, &mut Session, bool),
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Option<&'static str>> {
    let error = match fits {
        Ok(()) => return Ok(None),
        Err(error) => error,
    };
    let is_lost = error.code() == "SLOT_LOST";
    if settings.on_slot_loss == SlotLoss::Stop || !(is_lost || error.code() == "SLOT_AHEAD") {
        return Err(error);
    }
    tracing::warn!(code = error.code(), "{error}; all tables are copied afresh");
    if is_lost {
        if is_there {
            session.drop_slot(&settings.slot).await?;
        }
        export_snapshot(client, session, settings, shutdown).await?;
    }
    Ok(Some("the slot was lost, and changes with it"))
}

/// Tables that can't go on from where the lake has them: those whose copy was not complete when the
/// last run ended, and those that the source's catalog shows to be others.
fn stale_tables(
    (states, source_tables): (&HashMap<u32, TableState>, &[SourceTable]),
    ledger: &LedgerRecord,
    lost: Option<&str>,
    (settings, has_capture): (&Settings, bool),
) -> Vec<Stale> {
    let is_off = has_capture || crate::ops::is_failpoint_on("no_ddl_detection");
    let now: HashMap<u32, &SourceTable> =
        source_tables.iter().map(|table| (table.relation.oid, table)).collect();
    let cause = |(oid, state): (&u32, &TableState)| {
        let now = now.get(oid)?;
        let cause = match ledger.behind.get(oid) {
            _ if lost.is_some() => lost.map(str::to_owned),
            Some(behind) => Some(behind.cause.clone()),
            None if needs_hidden_key(state, now, settings) => {
                Some("its key has values that its lake type can't hold".to_owned())
            }
            None if is_off => stored_otherwise(&state.facts, now),
            None => compare(&state.facts, now),
        };
        cause.map(|cause| stale(&now.relation, cause))
    };
    states.iter().filter_map(cause).collect()
}

/// Whether `tables.hidden_key` names a table whose lake table has its key in columns.
fn needs_hidden_key(state: &TableState, now: &SourceTable, settings: &Settings) -> bool {
    let mut wanted = now.relation.clone();
    settings.choose_key(&mut wanted);
    wanted.has_hidden_key() && !state.facts.relation.has_hidden_key()
}

/// The lake's tables that this pipeline follows, with the source tables they are bound to.
async fn lake_tables(lake: &Arc<Lake>) -> Result<HashMap<u32, TableState>> {
    let idents = lake.committer.tables().await?;
    let tables = idents.into_iter().map(async |ident| {
        let table = lake.committer.base(&ident).await?;
        Ok::<_, Error>(table.map(|table| (ident, table)))
    });
    let tables = tables.collect::<Vec<_>>();
    let mut tables = futures::stream::iter(tables).buffered(TABLES_PARALLEL);
    let mut states = HashMap::new();
    while let Some(found) = tables.try_next().await? {
        let Some((ident, table)) = found else { continue };
        let properties = table.metadata().properties();
        // Another pipeline's table may come from another server, where oids mean other tables.
        if properties.get(PIPELINE_KEY) != Some(&lake.pipeline_id) {
            continue;
        }
        let Some(json) = properties.get(FACTS_KEY) else { continue };
        let facts: SourceFacts = serde_json::from_str(json).map_err(|e| {
            Error::fatal("LAKE_TABLE", format!("the table property {FACTS_KEY} is not readable"))
                .with_table(&ident)
                .with_source(e)
        })?;
        let location = table.metadata().location().to_owned();
        let target = ParquetTarget::new(location, ident, Arc::new(facts.relation.clone()))?;
        let position_lsn = properties.get(POSITION_KEY).and_then(|text| text.parse().ok());
        let state = TableState {
            target: Arc::new(target),
            facts,
            facts_changed: false,
            position_lsn: position_lsn.unwrap_or_default(),
        };
        states.insert(state.facts.relation.oid, state);
    }
    Ok(states)
}

/// Takes what the settings and the database say of how values are read, which the lake does not
/// keep.
fn take_rules(states: &mut HashMap<u32, TableState>, source_tables: &[SourceTable]) -> Result<()> {
    for now in source_tables {
        let Some(state) = states.get_mut(&now.relation.oid) else { continue };
        if state.facts.relation.rules != now.relation.rules {
            state.facts.relation.rules = now.relation.rules;
            let relation = Arc::new(state.facts.relation.clone());
            let (location, ident) = (state.target.location.clone(), state.target.ident.clone());
            state.target = Arc::new(ParquetTarget::new(location, ident, relation)?);
        }
    }
    Ok(())
}

/// Warns where the settings name a column that isn't there: it may have been dropped since.
fn settings_name_columns(settings: &Settings, source_tables: &[SourceTable]) {
    let relations = || source_tables.iter().map(|table| &table.relation);
    for column in settings.types.unmatched(relations) {
        tracing::warn!(column, "`types:` or `values:` name what is not published");
    }
}

/// Tables that hold more than the ledger says, after a crash in a catalog that commits tables one
/// by one: each goes on from its own position.
fn ahead(states: &HashMap<u32, TableState>, committed_lsn: Lsn) -> HashMap<u32, Lsn> {
    let ahead = states.iter().filter(|(_, state)| state.position_lsn > committed_lsn);
    ahead.map(|(&oid, state)| (oid, state.position_lsn)).collect()
}

/// Whether every followed column, as the lake and as the source have it, has a type whose binary
/// form is known.
fn has_binary_forms(
    states: &HashMap<u32, TableState>,
    source_tables: &[SourceTable],
    settings: &Settings,
) -> bool {
    let lake = states.values().map(|state| &state.facts.relation);
    let now = source_tables.iter().map(|table| &table.relation);
    let is_wanted = |r: &Relation| settings.tables.selects(&r.namespace, &r.name);
    let followed = now.filter(|r| states.contains_key(&r.oid) || is_wanted(r));
    lake.chain(followed).flat_map(|r| &r.columns).all(|c| c.pg_type.has_binary_form())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::ledger::PipelineState;

    fn ledger(position: u64, timeline: u32) -> LedgerRecord {
        LedgerRecord {
            pipeline_id: "p".to_owned(),
            committed_lsn: Lsn(position),
            timeline,
            system_id: "7".to_owned(),
            source_commit_time: None,
            source_transactions: 0,
            rows: std::collections::BTreeMap::default(),
            lake_commit: uuid::Uuid::nil(),
            state: PipelineState::Streaming,
            slot: "p".to_owned(),
            behind: std::collections::BTreeMap::default(),
        }
    }

    fn server(xlogpos: u64, timeline: u32) -> SystemIdentity {
        SystemIdentity { system_id: "7".to_owned(), timeline, xlogpos_lsn: Lsn(xlogpos) }
    }

    #[test]
    fn the_same_history_goes_on() {
        check_position(&server(100, 1), &[], &ledger(100, 1)).unwrap();
        check_position(&server(100, 2), &[(1, Lsn(90))], &ledger(90, 1)).unwrap();
    }

    // cases: 7 stops LAKE_AHEAD
    // cases: 22 stops TIMELINE
    #[test]
    fn another_history_stops() {
        let code = |identity, history: &[(u32, Lsn)], ledger| {
            check_position(&identity, history, &ledger).unwrap_err().code()
        };
        assert_eq!(code(server(99, 1), &[], ledger(100, 1)), "LAKE_AHEAD");
        assert_eq!(code(server(200, 1), &[], ledger(100, 2)), "TIMELINE");
        assert_eq!(code(server(200, 2), &[(1, Lsn(90))], ledger(91, 1)), "TIMELINE");
        assert_eq!(code(server(200, 3), &[(2, Lsn(90))], ledger(80, 1)), "TIMELINE");
        let other = SystemIdentity { system_id: "8".to_owned(), ..server(200, 1) };
        assert_eq!(code(other, &[], ledger(100, 1)), "OTHER_SYSTEM");
    }
}
