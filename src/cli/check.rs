//! `frazil check`: what would stop a run, each finding with what mends it. Changes nothing.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::config::{Config, Settings};
use crate::error::{Error, Result};
use crate::postgres::check::{Finding, Severity, Wanted, checks};
use crate::postgres::sql::connect_sql;
use crate::postgres::tables::candidate_tables;

use super::Place;
use super::check_lake::lake_findings;
use super::report::{Output, print, print_json, table};

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
    let wanted = Wanted {
        slot: &settings.slot,
        publications: &publications,
        tables: &tables,
        types: &settings.types,
    };
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

pub(super) fn of_error(error: &Error) -> Finding {
    let text = error.to_string();
    let what = text.strip_prefix(error.code()).and_then(|t| t.strip_prefix(": "));
    let what = what.unwrap_or(&text).to_owned();
    finding(Severity::Blocking, error.code(), what, error.cure().unwrap_or_default())
}

pub(super) fn finding(severity: Severity, code: &'static str, what: String, cure: &str) -> Finding {
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
        (0, false) => {
            "nothing stops a run on the source's side; name the lake, and it is checked too"
        }
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
}
