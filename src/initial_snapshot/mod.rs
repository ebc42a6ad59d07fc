//! The initial snapshot: every table as it was at one LSN, visible in one lake commit.
//!
//! 1. The publication is made before the slot (case 24).
//! 2. Creating the slot exports a snapshot that holds exactly the source transactions with a
//!    commit_lsn below its consistent point L (case 130). Where the slot exists already, from an
//!    earlier try or made by the user, a temporary slot gives snapshot and L; the stream then
//!    begins
//!    at L just the same.
//! 3. Workers import the snapshot and COPY ranges of pages. A table that was rewritten since the
//!    snapshot reads empty through it, so file nodes are compared under a lock first (case 134).
//! 4. All tables are created and filled by the first lake commit, with P = L. Before it there is
//!    nothing to clean up but files nobody refers to; a crash begins again.

pub(crate) mod afresh;
mod copy;
mod cost;
mod plan;
pub(crate) mod slot;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::config::{InitialSnapshot, Settings};
use crate::error::{Error, Result};
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
    for _ in 0..ATTEMPTS {
        let mut session = Session::connect(source, "initial-snapshot").await?;
        let identity = session.identify_system().await?;
        let position = Position { timeline: identity.timeline, system_id: identity.system_id };
        let created = slot::export_snapshot(&client, &mut session, settings, shutdown).await?;
        crate::ops::crash_point("snapshot_exported");
        let snapshot = created.snapshot_name.as_deref().unwrap_or_default();
        // As they were there: what the stream brings from then on comes after that.
        let frozen = import_snapshot(source, snapshot).await?;
        let tables = selected(&frozen, &publications, settings).await?;
        drop(frozen);
        let files = match settings.initial_snapshot {
            InitialSnapshot::Never => vec![Vec::new(); tables.len()],
            InitialSnapshot::Initial | InitialSnapshot::Only => {
                let targets = targets(lake, &tables).await?;
                let copying = Copying {
                    source,
                    snapshot,
                    exporter: session.backend_pid(),
                    lake,
                    tables: &tables,
                    targets: &targets,
                    settings,
                    stats,
                };
                let copied = tokio::select! {
                    biased;
                    // A stop: nothing is visible yet, the next start begins again.
                    () = shutdown.requested() => return Err(stopped()),
                    // The copy itself.
                    copied = copy_tables(&copying) => copied?,
                };
                match copied {
                    Some(files) => files,
                    None => continue,
                }
            }
        };
        drop(session);
        let commit = commit(lake, position, created.consistent_point, &tables, files);
        return tokio::select! {
            biased;
            // It is decided.
            committed = commit => committed,
            // A catalog that does not answer must not hold up a stop.
            () = shutdown.overdue(COMMIT_GRACE) => Err(commit_open()),
        };
    }
    Err(Error::transient(
        "TABLES_REWRITTEN",
        "tables were rewritten during every attempt to copy them",
    )
    .with_cure("wait until VACUUM FULL, CLUSTER, TRUNCATE or ALTER TABLE are done"))
}

fn stopped() -> Error {
    Error::transient(
        "STOPPED",
        "stopped during the initial snapshot; the next start begins it again",
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

/// Copies all tables through the exported snapshot. `None` where one was rewritten or altered
/// since.
async fn copy_tables(copying: &Copying<'_>) -> Result<Option<Vec<Vec<SegmentFiles>>>> {
    let count = copying.tables.len();
    let Some(coordinator) = copying.coordinator().await? else { return Ok(None) };
    let Some(copied) = copying.run(&coordinator, &vec![Vec::new(); count]).await? else {
        return Ok(None);
    };
    let mut files: Vec<Vec<SegmentFiles>> = vec![Vec::new(); count];
    for one in copied {
        if let Some(files) = files.get_mut(one.table) {
            files.push(one.files);
        }
    }
    Ok(Some(files))
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
    files: Vec<Vec<SegmentFiles>>,
) -> Result<Lsn> {
    crate::ops::crash_point("files_written");
    let mut ledger = ledger_record(lake, position, consistent_point, PipelineState::Streaming);
    let mut changes = Vec::with_capacity(tables.len());
    for (table, pieces) in tables.iter().zip(files) {
        let files = together(pieces);
        ledger.rows.insert(table.relation.display(), files.rows_inserted);
        let mut create = NewTable::for_relation(&table.relation, files.has_raw)?;
        create.properties.insert(FACTS_KEY.to_owned(), SourceFacts::of(table).to_json()?);
        create.properties.insert(PIPELINE_KEY.to_owned(), lake.pipeline_id.clone());
        let position = (POSITION_KEY.to_owned(), consistent_point.to_string());
        let delta = RowDelta {
            segments: vec![files],
            summary: HashMap::from([position]),
            ..RowDelta::default()
        };
        let ident = table_ident(&table.relation.namespace, &table.relation.name);
        changes.push(TableChange { ident, create: Some(create), delta });
    }
    lake.committer.commit(&LakeCommit { ledger, base: None, changes }).await
}

/// All pieces of a table are one segment: they have no order among them.
fn together(pieces: Vec<SegmentFiles>) -> SegmentFiles {
    pieces.into_iter().fold(SegmentFiles::default(), |mut all, piece| {
        all.data.extend(piece.data);
        all.rows_inserted += piece.rows_inserted;
        all.has_raw |= piece.has_raw;
        all
    })
}
