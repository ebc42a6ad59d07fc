//! The command line: one file a verb, and what they share: where the source and the lake are.

mod check;
mod check_lake;
mod ddl_capture;
mod demo;

mod drop;
mod lake;
mod patience;
mod report;
mod resync;
mod run;
mod source_holds;
mod sql_hint;
mod status;
mod verify;
mod wait;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use secrecy::ExposeSecret;

use crate::config::{Config, LakeSettings, RawConfig, Scalar};
use crate::error::{Error, Result};
use crate::iceberg::lake::{Lake, LakePlace};
use crate::ops::logging::{self, LogFormat};
use crate::postgres::dsn::Source;
use crate::postgres::sql::connect_sql;

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
    /// Compare source and lake, row by row, at one exact position.
    Verify(verify::Verify),
    /// Show the lake's history: branches, tags, log, states by LSN or time.
    Lake(lake::LakeVerb),
    /// Show how to read the lake with Trino, Spark, DuckDB, PyIceberg and Dremio.
    SqlHint(sql_hint::SqlHint),
    /// Copy tables afresh while the stream runs.
    Resync(resync::Resync),
    /// Let the source say in the stream what Postgres itself does not: rewrites, partitions, ...
    InstallDdlCapture(ddl_capture::CaptureVerb),
    /// Undo install-ddl-capture.
    UninstallDdlCapture(ddl_capture::CaptureVerb),
    /// Drop the slot and the publications; the lake stays.
    Drop(drop::DropSource),
    /// Show it on a private Postgres with a shop under load.
    Demo(demo::Demo),
}

/// Where the lake is: the same arguments for every verb.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LakeArgs {
    /// The lake's folder
    #[arg(long, global = true, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// The catalog, in place of a folder: nessie+http://host:19120/iceberg, rest+https://host/,
    /// postgres://user@host/db
    #[arg(long, global = true, value_name = "URL", conflicts_with = "into")]
    catalog: Option<String>,
    /// The branch to write to (Nessie) [default: the catalog's own]
    #[arg(long = "ref", global = true, value_name = "BRANCH")]
    reference: Option<String>,
    /// The catalog's warehouse; with postgres:// where files go: s3://bucket/path, or a folder
    #[arg(long, global = true, value_name = "WAREHOUSE")]
    warehouse: Option<String>,
    /// A configuration file (YAML)
    #[arg(long, short, global = true, value_name = "FILE", env = "FRAZIL_CONFIG")]
    config: Option<PathBuf>,
    /// The replication slot, which also names the pipeline [default: frazil]
    #[arg(long, global = true, value_name = "NAME")]
    slot: Option<String>,
}

/// Where the source and the lake are. Flags decide over `FRAZIL_SECTION__KEY` in the environment,
/// that over the file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// The database: postgres://user@host/db (default: `DATABASE_URL`)
    #[arg(value_name = "DSN")]
    dsn: Option<String>,
    #[command(flatten)]
    lake: LakeArgs,
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
        let is_set = |value: &Option<Scalar>| value.as_ref().is_some_and(|v| !v.0.is_empty());
        let has_lake = is_set(&raw.lake.into) || is_set(&raw.catalog.url);
        if !has_lake {
            raw.lake.into = Some(Scalar(".".to_owned()));
        }
        Ok((Config::resolve(raw)?, has_lake))
    }

    fn raw(&self, more: RawConfig) -> Result<RawConfig> {
        let mut flags = more;
        let scalar = |text: &String| Scalar(text.clone());
        flags.source.url = self.dsn.as_ref().map(scalar);
        flags.source.publication = self.publication.as_ref().map(scalar);
        flags.source.tables = self.tables.as_ref().map(scalar);
        self.lake.raw(flags)
    }
}

impl LakeArgs {
    /// The settings where no source is needed.
    pub(crate) fn resolve(&self) -> Result<Config> {
        let mut raw = self.raw(RawConfig::default())?;
        raw.source.url.get_or_insert_with(|| Scalar(String::new()));
        Config::resolve(raw)
    }

    /// The lake, which must be there.
    pub(crate) async fn open(&self) -> Result<Arc<Lake>> {
        let config = self.resolve()?;
        existing_lake(&config).await?.ok_or_else(|| no_lake(&config))
    }

    fn raw(&self, mut flags: RawConfig) -> Result<RawConfig> {
        let file = match &self.config {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig::default(),
        };
        let scalar = |text: &String| Scalar(text.clone());
        flags.source.slot = self.slot.as_ref().map(scalar);
        flags.lake.into = self.into.as_ref().map(|path| Scalar(path.display().to_string()));
        flags.catalog.url = self.catalog.as_ref().map(scalar);
        flags.catalog.r#ref = self.reference.as_ref().map(scalar);
        flags.catalog.warehouse = self.warehouse.as_ref().map(scalar);
        // A lake that was named by a flag is the one that is meant, whatever stands below.
        let nothing = || Some(Scalar(String::new()));
        if flags.lake.into.is_some() {
            flags.catalog.url = nothing();
        } else if flags.catalog.url.is_some() {
            flags.lake.into = nothing();
        }
        flags.over(RawConfig::from_environment(std::env::vars())?.over(file)?)
    }
}

/// What to say where there is no lake.
pub(crate) fn no_lake(config: &Config) -> Error {
    Error::config("NO_LAKE", format!("there is no lake in {}", config.lake))
        .with_cure("is --into or --catalog right? `frazil run` makes the lake")
}

/// The source of `config`.
pub(crate) fn source(config: &Config) -> Result<Source> {
    Source::parse(config.source.expose_secret())
}

/// The lake of `config`; it is made where it is missing.
pub(crate) async fn lake(config: &Config) -> Result<Arc<Lake>> {
    Lake::open(place(config)?, &config.settings.slot).await.map(Arc::new)
}

/// The lake of `config`, if there is one: looking makes nothing.
pub(crate) async fn existing_lake(config: &Config) -> Result<Option<Arc<Lake>>> {
    Ok(Lake::existing(place(config)?, &config.settings.slot).await?.map(Arc::new))
}

/// Where the lake of `config` is.
fn place(config: &Config) -> Result<LakePlace> {
    Ok(match config.lake.clone() {
        LakeSettings::Folder(folder) => LakePlace::Folder(folder),
        LakeSettings::Rest(catalog, storage) => LakePlace::Rest(catalog, storage),
        LakeSettings::Postgres { dsn, warehouse, storage } => {
            let database = Arc::new(Source::parse(dsn.expose_secret())?);
            let connect = move || -> futures::future::BoxFuture<'static, Result<_>> {
                let database = Arc::clone(&database);
                Box::pin(async move { connect_sql(&database, "catalog").await })
            };
            LakePlace::Postgres(Arc::new(connect), warehouse, storage)
        }
    })
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
        Verb::Verify(verify) => Box::pin(verify.run(on_terminal)).await,
        Verb::Lake(lake) => lake.run().await,
        Verb::SqlHint(hint) => hint.run().await,
        Verb::Resync(resync) => resync.run().await,
        Verb::InstallDdlCapture(verb) => verb.install().await,
        Verb::UninstallDdlCapture(verb) => verb.uninstall().await,
        Verb::Drop(drop) => drop.run().await,
        Verb::Demo(demo) => Box::pin(demo.run(on_terminal)).await,
    }
}
