//! `frazil wait`: returns once the lake holds a position, so that a test can write to Postgres and
//! then read the lake.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use crate::config::{Config, RawConfig};
use crate::error::{Error, Kind, Result};
use crate::iceberg::lake::Lake;
use crate::pipeline::MESSAGE_PREFIX;
use crate::postgres::dsn::Source;
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_sql;
use crate::progress::Lsn;

use super::Place;
use super::report::print;

/// How often the ledger is read.
const POLL_EVERY: Duration = Duration::from_millis(75);

/// `frazil wait`
#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    target: Target,
    /// How long to wait before giving up with exit status 75
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The position to wait for, for instance from pg_current_wal_lsn()
    #[arg(long, value_name = "LSN")]
    lsn: Option<Lsn>,
    /// Wait for everything that is committed now
    #[arg(long)]
    now: bool,
}

impl Wait {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let config = self.place.resolve(RawConfig::default())?;
        let target = match self.target.lsn {
            Some(lsn) => lsn,
            None => mark(&super::source(&config)?).await?,
        };
        let position = until(&config, target, self.timeout).await?;
        print(&position.to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Commits a logical message of ours at the source; gives the lowest P that proves it is in the
/// lake. The message lies before the end of its transaction, and P is such an end.
pub(crate) async fn mark(source: &Source) -> Result<Lsn> {
    emit(source, MESSAGE_PREFIX, &Uuid::new_v4().to_string()).await
}

/// As [`mark`], with a message that says something.
pub(crate) async fn emit(source: &Source, prefix: &str, text: &str) -> Result<Lsn> {
    let client = connect_sql(source, "wait").await?;
    let emit = "SELECT pg_catalog.pg_logical_emit_message(true, $1::text, $2::text)::text";
    let row = client.query_one(emit, &[&prefix, &text]).await.map_err(from_sql)?;
    let lsn: &str = row.try_get(0).map_err(|e| {
        Error::fatal("PROTOCOL", "pg_logical_emit_message() gave no LSN").with_source(e)
    })?;
    let Lsn(lsn) = lsn.parse()?;
    Ok(Lsn(lsn.saturating_add(1)))
}

/// Waits until P is `target` or later; gives P. `TIMEOUT` says how far it got.
pub(crate) async fn until(config: &Config, target: Lsn, timeout: Duration) -> Result<Lsn> {
    let mut last = None;
    let reached = tokio::time::timeout(timeout, poll(config, target, &mut last)).await;
    reached.unwrap_or_else(|_| {
        let stands = match last {
            Some(position) => format!("the lake stands at {position}"),
            None => format!("there is no lake in {} yet", config.lake),
        };
        let waited = humantime::format_duration(timeout);
        Err(Error::transient("TIMEOUT", format!("{stands}, not at {target}, after {waited}"))
            .with_cure(
                "is `frazil run` running, with the same --into and --slot? see: frazil status",
            ))
    })
}

async fn poll(config: &Config, target: Lsn, last: &mut Option<Lsn>) -> Result<Lsn> {
    let mut lake: Option<Arc<Lake>> = None;
    loop {
        match position(config, &mut lake).await {
            Ok(Some(position)) if position >= target => return Ok(position),
            Ok(position) => *last = position.or(*last),
            // The run that writes it is in the way for a moment.
            Err(error) if error.kind() == Kind::Transient => {
                tracing::debug!(%error, "the ledger cannot be read right now");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn position(config: &Config, lake: &mut Option<Arc<Lake>>) -> Result<Option<Lsn>> {
    if lake.is_none() {
        *lake = super::existing_lake(config).await?;
    }
    let Some(lake) = lake else { return Ok(None) };
    Ok(lake.committer.position().await?.map(|ledger| ledger.committed_lsn))
}
