//! `frazil verify`: source and lake compared, row by row, at one exact position.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::Cell;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::config::RawConfig;
use crate::error::{Error, Result};
use crate::verify::report::{Report, TableReport};
use crate::verify::{Options, Reader, Sample, verify};

use super::Place;
use super::report::{Output, number, print, print_json, table};

/// How the bar looks: what is being done, and rows read on both sides together.
const BAR: &str = "{spinner} {msg}  {human_pos} rows, {per_sec}  {elapsed}";
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// `frazil verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    place: Place,
    /// Compare one part of the keys: 3/10 is the third of ten parts, the same every time
    #[arg(long, value_name = "K/N")]
    sample: Option<Sample>,
    /// How long the lake may take to hold what the source holds now
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How long the temporary slot may wait for source transactions that are writing
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = humantime::parse_duration)]
    slot_timeout: Duration,
    /// Rewrite the keys that differ, by a lake commit at the lake's position, and compare again
    #[arg(long)]
    repair: bool,
    /// Who reads the lake: frazil's own merge on read, or DuckDB
    #[arg(long, value_enum, default_value_t)]
    reader: WhichReader,
    /// The DuckDB command line, for --reader duckdb
    #[arg(long, value_name = "PATH", default_value = "duckdb")]
    duckdb: String,
    /// How it is shown
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// `--reader`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum WhichReader {
    #[default]
    Frazil,
    Duckdb,
}

impl Verify {
    /// Exit status 0 where nothing differs, 1 where something does.
    pub(crate) async fn run(self, on_terminal: bool) -> Result<ExitCode> {
        let config = self.place.resolve(RawConfig::default())?;
        let source = super::source(&config)?;
        let lake = super::existing_lake(&config).await?.ok_or_else(|| super::no_lake(&config))?;
        let options = Options {
            timeout: self.timeout,
            slot_timeout: self.slot_timeout,
            sample: self.sample,
            repair: self.repair,
            reader: match self.reader {
                WhichReader::Frazil => Reader::Frazil,
                WhichReader::Duckdb => Reader::DuckDb(self.duckdb),
            },
        };
        let bar = bar(on_terminal);
        let report = Box::pin(verify(&source, &lake, &config.settings, &options, &bar)).await;
        bar.finish_and_clear();
        let report = report?;
        match self.output {
            Output::Json => print_json(&serde_json::to_value(&report).map_err(|e| {
                Error::fatal("STDOUT", "the report could not be written as JSON").with_source(e)
            })?)?,
            Output::Table => print(&text(&report))?,
        }
        Ok(ExitCode::from(u8::from(!report.equal)))
    }
}

fn bar(on_terminal: bool) -> ProgressBar {
    if !on_terminal {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    // The template is a constant that parses.
    if let Ok(style) = ProgressStyle::with_template(BAR) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

fn text(report: &Report) -> String {
    let mut shown = table(&["table", "source", "lake", "missing", "extra", "differing", ""]);
    for one in &report.tables {
        shown.add_row([
            Cell::new(&one.table),
            number(HumanCount(one.source_rows)),
            number(HumanCount(one.lake_rows)),
            number(HumanCount(one.missing)),
            number(HumanCount(one.extra)),
            number(HumanCount(one.differing)),
            Cell::new(if one.equal { "equal" } else { "NOT EQUAL" }),
        ]);
    }
    let mut lines = vec![shown.to_string()];
    lines.extend(report.tables.iter().flat_map(remarks));
    lines.extend(report.repaired.map(|done| {
        let (rows, keys) = (HumanCount(done.rows_inserted), HumanCount(done.keys_deleted));
        format!("repaired at {}: {rows} rows written, {keys} keys deleted", done.position)
    }));
    let part = report.sample.as_ref().map_or(String::new(), |part| format!(", part {part}"));
    let verdict = if report.equal { "equal" } else { "NOT EQUAL" };
    lines.push(format!("source and lake at {}{part}: {verdict}", report.position));
    lines.join("\n")
}

/// What the figures do not say.
fn remarks(one: &TableReport) -> Vec<String> {
    let mut lines: Vec<String> =
        one.notes.iter().map(|note| format!("{}: {note}", one.table)).collect();
    if !one.not_compared.is_empty() {
        lines.push(format!("{}: not compared: {}", one.table, one.not_compared.join(", ")));
    }
    for example in &one.examples {
        let pair = |(name, value): &(String, Option<String>)| {
            format!("{name} = {}", value.as_deref().unwrap_or("NULL"))
        };
        let key: Vec<String> = example.key.iter().map(pair).collect();
        let columns = match example.columns.is_empty() {
            true => String::new(),
            false => format!(" (in {})", example.columns.join(", ")),
        };
        lines.push(format!("{}: {} {}{columns}", one.table, example.kind, key.join(", ")));
    }
    lines
}
