//! `frazil resync`: copies tables afresh while the stream runs. The wish goes through the WAL, so
//! that it is neither lost in a restart nor out of order.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::config::{Patterns, RawConfig};
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::pipeline::ResyncWish;
use crate::progress::Lsn;

use super::report::print;
use super::{Place, no_lake, wait};

/// How often the ledger is read.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// `frazil resync`
#[derive(Debug, Args)]
pub(crate) struct Resync {
    /// Give `--tables` to say which; '*' for all
    #[command(flatten)]
    place: Place,
    /// Return at once: a running frazil, or the next one, takes note
    #[arg(long)]
    no_wait: bool,
    /// How long to wait before giving up with exit status 75; the copy goes on
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Resync {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let Some(tables) = self.place.tables.clone() else {
            return Err(Error::config("MISSING_SETTING", "which tables?")
                .with_cure("name them: --tables 'public.orders,app.*'; all: --tables '*'"));
        };
        let config = self.place.resolve(RawConfig::default())?;
        let wish = ResyncWish { slot: config.settings.slot.clone(), tables };
        let lsn = wait::emit(&super::source(&config)?, ResyncWish::PREFIX, &wish.to_json()).await?;
        if self.no_wait {
            print(&lsn.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        wait::until(&config, lsn, self.timeout).await?;
        let lake = super::existing_lake(&config).await?.ok_or_else(|| no_lake(&config))?;
        let copied = all_copied(&lake, &config.settings.tables);
        let position = tokio::time::timeout(self.timeout, copied).await.map_err(|_| {
            Error::transient("TIMEOUT", "the tables are still being copied")
                .with_cure("see how far it is: frazil status")
        })?;
        print(&position?.to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until none of the tables is behind; gives P.
async fn all_copied(lake: &Lake, tables: &Patterns) -> Result<Lsn> {
    loop {
        if let Some(record) = lake.committer.position().await? {
            let mut names = record.behind.values().filter_map(|b| b.table.split_once('.'));
            if !names.any(|(schema, table)| tables.selects(schema, table)) {
                return Ok(record.committed_lsn);
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
