//! The command line: one file a verb, and what they share: where the source and the lake are.

mod check;
mod demo;

mod drop;
mod report;
mod run;
mod status;
mod wait;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use secrecy::ExposeSecret;

use crate::config::{Config, RawConfig, Scalar};
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::ops::logging::{self, LogFormat};
use crate::postgres::dsn::Source;

/// Postgres into a transactionally consistent Iceberg lakehouse.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// How log lines look (they go to stderr).
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    /// error, warn, info, debug or trace; RUST_LOG decides over it.
    #[arg(long, global = true, default_value = "info")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Copy the tables once, then follow the stream until stopped.
    Run(run::Run),
    /// Say what would stop a run, and what mends it.
    Check(check::Check),
    /// Show where the lake stands: position, lag, tables, last lake commits.
    Status(status::Status),
    /// Return once the lake holds a position.
    Wait(wait::Wait),
    /// Drop the slot and the publications; the lake stays.
    Drop(drop::DropSource),
    /// Show it on a private Postgres with a shop under load.
    Demo(demo::Demo),
}

/// Where the source and the lake are: the same arguments for every verb. Flags decide over
/// `FRAZIL_SECTION__KEY` in the environment, that over the file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// The database: postgres://user@host/db (default: `DATABASE_URL`)
    #[arg(value_name = "DSN")]
    dsn: Option<String>,
    /// The lake's folder
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// A configuration file (YAML)
    #[arg(long, short, value_name = "FILE", env = "FRAZIL_CONFIG")]
    config: Option<PathBuf>,
    /// The replication slot, which also names the pipeline [default: frazil]
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
    /// The publication [default: frazil]
    #[arg(long, value_name = "NAME")]
    publication: Option<String>,
    /// Which tables: 'public.*,!public.audit_*' [default: all that can be replicated]
    #[arg(long, value_name = "PATTERNS")]
    tables: Option<String>,
}

impl Place {
    /// The settings, with `more` from the verb's own flags.
    pub(crate) fn resolve(&self, more: RawConfig) -> Result<Config> {
        Config::resolve(self.raw(more)?)
    }

    /// The settings where only the source is needed, and whether a lake was named.
    pub(crate) fn resolve_source(&self) -> Result<(Config, bool)> {
        let mut raw = self.raw(RawConfig::default())?;
        let has_lake = raw.lake.into.is_some();
        raw.lake.into.get_or_insert_with(|| Scalar(String::new()));
        Ok((Config::resolve(raw)?, has_lake))
    }

    fn raw(&self, more: RawConfig) -> Result<RawConfig> {
        let file = match &self.config {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig::default(),
        };
        let mut flags = more;
        let scalar = |text: &String| Scalar(text.clone());
        flags.source.url = self.dsn.as_ref().map(scalar);
        flags.source.slot = self.slot.as_ref().map(scalar);
        flags.source.publication = self.publication.as_ref().map(scalar);
        flags.source.tables = self.tables.as_ref().map(scalar);
        flags.lake.into = self.into.as_ref().map(|path| Scalar(path.display().to_string()));
        flags.over(RawConfig::from_environment(std::env::vars())?.over(file)?)
    }
}

/// The source of `config`.
pub(crate) fn source(config: &Config) -> Result<Source> {
    Source::parse(config.source.expose_secret())
}

/// The lake of `config`; it is made where it is missing.
pub(crate) async fn lake(config: &Config) -> Result<Arc<Lake>> {
    Lake::open(&config.into, &config.settings.slot).await.map(Arc::new)
}

/// The lake of `config`, if there is one: looking makes nothing.
pub(crate) async fn existing_lake(config: &Config) -> Result<Option<Arc<Lake>>> {
    match config.into.join("catalog.db").exists() {
        true => lake(config).await.map(Some),
        false => Ok(None),
    }
}

/// Reads the arguments, runs the verb, and says what went wrong, once.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::ops::arm_crash_points();
    let format = cli.log_format;
    let outcome = logging::init(format, &cli.log_level).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime
            .map_err(|e| Error::fatal("RUNTIME", "cannot start the runtime").with_source(e))?;
        let outcome = runtime.block_on(verb(cli.verb, format));
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        report::report(&error, format);
        ExitCode::from(error.exit_code())
    })
}

async fn verb(verb: Verb, format: LogFormat) -> Result<ExitCode> {
    // A live view would tear JSON lines.
    let on_terminal = format == LogFormat::Text && std::io::stderr().is_terminal();
    match verb {
        Verb::Run(run) => run.run(on_terminal).await,
        Verb::Check(check) => check.run().await,
        Verb::Status(status) => status.run().await,
        Verb::Wait(wait) => wait.run().await,
        Verb::Drop(drop) => drop.run().await,
        Verb::Demo(demo) => Box::pin(demo.run(on_terminal)).await,
    }
}
