//! What a person is shown: errors on standard error, results on standard output.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent};

use crate::error::{Error, Result};
use crate::ops::logging::LogFormat;
use crate::ops::view;

/// Tables are at most this wide.
const TABLE_COLUMNS: u16 = 120;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Prints `text` and a line end. Who closes the pipe has seen enough: that is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match view::print(&format!("{text}\n")) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::fatal("STDOUT", "cannot write to standard output").with_source(e))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as a JSON document.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value:#}"))
}

/// An empty table with this header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(header);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(TABLE_COLUMNS);
    // A line between any two rows would double the height.
    table.remove_style(TableComponent::HorizontalLines);
    table.remove_style(TableComponent::MiddleIntersections);
    table
}

/// A cell for a number.
pub(crate) fn number(shown: impl ToString) -> Cell {
    Cell::new(shown).set_alignment(CellAlignment::Right)
}

/// Says what went wrong, once.
pub(crate) fn report(error: &Error, format: LogFormat) {
    match format {
        LogFormat::Json => {
            tracing::error!(code = error.code(), cure = cure(error), "{error}");
        }
        LogFormat::Text => {
            let stderr = io::stderr();
            let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            // Nobody is left to tell when standard error is closed.
            let _ = stderr.lock().write_all(lines(error, colour).as_bytes());
        }
    }
}

/// The lines for people.
fn lines(error: &Error, colour: bool) -> String {
    let (red, plain) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let full = error.to_string();
    let mut shown = full.as_str();
    let source = std::error::Error::source(error);
    if let Some(source) = source {
        shown = shown.strip_suffix(&format!(": {source}")).unwrap_or(shown);
    }
    let message = shown.strip_prefix(error.code()).and_then(|m| m.strip_prefix(": "));
    let message = message.unwrap_or(shown);
    let mut text = format!("{red}error[{}]{plain}: {message}\n", error.code());
    let mut said = message.to_owned();
    let mut next = source;
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many errors repeat the one underneath; others only say that there is one.
        let bare = ["ERROR: ", "FATAL: "].iter().find_map(|p| cause_text.strip_prefix(p));
        if !said.contains(bare.unwrap_or(&cause_text)) && cause_text != "db error" {
            text.push_str(&format!("  cause: {cause_text}\n"));
            said = cause_text;
        }
        next = cause.source();
    }
    if let Some(cure) = cure(error) {
        text.push_str(&format!("  cure: {cure}\n"));
    }
    text
}

/// The error's cure, or the one of all errors with its code.
fn cure(error: &Error) -> Option<&str> {
    error.cure().or_else(|| match error.code() {
        "CONNECTION" => Some(
            "is Postgres running there, and are host and port of the DSN right? try it with: psql DSN",
        ),
        "UNAVAILABLE" => Some("the server is busy, starting or stopping: try again"),
        "BAD_DSN" => Some("write it as postgres://user@host:5432/database"),
        "BAD_SETTING" => Some("see `frazil run --help`"),
        "CONFIG_FILE" => Some("is the path of --config right, and may this user read it?"),
        "LOG_FILTER" => Some("use error, warn, info, debug or trace"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Lsn;

    #[test]
    fn an_error_reads_as_code_message_place_cause_and_cure() {
        let error = Error::fatal("LAKE_IO", "could not write")
            .with_table("public.a")
            .with_lsn(Lsn(255))
            .with_source(io::Error::other("disk is full"))
            .with_cure("make room");
        assert_eq!(
            lines(&error, false),
            "error[LAKE_IO]: could not write [table public.a] [LSN 0/FF]\n  cause: disk is full\n  \
             cure: make room\n"
        );
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let inner = Error::config("INNER", "no room");
        let error = Error::fatal("OUTER", "INNER: no room").with_source(inner);
        assert_eq!(lines(&error, false), "error[OUTER]: INNER: no room\n");
        let error = Error::config("AUTH", "Postgres says 28000: no such role")
            .with_source(io::Error::other("FATAL: no such role"));
        assert_eq!(lines(&error, false), "error[AUTH]: Postgres says 28000: no such role\n");
    }

    #[test]
    fn colour_is_only_for_terminals() {
        let error = Error::transient("CONNECTION", "refused");
        assert!(lines(&error, true).starts_with("\x1b[1;31merror[CONNECTION]\x1b[0m: refused"));
        assert!(!lines(&error, false).contains('\x1b'));
        assert!(lines(&error, false).contains("  cure: is Postgres running"));
    }
}
