//! `frazil check`: what would stop a run, each finding with what mends it. Changes nothing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bytesize::ByteSize;
use clap::Args;
use serde_json::json;

use crate::config::{Config, Settings};
use crate::error::{Error, Result};
use crate::postgres::check::{Finding, Severity, Wanted, checks};
use crate::postgres::sql::connect_sql;
use crate::postgres::tables::candidate_tables;

use super::Place;
use super::report::{Output, print, print_json, table};

/// Less free space than this is worth a warning.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// `frazil check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    place: Place,
    /// How the findings are shown
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Warnings fail too
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let (config, has_lake) = self.place.resolve_source()?;
        let mut findings = source_findings(&config).await?;
        if has_lake {
            findings.extend(lake_findings(&config).await);
        }
        findings.sort_by_key(|finding| finding.severity);
        let passes = passes(&findings, self.strict);
        match self.output {
            Output::Json => print_json(&as_json(&findings, passes))?,
            Output::Table => print(&as_table(&findings, has_lake))?,
        }
        Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn source_findings(config: &Config) -> Result<Vec<Finding>> {
    let source = super::source(config)?;
    let client = connect_sql(&source, "check").await?;
    let settings = &config.settings;
    let candidates = candidate_tables(&client).await?;
    let names: Vec<_> = candidates.iter().map(|t| (t.namespace.clone(), t.name.clone())).collect();
    let chosen = candidates.iter().filter(|t| settings.tables.selects(&t.namespace, &t.name));
    let mut tables: Vec<u32> = chosen.map(|t| t.oid).collect();
    if tables.len() == candidates.len() {
        // No list: whatever can be replicated is meant, and the rest needs no finding.
        tables.clear();
    }
    let publications = publications(settings);
    let wanted = Wanted { slot: &settings.slot, publications: &publications, tables: &tables };
    let mut findings = checks(&client, &source, wanted).await?;
    for pattern in settings.tables.unmatched(&names) {
        let what = format!("--tables: `{pattern}` matches no table");
        let cure = "mend the pattern; it is SCHEMA.TABLE, with * for any text";
        findings.push(finding(Severity::Blocking, "NO_SUCH_TABLE", what, cure));
    }
    Ok(findings)
}

/// Both publications of a pipeline.
pub(super) fn publications(settings: &Settings) -> Vec<String> {
    vec![settings.publication.clone(), settings.append_publication()]
}

async fn lake_findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let probed = nearest_folder(&config.into).and_then(|folder| probe(&folder).map(|()| folder));
    match probed {
        Ok(folder) => findings.extend(free_space(&folder)),
        Err(error) => findings.push(of_error(&error)),
    }
    let position = async {
        match super::existing_lake(config).await? {
            Some(lake) => lake.committer.position().await,
            None => Ok(None),
        }
    };
    match position.await {
        Ok(Some(ledger)) => {
            let what =
                format!("the lake stands at {}: a run goes on from there", ledger.committed_lsn);
            findings.push(finding(Severity::Info, "LAKE_POSITION", what, ""));
        }
        Ok(None) => {
            let what = "the lake is empty: a run begins with the initial snapshot".to_owned();
            findings.push(finding(Severity::Info, "LAKE_EMPTY", what, ""));
        }
        Err(error) => findings.push(of_error(&error)),
    }
    findings
}

/// The folder itself, or the one above in which it would be made.
fn nearest_folder(folder: &Path) -> Result<PathBuf> {
    let full =
        std::path::absolute(folder).map_err(|e| unwritable(folder, "is no path").with_source(e))?;
    let found = full.ancestors().find(|above| above.exists());
    match found {
        Some(found) if found.is_dir() => Ok(found.to_owned()),
        Some(file) => Err(unwritable(file, "is not a folder")),
        None => Err(unwritable(folder, "is not there")),
    }
}

/// Writes, syncs and deletes a file.
fn probe(folder: &Path) -> Result<()> {
    let path = folder.join(format!(".frazil-check-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(b"frazil")?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|e| unwritable(folder, "cannot be written to").with_source(e))
}

fn unwritable(folder: &Path, why: &str) -> Error {
    Error::config("LAKE_UNWRITABLE", format!("{} {why}", folder.display()))
        .with_cure("choose another folder with --into, or give this user the right to write there")
}

/// Free space as `df` tells it; where it tells nothing, nothing is found.
fn free_space(folder: &Path) -> Option<Finding> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let free = free_bytes(&String::from_utf8_lossy(&output.stdout))?;
    let what = format!("{} free in {}", ByteSize(free), folder.display());
    Some(if free < FREE_BYTES_MIN {
        finding(Severity::Warning, "LAKE_SPACE", what, "make room, or choose another folder")
    } else {
        finding(Severity::Info, "LAKE_SPACE", what, "")
    })
}

/// The fourth field of the second line, in KiB (POSIX, `df -P -k`).
fn free_bytes(df: &str) -> Option<u64> {
    let field = df.lines().nth(1)?.split_whitespace().nth(3)?;
    field.parse::<u64>().ok()?.checked_mul(1024)
}

fn of_error(error: &Error) -> Finding {
    let text = error.to_string();
    let what = text.strip_prefix(error.code()).and_then(|t| t.strip_prefix(": "));
    let what = what.unwrap_or(&text).to_owned();
    finding(Severity::Blocking, error.code(), what, error.cure().unwrap_or_default())
}

fn finding(severity: Severity, code: &'static str, what: String, cure: &str) -> Finding {
    Finding { severity, code, what, cure: cure.to_owned() }
}

fn passes(findings: &[Finding], strict: bool) -> bool {
    !findings.iter().any(|finding| match finding.severity {
        Severity::Blocking => true,
        Severity::Warning => strict,
        Severity::Info => false,
    })
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocking => "blocking",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

fn as_table(findings: &[Finding], has_lake: bool) -> String {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (blocking, warnings) = (count(Severity::Blocking), count(Severity::Warning));
    let verdict = match (blocking, has_lake) {
        (0, true) => "nothing stops a run",
        (0, false) => "nothing stops a run on the source's side; the lake is checked with --into",
        _ => "a run would not start, or would be wrong",
    };
    let verdict = format!("{blocking} blocking, {warnings} warnings: {verdict}");
    if findings.is_empty() {
        return verdict;
    }
    let mut table = table(&["severity", "code", "what", "cure"]);
    for finding in findings {
        table.add_row([name(finding.severity), finding.code, &finding.what, &finding.cure]);
    }
    format!("{table}\n{verdict}")
}

fn as_json(findings: &[Finding], passes: bool) -> serde_json::Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|f| {
            let severity = name(f.severity);
            json!({"severity": severity, "code": f.code, "what": f.what, "cure": f.cure})
        })
        .collect();
    json!({ "ok": passes, "findings": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fail_only_a_strict_check() {
        let warning = [finding(Severity::Warning, "W", "w".to_owned(), "")];
        assert!(passes(&warning, false));
        assert!(!passes(&warning, true));
        assert!(!passes(&[finding(Severity::Blocking, "B", "b".to_owned(), "")], false));
        assert!(passes(&[finding(Severity::Info, "I", "i".to_owned(), "")], true));
    }

    #[test]
    fn df_is_read() {
        let df =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 9 8 2048 1% /\n";
        assert_eq!(free_bytes(df), Some(2 << 20));
        assert_eq!(free_bytes("df: nonsense"), None);
    }

    #[test]
    fn a_file_is_no_folder_and_a_missing_folder_is_looked_for_above() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a/b");
        assert_eq!(nearest_folder(&missing).unwrap(), folder.path());
        probe(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(nearest_folder(&missing).unwrap_err().code(), "LAKE_UNWRITABLE");
    }
}
