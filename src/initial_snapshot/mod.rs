//! The initial snapshot: every table as it was at one LSN, visible in one lake commit.
//!
//! 1. The publication is made before the slot (case 24).
//! 2. Creating the slot exports a snapshot that holds exactly the source transactions with a
//!    commit_lsn below its consistent point L (case 130). Where the slot exists already, from an
//!    earlier try or made by the user, a temporary slot gives snapshot and L; the stream then
//!    begins at L just the same.
//! 3. Workers import the snapshot and COPY ranges of pages. A table that was rewritten since the
//!    snapshot reads empty through it, so file nodes are compared under a lock first (case 134).
//! 4. All tables are created and filled by the first lake commit, with P = L. Before it there is
//!    nothing to clean up but files nobody refers to; after a crash the next start goes on with
//!    those that a record beside them names (`record.rs`, `resume.rs`).

pub(crate) mod afresh;
mod changed_keys;
mod copy;
mod cost;
mod plan;
mod record;
mod reread;
mod resume;
pub(crate) mod slot;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::config::{InitialSnapshot, Settings};
use crate::error::{Error, Kind, Result};
use crate::iceberg::committer::{LakeCommit, NewTable, TableChange, is_half_born};
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::{PIPELINE_KEY, PipelineState};
use crate::iceberg::row_delta::{RowDelta, SegmentFiles};
use crate::iceberg::{POSITION_KEY, Table, table_ident};
use crate::ops::{Shutdown, Stats};
use crate::pipeline::{
    COMMIT_GRACE, FACTS_KEY, ParquetTarget, Position, SourceFacts, commit_open, ledger_record,
};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::dsn::Source;
use crate::postgres::publication::{self, Publish};
use crate::postgres::server_error::from_sql;
use crate::postgres::session::Session;
use crate::postgres::sql::connect_sql;
use crate::postgres::tables::{CandidateTable, candidate_tables};
use crate::progress::Lsn;

pub(crate) use copy::Rows;

use record::{Origin, Record, Recorder};
use resume::{Kept, Now, Shapes};
use workers::{Copying, import_snapshot};

/// How often a snapshot is taken anew because a table was rewritten meanwhile.
const ATTEMPTS: usize = 5;

/// Publication, slot, copy, and the first lake commit. Gives P.
pub async fn take(
    source: &Source,
    lake: &Arc<Lake>,
    settings: &Settings,
    (shutdown, stats): (&Shutdown, &Arc<Stats>),
) -> Result<Lsn> {
    let client = connect_sql(source, "initial-snapshot").await?;
    let publications = publish(&client, settings).await?;
    let tables = selected(&client, &publications, settings).await?;
    refuse_existing(lake, &tables).await?;
    if settings.initial_snapshot != InitialSnapshot::Never {
        refuse_unreadable(&client, &tables, &source.user).await?;
    }
    let start = Start { source, lake, settings, shutdown, stats, client, publications };
    for _ in 0..ATTEMPTS {
        if let Some(committed_lsn) = Box::pin(start.attempt()).await? {
            return Ok(committed_lsn);
        }
    }
    Err(Error::transient(
        "TABLES_REWRITTEN",
        "tables were rewritten during every attempt to copy them",
    )
    .with_cure("wait until VACUUM FULL, CLUSTER, TRUNCATE or ALTER TABLE are done"))
}

/// What the attempts have in common.
struct Start<'a> {
    source: &'a Source,
    lake: &'a Arc<Lake>,
    settings: &'a Settings,
    shutdown: &'a Shutdown,
    stats: &'a Arc<Stats>,
    client: Client,
    publications: Vec<String>,
}

impl Start<'_> {
    /// `None` where a table was rewritten since the snapshot.
    async fn attempt(&self) -> Result<Option<Lsn>> {
        let (source, lake, settings) = (self.source, self.lake, self.settings);
        let mut session = Session::connect(source, "initial-snapshot").await?;
        let identity = session.identify_system().await?;
        let position = Position { timeline: identity.timeline, system_id: identity.system_id };
        let origin = Origin::of(source, lake, &position);
        let location = Record::location(lake, &origin).await?;
        let at = (&origin, identity.xlogpos_lsn, source.database.as_str());
        let record = resume::usable(&self.client, (lake, &location), settings, at).await?;
        let exported = slot::export_snapshot(&self.client, &mut session, settings, self.shutdown);
        let created = exported.await?;
        crate::ops::crash_point("snapshot_exported");
        let snapshot = created.snapshot_name.as_deref().unwrap_or_default();
        // As they were there: what the stream brings from then on comes after that.
        let frozen = import_snapshot(source, snapshot).await?;
        let tables = selected(&frozen, &self.publications, settings).await?;
        let mut recorder = None;
        let segments = if settings.initial_snapshot == InitialSnapshot::Never {
            vec![vec![SegmentFiles::default()]; tables.len()]
        } else {
            let shapes = Shapes::load(&frozen, &self.publications, &tables).await?;
            drop(frozen);
            let targets = targets(lake, &tables).await?;
            let now = Now {
                origin: &origin,
                consistent_point: created.consistent_point,
                tables: &tables,
                targets: &targets,
                shapes: &shapes,
            };
            let mut kept = self.kept(record, &now).await?;
            let record = kept.take_record(lake, &now);
            // Files of a place that the catalog gives keys for can't be another place's later.
            let is_open = !targets.iter().any(|t| lake.storage.has_vended(&t.location));
            let recorder = recorder.insert(Recorder::new(lake, location, record));
            let by = (snapshot, session.backend_pid());
            let copy = self.copy(by, &now, kept, is_open.then_some(recorder));
            match Box::pin(copy).await? {
                Some(segments) => segments,
                None => return Ok(None),
            }
        };
        drop(session);
        let commit = commit(lake, position, created.consistent_point, &tables, segments);
        let committed_lsn = tokio::select! {
            biased;
            // It is decided.
            committed = commit => committed?,
            // A catalog that does not answer must not hold up a stop.
            () = self.shutdown.overdue(COMMIT_GRACE) => return Err(commit_open()),
        };
        if let Some(recorder) = recorder {
            recorder.remove().await;
        }
        Ok(Some(committed_lsn))
    }

    /// What an earlier start has copied.
    async fn kept(&self, record: Option<Record>, now: &Now<'_>) -> Result<Kept> {
        let Some(record) = record else { return Ok(Kept::default()) };
        let of = (self.source, self.lake.as_ref(), self.settings);
        tokio::select! {
            biased;
            // A stop: what is copied stays.
            () = self.shutdown.requested() => Err(stopped()),
            // What changed since.
            kept = Kept::of(record, now, of, &self.publications) => match kept {
                Err(error) if error.kind() != Kind::Transient || error.code() == "DECODING" => {
                    tracing::warn!("the initial snapshot begins again: {error}");
                    Ok(Kept::default())
                }
                kept => kept,
            },
        }
    }

    /// The segments of each table. `None` where one was rewritten since the snapshot.
    async fn copy(
        &self,
        (snapshot, exporter): (&str, i32),
        now: &Now<'_>,
        kept: Kept,
        mut recorder: Option<&mut Recorder>,
    ) -> Result<Option<Vec<Vec<SegmentFiles>>>> {
        let copying = Copying {
            source: self.source,
            snapshot,
            exporter,
            lake: self.lake,
            tables: now.tables,
            targets: now.targets,
            settings: self.settings,
            stats: self.stats,
        };
        let copied = tokio::select! {
            biased;
            // A stop: nothing is visible yet, the next start goes on.
            () = self.shutdown.requested() => Err(stopped()),
            // The copy itself.
            copied = copy_tables(&copying, kept, recorder.as_deref_mut()) => copied,
        };
        if let Some(recorder) = recorder {
            recorder.save().await;
        }
        copied
    }
}

fn stopped() -> Error {
    Error::transient(
        "STOPPED",
        "stopped during the initial snapshot; the next start goes on with what is copied",
    )
}

/// Makes the publications where they are missing; gives the ones to follow.
async fn publish(client: &Client, settings: &Settings) -> Result<Vec<String>> {
    let append = settings.append_publication();
    let tables = candidate_tables(client).await?;
    refuse_unmatched(&tables, settings)?;
    if publication::publication_info(client, &settings.publication).await?.is_none() {
        let (keyed, keyless) = to_publish(tables, settings)?;
        for (namespace, name) in &keyless {
            let table = format!("{namespace}.{name}");
            tracing::warn!(table, "no key: only its inserts are followed");
        }
        // Both or none: a crash between them would leave out the tables without a key.
        client.batch_execute("BEGIN").await.map_err(from_sql)?;
        let (name, all) = (&settings.publication, Publish::ALL);
        publication::create_publication(client, name, &keyed, all, false).await?;
        if !keyless.is_empty() {
            let inserts = Publish::INSERT_ONLY;
            publication::create_publication(client, &append, &keyless, inserts, false).await?;
        }
        client.batch_execute("COMMIT").await.map_err(from_sql)?;
    }
    let mut publications = vec![settings.publication.clone()];
    if publication::publication_info(client, &append).await?.is_some() {
        publications.push(append);
    }
    Ok(publications)
}

/// A pattern that matches no table is a typing error.
fn refuse_unmatched(tables: &[CandidateTable], settings: &Settings) -> Result<()> {
    let names: Vec<Name> = tables.iter().map(|t| (t.namespace.clone(), t.name.clone())).collect();
    match settings.tables.unmatched(&names).first() {
        None => Ok(()),
        Some(pattern) => {
            let message = format!("--tables: `{pattern}` matches no table");
            Err(Error::config("NO_SUCH_TABLE", message)
                .with_cure("see what there is with: frazil check"))
        }
    }
}

/// The tables to publish: those with a key, and those without, whose UPDATEs and DELETEs Postgres
/// would refuse if they were published (case 73).
fn to_publish(tables: Vec<CandidateTable>, settings: &Settings) -> Result<(Vec<Name>, Vec<Name>)> {
    let (keyed, keyless): (Vec<_>, Vec<_>) = tables
        .into_iter()
        .filter(|t| t.obstacle.is_none() && settings.tables.selects(&t.namespace, &t.name))
        .partition(|table| table.has_identity);
    if keyed.is_empty() && keyless.is_empty() {
        return Err(Error::config("NO_TABLES", "no table can be replicated")
            .with_cure("see why with: frazil check"));
    }
    let names = |tables: Vec<CandidateTable>| -> Vec<Name> {
        tables.into_iter().map(|table| (table.namespace, table.name)).collect()
    };
    Ok((names(keyed), names(keyless)))
}

/// Schema and table.
type Name = (String, String);

/// The published tables that `--tables` selects.
pub(crate) async fn selected(
    client: &Client,
    publications: &[String],
    settings: &Settings,
) -> Result<Vec<SourceTable>> {
    let tables = catalog::load_relations(client, publications, None, &settings.types).await?;
    let mut chosen: Vec<SourceTable> = tables
        .into_iter()
        .filter(|t| settings.tables.selects(&t.relation.namespace, &t.relation.name))
        .collect();
    if chosen.is_empty() {
        return Err(Error::config(
            "NO_TABLES",
            format!("no table of the publication matches --tables {}", settings.tables),
        )
        .with_cure("see what is published: SELECT * FROM pg_publication_tables"));
    }
    chosen.iter_mut().for_each(|table| settings.choose_key(&mut table.relation));
    if let Some(place) = settings.types.unmatched(|| chosen.iter().map(|t| &t.relation)).first() {
        let message = format!("`types:` or `values:` name {place}, which is not published");
        return Err(Error::config("TYPE_OVERRIDE", message)
            .with_cure("correct the name, or take it out of the configuration"));
    }
    Ok(chosen)
}

/// Stops before anything is copied, or a slot is made, into a lake that has the tables already.
async fn refuse_existing(lake: &Lake, tables: &[SourceTable]) -> Result<()> {
    for table in tables {
        let ident = table_ident(&table.relation.namespace, &table.relation.name);
        let found = lake.committer.table(&ident).await?;
        // A first lake commit of ours may have broken off.
        let is_ours = |found: &Table| is_half_born(found, &lake.pipeline_id, lake.is_torn);
        if found.is_some_and(|found| !is_ours(&found)) {
            let message = "the lake has this table already, and not from this slot";
            return Err(Error::table("TABLE_EXISTS", table.relation.display(), message).with_cure(
                "name the slot that wrote it (--slot), another folder (--into), or leave the table \
                 out (--tables '!...')",
            ));
        }
    }
    Ok(())
}

/// Stops before a slot is made where the role may not read all rows (cases 140, 141).
async fn refuse_unreadable(client: &Client, tables: &[SourceTable], user: &str) -> Result<()> {
    let oids: Vec<u32> = tables.iter().map(|t| t.relation.oid).collect();
    let all = candidate_tables(client).await?;
    let wanted = all.iter().filter(|table| oids.contains(&table.oid));
    let lacking: Vec<_> = wanted.filter_map(|table| table.lacking_right(user)).collect();
    let Some((what, _)) = lacking.first() else { return Ok(()) };
    let more = match lacking.len() - 1 {
        0 => String::new(),
        count => format!(", and {count} more"),
    };
    let cures: Vec<&str> = lacking.iter().map(|(_, cure)| cure.as_str()).collect();
    Err(Error::config("RIGHTS", format!("{what}{more}")).with_cure(cures.join("; ")))
}

/// Copies all tables through the exported snapshot, but for what is `kept`: the segments of each.
/// `None` where one was rewritten or altered since.
async fn copy_tables(
    copying: &Copying<'_>,
    mut kept: Kept,
    mut recorder: Option<&mut Recorder>,
) -> Result<Option<Vec<Vec<SegmentFiles>>>> {
    let Some(coordinator) = copying.coordinator().await? else { return Ok(None) };
    let done = kept.done(copying.tables.len());
    let copied = copying.run(&coordinator, &done, recorder.as_deref_mut()).await?;
    let Some(copied) = copied else { return Ok(None) };
    let mut ranges: Vec<Vec<SegmentFiles>> = vec![Vec::new(); copying.tables.len()];
    for one in kept.ranges.into_iter().chain(copied) {
        if let Some(ranges) = ranges.get_mut(one.table) {
            ranges.push(one.files);
        }
    }
    let mut copier = None;
    if !kept.keys.is_empty() {
        let Some(another) = copying.another(&coordinator).await? else { return Ok(None) };
        copier = Some(another);
    }
    let mut segments = Vec::with_capacity(ranges.len());
    for ((table, target), ranges) in copying.tables.iter().zip(copying.targets).zip(ranges) {
        let mut of_table = vec![together(ranges)];
        let keys = kept.keys.remove(&table.relation.oid);
        if let (Some(keys), Some(copier)) = (keys, &mut copier) {
            let (by, to) = ((&coordinator, copier), (copying.lake, copying.stats.as_ref()));
            match Box::pin(reread::rows(by, (table, target), keys, to)).await {
                Ok(rows) => of_table.push(rows),
                Err(error) if error.kind() == Kind::Transient => return Err(error),
                Err(error) => {
                    tracing::warn!("the initial snapshot begins again: {error}");
                    if let Some(recorder) = recorder {
                        recorder.give_up().await;
                    }
                    return Ok(None);
                }
            }
        }
        segments.push(of_table);
    }
    if let Some(copier) = copier {
        copier.close().await;
    }
    crate::ops::crash_point("changed_rows_read");
    Ok(Some(segments))
}

/// Where each table's files go: in some catalogs it is theirs to say.
async fn targets(lake: &Lake, tables: &[SourceTable]) -> Result<Vec<Arc<ParquetTarget>>> {
    let mut targets = Vec::with_capacity(tables.len());
    for table in tables {
        let relation = Arc::new(table.relation.clone());
        let ident = table_ident(&relation.namespace, &relation.name);
        let new = NewTable::for_relation(&relation, false)?;
        let place = lake.committer.birthplace(&ident, &new).await?;
        targets.push(Arc::new(ParquetTarget::new(place.location, ident, relation)?));
    }
    Ok(targets)
}

/// The first lake commit.
async fn commit(
    lake: &Arc<Lake>,
    position: Position,
    consistent_point: Lsn,
    tables: &[SourceTable],
    segments: Vec<Vec<SegmentFiles>>,
) -> Result<Lsn> {
    crate::ops::crash_point("files_written");
    let mut ledger = ledger_record(lake, position, consistent_point, PipelineState::Streaming);
    let mut changes = Vec::with_capacity(tables.len());
    for (table, segments) in tables.iter().zip(segments) {
        let rows = segments.iter().map(|files| files.rows_inserted + files.rows_deleted).sum();
        ledger.rows.insert(table.relation.display(), rows);
        let has_raw = segments.iter().any(|files| files.has_raw);
        let mut create = NewTable::for_relation(&table.relation, has_raw)?;
        create.properties.insert(FACTS_KEY.to_owned(), SourceFacts::of(table).to_json()?);
        create.properties.insert(PIPELINE_KEY.to_owned(), lake.pipeline_id.clone());
        let position = (POSITION_KEY.to_owned(), consistent_point.to_string());
        let delta =
            RowDelta { segments, summary: HashMap::from([position]), ..RowDelta::default() };
        let ident = table_ident(&table.relation.namespace, &table.relation.name);
        changes.push(TableChange { ident, create: Some(create), delta });
    }
    lake.committer.commit(&LakeCommit { ledger, base: None, changes }).await
}

/// All ranges of a table are one segment: they have no order among them.
fn together(pieces: Vec<SegmentFiles>) -> SegmentFiles {
    pieces.into_iter().fold(SegmentFiles::default(), |mut all, piece| {
        all.data.extend(piece.data);
        all.rows_inserted += piece.rows_inserted;
        all.has_raw |= piece.has_raw;
        all
    })
}
