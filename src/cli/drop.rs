//! `frazil drop`: slot and publications go, after a question. The lake is never touched.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use tokio_postgres::Client;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::postgres::publication::{drop_publication, publication_info};
use crate::postgres::server_error::from_sql;
use crate::postgres::slot::slot_info;
use crate::postgres::sql::connect_sql;

use super::Place;
use super::check::publications;
use super::report::print;

/// `frazil drop`
#[derive(Debug, Args)]
pub(crate) struct DropSource {
    #[command(flatten)]
    place: Place,
    /// Drop without asking
    #[arg(long, short)]
    yes: bool,
    /// Only show what would be dropped
    #[arg(long)]
    dry_run: bool,
}

/// What is there to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    slot: Option<String>,
    publications: Vec<String>,
}

impl DropSource {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let (config, _) = self.place.resolve_source()?;
        let client = connect_sql(&super::source(&config)?, "drop").await?;
        let found = find(&client, &config).await?;
        let statements = found.lines();
        if statements.is_empty() {
            print(&format!(
                "nothing to drop: there is no slot `{}` and no publication `{}`",
                config.settings.slot, config.settings.publication
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        print(&format!("to drop:\n  {}\nthe lake stays as it is", statements.join("\n  ")))?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !self.yes && !agreed().await? {
            print("nothing was dropped")?;
            return Ok(ExitCode::FAILURE);
        }
        found.drop(&client).await?;
        print("dropped")?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn find(client: &Client, config: &Config) -> Result<Found> {
    let name = &config.settings.slot;
    let slot = slot_info(client, name).await?;
    if let Some(pid) = slot.as_ref().and_then(|slot| slot.active_pid) {
        return Err(Error::config(
            "SLOT_ACTIVE",
            format!("slot `{name}` is being read by process {pid}: nothing was dropped"),
        )
        .with_cure("stop the frazil that reads it first"));
    }
    let mut there = Vec::new();
    for publication in publications(&config.settings) {
        if publication_info(client, &publication).await?.is_some() {
            there.push(publication);
        }
    }
    Ok(Found { slot: slot.map(|_| name.clone()), publications: there })
}

impl Found {
    fn lines(&self) -> Vec<String> {
        let slot = self.slot.iter().map(|name| format!("replication slot `{name}`"));
        slot.chain(self.publications.iter().map(|name| format!("publication `{name}`"))).collect()
    }

    async fn drop(&self, client: &Client) -> Result<()> {
        if let Some(slot) = &self.slot {
            let sql = "SELECT pg_catalog.pg_drop_replication_slot($1::text::name)";
            client.execute(sql, &[slot]).await.map_err(from_sql)?;
        }
        for publication in &self.publications {
            drop_publication(client, publication).await?;
        }
        Ok(())
    }
}

/// Asks; without a terminal nobody can answer, so `--yes` must have.
async fn agreed() -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Error::config("NOT_CONFIRMED", "nobody is there to ask: nothing was dropped")
            .with_cure("say --yes, or look first with --dry-run"));
    }
    let answer = tokio::task::spawn_blocking(|| {
        io::stderr().write_all(b"drop them? a later run would copy all tables again [y/N] ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(io::Error::other).and_then(|answer| answer);
    let answer =
        answer.map_err(|e| Error::fatal("STDIN", "cannot read the answer").with_source(e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_goes_is_named() {
        let found = Found { slot: Some("s".to_owned()), publications: vec!["p".to_owned()] };
        assert_eq!(found.lines(), ["replication slot `s`", "publication `p`"]);
        assert!(Found { slot: None, publications: Vec::new() }.lines().is_empty());
    }
}
