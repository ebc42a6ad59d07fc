//! Tables copied while the stream runs: new ones, and those that the lake can't be made to follow.
//!
//! A temporary slot exports a snapshot that holds exactly the source transactions with a commit_lsn
//! below its consistent point L. The catalog is read inside that snapshot, so that shape and rows
//! are of one moment; the stream gives the rest from L on.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::TableIdent;
use tokio_postgres::Client;

use crate::config::{InitialSnapshot, Settings};
use crate::error::{Error, Result};
use crate::iceberg::committer::NewTable;
use crate::iceberg::lake::Lake;
use crate::iceberg::row_delta::SegmentFiles;
use crate::iceberg::schema::{GoOn, assign_versions};
use crate::iceberg::table_ident;
use crate::ops::{Shutdown, Stats};
use crate::pipeline::{ParquetTarget, refuse_text};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::dsn::Source;
use crate::postgres::server_error::from_sql;
use crate::postgres::session::Session;
use crate::postgres::sql::connect_sql;
use crate::progress::Lsn;

use super::resume::Kept;
use super::slot::export_temporary;
use super::workers::{Copying, import_snapshot};
use super::{ATTEMPTS, copy_tables};

/// What the copy needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) source: Source,
    pub(crate) lake: Arc<Lake>,
    pub(crate) settings: Settings,
    pub(crate) publications: Vec<String>,
    /// The stream sends binary values.
    pub(crate) is_binary: bool,
    pub(crate) shutdown: Shutdown,
    pub(crate) stats: Arc<Stats>,
}

/// Tables as they were at one LSN.
#[derive(Debug)]
pub(crate) struct Afresh {
    /// L: source transactions with a smaller commit_lsn are in the copies, and no others.
    pub(crate) consistent_point: Lsn,
    pub(crate) tables: Vec<Fresh>,
    /// Wanted, but no longer published.
    pub(crate) gone: Vec<u32>,
}

/// One table that was copied.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) table: SourceTable,
    pub(crate) target: Arc<ParquetTarget>,
    pub(crate) files: SegmentFiles,
    /// How its lake table goes on; `None` where it is born.
    pub(crate) go_on: Option<GoOn>,
    /// The source table that had this place in the lake before.
    pub(crate) instead_of: Option<u32>,
}

/// Copies the tables `wanted`. `bound`: which source table each lake table belongs to.
pub(crate) async fn copy(
    context: &Context,
    wanted: &[u32],
    bound: &HashMap<TableIdent, u32>,
) -> Result<Afresh> {
    for _ in 0..ATTEMPTS {
        let mut session = Session::connect(&context.source, "refresh").await?;
        let looks_on = connect_sql(&context.source, "refresh").await?;
        let (settings, shutdown) = (&context.settings, &context.shutdown);
        let created = export_temporary(&looks_on, &mut session, settings, shutdown).await?;
        drop(looks_on);
        let snapshot = created.snapshot_name.as_deref().unwrap_or_default();
        let client = import_snapshot(&context.source, snapshot).await?;
        let publications = &context.publications;
        let tables =
            catalog::load_relations(&client, publications, Some(wanted), &settings.types).await?;
        let gone = wanted.iter().filter(|oid| tables.iter().all(|t| t.relation.oid != **oid));
        let gone = gone.copied().collect();
        let mut places = Vec::with_capacity(tables.len());
        for table in tables {
            places.push(place(context, &client, table, bound).await?);
        }
        drop(client);
        let by = (snapshot, session.backend_pid());
        if let Some(tables) = fill(context, by, places).await? {
            crate::ops::crash_point("refresh_copied");
            return Ok(Afresh { consistent_point: created.consistent_point, tables, gone });
        }
    }
    Err(Error::transient(
        "TABLES_REWRITTEN",
        "tables were rewritten during every attempt to copy them",
    )
    .with_cure("wait until VACUUM FULL, CLUSTER, TRUNCATE or ALTER TABLE are done"))
}

/// Where the table goes in the lake, and in what shape.
async fn place(
    context: &Context,
    client: &Client,
    mut table: SourceTable,
    bound: &HashMap<TableIdent, u32>,
) -> Result<Fresh> {
    context.settings.choose_key(&mut table.relation);
    if context.is_binary {
        refuse_text(&table.relation, table.relation.columns.iter())?;
    }
    let oid = table.relation.oid;
    let default = table_ident(&table.relation.namespace, &table.relation.name);
    let own = bound.iter().find(|(_, bound)| **bound == oid).map(|(ident, _)| ident.clone());
    let (ident, instead_of) = match (own, bound.get(&default)) {
        (Some(own), _) => (own, None),
        (None, None) => (default, None),
        (None, Some(&other)) if is_alive(client, other).await? => {
            let name = format!("{}__{oid}", table.relation.name);
            (table_ident(&table.relation.namespace, &name), None)
        }
        (None, Some(&other)) => (default, Some(other)),
    };
    let lake = &context.lake;
    let standing = lake.committer.table(&ident).await?;
    let go_on = match (bound.contains_key(&ident), instead_of) {
        (false, _) => None,
        (true, None) => Some(GoOn::Replace),
        (true, Some(_)) => Some(GoOn::TakeOver),
    };
    let location = match (go_on, standing) {
        (Some(go_on), Some(standing)) => {
            let metadata = standing.metadata();
            assign_versions(metadata.current_schema(), &mut table.relation, go_on);
            metadata.location().to_owned()
        }
        _ => {
            let new = NewTable::for_relation(&table.relation, false)?;
            lake.committer.birthplace(&ident, &new).await?.location
        }
    };
    let relation = Arc::new(table.relation.clone());
    let target = Arc::new(ParquetTarget::new(location, ident, relation)?);
    Ok(Fresh { table, target, files: SegmentFiles::default(), go_on, instead_of })
}

/// Whether the source still has this table, published or not.
async fn is_alive(client: &Client, oid: u32) -> Result<bool> {
    let sql = "SELECT 1 FROM pg_catalog.pg_class WHERE oid = $1";
    Ok(client.query_opt(sql, &[&oid]).await.map_err(from_sql)?.is_some())
}

/// Copies the rows. `None` where a table was rewritten since the snapshot.
async fn fill(
    context: &Context,
    (snapshot, exporter): (&str, i32),
    mut places: Vec<Fresh>,
) -> Result<Option<Vec<Fresh>>> {
    let never = context.settings.initial_snapshot == InitialSnapshot::Never;
    let is_copied = |fresh: &Fresh| fresh.go_on.is_some() || !never;
    let copied = places.iter().filter(|fresh| is_copied(fresh));
    let tables: Vec<SourceTable> = copied.clone().map(|fresh| fresh.table.clone()).collect();
    let targets: Vec<_> = copied.map(|fresh| Arc::clone(&fresh.target)).collect();
    if tables.is_empty() {
        return Ok(Some(places));
    }
    let copying = Copying {
        source: &context.source,
        snapshot,
        exporter,
        lake: &context.lake,
        tables: &tables,
        targets: &targets,
        settings: &context.settings,
        stats: &context.stats,
    };
    let copied = Box::pin(copy_tables(&copying, Kept::default(), None)).await?;
    let Some(segments) = copied else { return Ok(None) };
    let mut segments = segments.into_iter();
    for fresh in places.iter_mut().filter(|fresh| is_copied(fresh)) {
        fresh.files = segments.next().and_then(|mut one| one.pop()).unwrap_or_default();
    }
    Ok(Some(places))
}
