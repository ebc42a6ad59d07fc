//! Logs: `tracing` to stderr, as text or JSON lines; no escape codes but on a terminal.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// A line a person reads.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `RUST_LOG` decides over `level`.
pub fn init(format: LogFormat, level: &str) -> Result<()> {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(format!("warn,frazil={level}")))
        .map_err(|e| Error::config("LOG_FILTER", "the log filter is not valid").with_source(e))?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(super::view::log_writer)
        .with_target(false)
        .with_ansi(colour);
    let started = match format {
        LogFormat::Text => base.try_init(),
        LogFormat::Json => base.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| Error::fatal("LOGGING", "cannot start logging").with_source(e))
}
