//! The table of results: printed, and kept in a Markdown file between two marks.

use std::fs;
use std::path::Path;

use crate::figures::{Limit, Measured, Row, mib, thousands};
use crate::machine::Machine;
use crate::{Result, fail};

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";
const ROWS_HEAD: &str = "\
| scenario | ratio | must hold | aim | reached | rows | baseline rows/s | frazil rows/s \
| CPU s/M | server CPU s/M (baseline) | RSS MiB | B/row | p50, p99 s | lake commits | scale, run \
| remarks |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";
const RUNS_HEAD: &str = "\
| run | machine | versions |
|---|---|---|";

/// The rows as a Markdown table.
pub(crate) fn table(rows: &[Row], scale: f64, run: &str) -> String {
    let lines: Vec<String> = rows.iter().map(|row| line(row, scale, run)).collect();
    format!("{ROWS_HEAD}\n{}", lines.join("\n"))
}

/// Brings `file` up to date: a row of the same scenario at the same scale is replaced.
///
/// # Errors
/// Where the file lacks the marks or cannot be written.
pub(crate) fn keep(file: &Path, rows: &[Row], scale: f64, machine: &Machine) -> Result<()> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("# Results\n\n{BEGIN}\n{END}\n")
        }
        Err(error) => return fail(format!("{}: {error}", file.display())),
    };
    let lines: Vec<String> = rows.iter().map(|row| line(row, scale, &machine.run)).collect();
    let Machine { run, hardware, versions } = machine;
    let run = format!("| {run} | {hardware} | {versions} |");
    let Some(text) = updated(&text, &lines, &run) else {
        return fail(format!("{} lacks the lines {BEGIN} and {END}", file.display()));
    };
    Ok(fs::write(file, text)?)
}

/// The text with `lines` in its table of rows and `run` in that of runs; a run that no row names
/// any more goes.
fn updated(text: &str, lines: &[String], run: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (between, after) = rest.split_once(END)?;
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| scenario |");
    let (rows, runs) = between.split_once("| run |").unwrap_or((between, ""));
    let mut rows: Vec<String> = rows.lines().filter(is_row).map(str::to_owned).collect();
    for line in lines {
        match rows.iter_mut().find(|old| key(old) == key(line)) {
            Some(old) => old.clone_from(line),
            None => rows.push(line.clone()),
        }
    }
    // The first line is what is left of the head.
    let runs = runs.lines().skip(1).filter(is_row);
    let mut runs: Vec<&str> = runs.filter(|old| cell(old, 0) != cell(run, 0)).collect();
    runs.push(run);
    runs.retain(|run| rows.iter().any(|row| cell(row, 14).ends_with(cell(run, 0))));
    let tables = format!("{ROWS_HEAD}\n{}\n\n{RUNS_HEAD}\n{}", rows.join("\n"), runs.join("\n"));
    Some(format!("{before}{BEGIN}\n\n{tables}\n\n{END}{after}"))
}

/// Scenario and scale.
fn key(line: &str) -> (&str, &str) {
    (cell(line, 0), cell(line, 14).split(',').next().unwrap_or_default())
}

fn cell(line: &str, at: usize) -> &str {
    line.split('|').nth(at + 1).unwrap_or_default().trim()
}

fn line(row: &Row, scale: f64, run: &str) -> String {
    let rate = |side: Option<Measured>| side.map(|side| thousands(side.rate(row.rows)));
    let both = |first: Option<String>, last: Option<String>| match (first, last) {
        (Some(first), Some(last)) => format!("{first}, {last}"),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    let has_rate = row.before.is_some();
    let million = |side: Option<Measured>, of: fn(&Measured, u64) -> f64| {
        side.filter(|_| row.rows > 0).map(|side| format!("{:.2}", of(&side, row.rows)))
    };
    let server = million(row.frazil, Measured::server_cpu_per_million);
    let server_base = million(row.before, Measured::server_cpu_per_million);
    let server_base = server_base.map(|text| format!(" ({text})")).unwrap_or_default();
    let cells = [
        row.scenario.clone(),
        row.ratio().map(|ratio| format!("**{ratio:.2}**")).unwrap_or_default(),
        limits(row, |limit| limit.must),
        limits(row, |limit| limit.aim),
        row.verdict().to_owned(),
        if row.rows > 0 { thousands(crate::figures::count(row.rows)) } else { String::new() },
        both(rate(row.before), rate(row.after)),
        rate(row.frazil).filter(|_| has_rate).unwrap_or_default(),
        million(row.frazil, Measured::cpu_per_million).unwrap_or_default(),
        format!("{}{server_base}", server.unwrap_or_default()),
        row.frazil.map(|side| format!("{:.0}", mib(side.peak_rss_bytes))).unwrap_or_default(),
        row.bytes_per_row.map(|bytes| format!("{bytes:.1}")).unwrap_or_default(),
        row.latency_s.map(|(p50, p99)| format!("{p50:.2}, {p99:.2}")).unwrap_or_default(),
        row.lake_commits.map(|commits| commits.to_string()).unwrap_or_default(),
        format!("{scale}, {run}"),
        remarks(row),
    ];
    format!("| {} |", cells.join(" | "))
}

fn limits(row: &Row, bound: fn(&Limit) -> f64) -> String {
    let texts: Vec<String> = row
        .limits
        .iter()
        .map(|limit| format!("{} {} {}", limit.what, limit.sign, bound(limit)))
        .collect();
    texts.join("; ")
}

/// The note, and the values of limits that no column shows.
fn remarks(row: &Row) -> String {
    let shown = ["ratio", "CPU s/M", "RSS MiB", "lag p99 s"];
    let more = row.limits.iter().filter(|limit| !shown.contains(&limit.what));
    let more = more.map(|limit| format!("{}: {:.2}", limit.what, limit.value));
    let note = (!row.note.is_empty()).then(|| row.note.clone());
    more.chain(note).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, wall_s: f64) -> Row {
        let took = |wall_s| Some(Measured { wall_s, ..Measured::default() });
        let (before, after) = (took(2.0), took(2.0));
        let scenario = scenario.to_owned();
        Row { scenario, rows: 1_000, before, frazil: took(wall_s), after, ..Row::default() }
    }

    fn kept(text: &str, rows: &[Row], scale: f64, run: &str) -> String {
        let lines: Vec<String> = rows.iter().map(|row| line(row, scale, run)).collect();
        updated(text, &lines, &format!("| {run} | machine | versions |")).unwrap()
    }

    #[test]
    fn a_row_of_the_same_scenario_and_scale_is_replaced() {
        let empty = format!("# Results\n{BEGIN}\n{END}\nhistory | a | b |\n");
        let first = kept(&empty, &[row("mixed", 1.0), row("huge", 1.0)], 1.0, "day1 aaa");
        assert!(first.contains("| mixed | **2.00** |") && first.contains("| day1 aaa | machine"));
        let second = kept(&first, &[row("mixed", 0.5)], 1.0, "day2 bbb");
        assert!(second.contains("| mixed | **4.00** |") && !second.contains("| mixed | **2.00**"));
        assert!(second.contains("| huge | **2.00** |") && second.contains("| day1 aaa |"));
        let third = kept(&second, &[row("huge", 1.0), row("mixed", 1.0)], 0.1, "day3 ccc");
        assert_eq!(third.matches("| mixed |").count(), 2);
        let fourth = kept(&third, &[row("huge", 1.0)], 1.0, "day4 ddd");
        assert!(!fourth.contains("day1"), "a run that no row names stays:\n{fourth}");
        assert!(fourth.ends_with("history | a | b |\n"));
        assert_eq!(kept(&fourth, &[row("huge", 1.0)], 1.0, "day4 ddd"), fourth);
        assert!(updated("no marks", &[], "").is_none());
    }
}
