//! `frazil run`: the initial snapshot where the lake has none, then the stream, again and again
//! from where the lake stands, until stopped.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::{Config, InitialSnapshot, RawConfig, Scalar};
use crate::error::{Error, Kind, Result};
use crate::iceberg::lake::Lake;
use crate::ops::view::Live;
use crate::ops::{Shutdown, Stats};
use crate::postgres::dsn::Source;
use crate::postgres::hosts;
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_sql;
use crate::progress::Lsn;
use crate::publish::Publisher;
use crate::{initial_snapshot, pipeline};

use super::Place;
use super::patience::{Patience, RETRY};

/// How long an asynchronous commit may wait for its flush: three times the default
/// `wal_writer_delay`, and some.
const ASYNC_COMMIT: Duration = Duration::from_secs(1);
/// Temporary trouble of the lake's side.
const OF_THE_LAKE: [&str; 6] =
    ["LAKE_IO", "COMMIT_OPEN", "CATALOG_DOWN", "CATALOG_AUTH", "CATALOG_BUSY", "CATALOG_IO"];

/// `frazil run`
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Copy the tables first (initial), copy nothing (never), or copy and stop (only)
    #[arg(long, value_enum)]
    pub(crate) initial_snapshot: Option<InitialSnapshot>,
    /// The longest a complete source transaction waits for its lake commit [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) commit_interval: Option<String>,
    /// Exit 0 once the lake holds all that was committed when this started
    #[arg(long)]
    pub(crate) until_caught_up: bool,
}

impl Run {
    pub(crate) async fn run(self, on_terminal: bool) -> Result<ExitCode> {
        let config = self.config()?;
        let shutdown = Shutdown::on_signals()?;
        let stats = Arc::new(Stats::default());
        let _live = Live::start(Arc::clone(&stats), on_terminal);
        follow(&config, self.until_caught_up, &shutdown, &stats).await?;
        let position = stats.view().committed_lsn;
        tracing::info!(%position, "stopped: the lake holds all before this");
        Ok(ExitCode::SUCCESS)
    }

    /// The settings of this run.
    pub(crate) fn config(&self) -> Result<Config> {
        let mut flags = RawConfig::default();
        flags.commit.interval = self.commit_interval.clone().map(Scalar);
        flags.initial_snapshot.mode = self.initial_snapshot.map(|mode| {
            let name = match mode {
                InitialSnapshot::Initial => "initial",
                InitialSnapshot::Never => "never",
                InitialSnapshot::Only => "only",
            };
            Scalar(name.to_owned())
        });
        self.place.resolve(flags)
    }
}

/// Runs until stopped (or caught up): a temporary trouble is tried again from where the lake
/// stands.
pub(crate) async fn follow(
    config: &Config,
    until_caught_up: bool,
    shutdown: &Shutdown,
    stats: &Arc<Stats>,
) -> Result<()> {
    let mut config = config.clone();
    let source = super::source(&config)?;
    let mut open = Open::default();
    let ends = until_caught_up || config.settings.initial_snapshot == InitialSnapshot::Only;
    let mut until = None;
    let mut patience = Patience::new(ends);
    loop {
        let before = stats.view().lake_commits;
        let error = match once(
            (&source, &mut open),
            &config,
            (until_caught_up, &mut until),
            (shutdown, stats),
        )
        .await
        {
            Ok(()) => return open.publish_last(ends).await,
            Err(error) if shutdown.is_requested() => return left_with(error),
            Err(error) => error,
        };
        if stats.view().lake_commits > before {
            patience.renew();
        }
        // The table is copied afresh with a key that can hold it.
        if error.code() == "KEY_VALUE"
            && error.table_name().is_some_and(|table| config.settings.hide_key_of(table))
        {
            tracing::warn!(code = error.code(), "{error}: its rows get the hidden key _pg_key");
            continue;
        }
        let (pause, error) = patience.after(error)?;
        tracing::warn!(code = error.code(), cure = error.cure(), retry_in = ?pause, "{error}");
        tokio::select! {
            biased;
            // A stop need not wait.
            () = shutdown.requested() => return Ok(()),
            // Time is up.
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The lake, once it could be opened, and who publishes what it holds.
#[derive(Default)]
struct Open {
    lake: Option<Arc<Lake>>,
    publisher: Option<(Arc<Publisher>, JoinHandle<()>)>,
}

impl Open {
    async fn lake(&mut self, config: &Config, shutdown: &Shutdown) -> Result<Arc<Lake>> {
        if let Some(lake) = &self.lake {
            return Ok(Arc::clone(lake));
        }
        let lake = super::lake(config).await?;
        if let Some(publisher) = Publisher::new(&lake, config)?.map(Arc::new) {
            let running = publisher.start(shutdown);
            self.publisher = Some((publisher, running));
        }
        self.lake = Some(Arc::clone(&lake));
        Ok(lake)
    }

    /// What the lake holds at the end. A run that ends by itself fails if it is not published.
    async fn publish_last(&self, ends: bool) -> Result<()> {
        let Some((publisher, running)) = &self.publisher else { return Ok(()) };
        // Two that merge at the same time would be in each other's way.
        running.abort();
        match publisher.publish_last().await {
            Err(error) if !ends => {
                tracing::error!(code = error.code(), cure = error.cure(), "{error}");
                Ok(())
            }
            done => done,
        }
    }
}

/// A stop is clean although the source was in the way: nothing is lost, the next start goes on. One
/// whose lake commit failed, or was not begun because the catalog could not be asked, is not.
fn left_with(error: Error) -> Result<()> {
    if error.kind() != Kind::Transient || OF_THE_LAKE.contains(&error.code()) {
        return Err(error);
    }
    tracing::warn!(code = error.code(), "{error}");
    Ok(())
}

async fn once(
    (source, open): (&Source, &mut Open),
    config: &Config,
    (until_caught_up, until): (bool, &mut Option<Lsn>),
    ops: (&Shutdown, &Arc<Stats>),
) -> Result<()> {
    let source = &hosts::choose(source).await?;
    if until_caught_up && until.is_none() {
        *until = Some(server_lsn(source).await?);
    }
    let lake = open.lake(config, ops.0).await?;
    let lake = &lake;
    let settings = &config.settings;
    if lake.committer.position().await?.is_none() {
        let position = initial_snapshot::take(source, lake, settings, ops).await?;
        ops.1.committed(position, 0, 0);
        tracing::info!(%position, "the initial snapshot is in the lake");
    }
    if settings.initial_snapshot == InitialSnapshot::Only {
        return Ok(());
    }
    pipeline::follow(source, lake, settings, *until, ops).await
}

/// Where the source's WAL ends now, as far as source transactions are committed in it. The insert
/// position alone would not do: what an open transaction wrote may stay unflushed, and after a
/// switch of segments it stands behind a page header, so that the server takes 15 s and more to
/// report it as reached. An asynchronous commit is flushed within three `wal_writer_delay`.
pub(crate) async fn server_lsn(source: &Source) -> Result<Lsn> {
    let client = connect_sql(source, "position").await?;
    if is_in_recovery(&client).await? {
        return current_lsn(&client, "pg_last_wal_replay_lsn").await;
    }
    let inserted = current_lsn(&client, "pg_current_wal_insert_lsn").await?;
    let since = Instant::now();
    loop {
        let flushed = current_lsn(&client, "pg_current_wal_flush_lsn").await?;
        if flushed >= inserted || since.elapsed() >= ASYNC_COMMIT {
            return Ok(flushed.min(inserted));
        }
        tokio::time::sleep(RETRY.0).await;
    }
}

async fn is_in_recovery(client: &Client) -> Result<bool> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    Ok(client.query_one(sql, &[]).await.map_err(from_sql)?.get(0))
}

async fn current_lsn(client: &Client, function: &str) -> Result<Lsn> {
    let sql = format!("SELECT pg_catalog.{function}()::text");
    let row = client.query_one(&sql, &[]).await.map_err(from_sql)?;
    let text: &str = row
        .try_get(0)
        .map_err(|e| Error::fatal("PROTOCOL", format!("{function}() is no text")).with_source(e))?;
    text.parse()
}
