//! The program that is measured: how it is started, what it logs, and its verdict by `verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Running, Used, output_of};
use crate::{Result, fail};

/// The one slot and publication of a scenario.
pub(crate) const SLOT: &str = "frazil";
pub(crate) const PUBLICATION: &str = "bench";
/// What is logged: the usual, and a line for each lake commit.
const LOG: &str = "warn,frazil=info,frazil::lake_commit=debug";

/// Where the lake is.
#[derive(Debug, Clone)]
pub(crate) enum Lake {
    Folder(PathBuf),
    /// Nessie, with files on an S3 server: the catalog's address, access key and secret.
    Nessie {
        uri: String,
        key: String,
        secret: String,
    },
}

/// A binary of frazil with a source and a lake.
#[derive(Debug, Clone)]
pub(crate) struct Frazil {
    pub(crate) binary: PathBuf,
    pub(crate) dsn: String,
    pub(crate) lake: Lake,
    /// Which tables; all when `None`.
    pub(crate) tables: Option<String>,
    pub(crate) slot: String,
    pub(crate) publication: String,
    /// Settings, as `FRAZIL_SECTION__KEY`.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Where logs go.
    pub(crate) log: PathBuf,
}

/// A lake commit, as frazil logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LakeCommit {
    /// From the last file that was written to the catalog's answer.
    pub(crate) took_us: u64,
    /// When the catalog's answer was there, Unix microseconds.
    pub(crate) committed_at_us: i64,
    /// Commit time of the newest source transaction in it; none at an idle position.
    pub(crate) source_commit_time_us: Option<i64>,
    /// Tables that changed.
    pub(crate) tables: u64,
}

impl Frazil {
    /// `frazil run` with `arguments`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = self.command("run");
        command.args(arguments).args(["--log-format", "json"]).env("RUST_LOG", LOG);
        Running::start(&command, &self.log)
    }

    /// `frazil run --until-caught-up`, to its end.
    pub(crate) fn catch_up(&self, deadline: Duration) -> Result<Used> {
        self.run(&["--until-caught-up"])?.wait(deadline)
    }

    /// Compares source and lake, row by row; the lake may take `patience` to hold what it must.
    ///
    /// # Errors
    /// Where anything differs, with verify's report.
    pub(crate) fn verify(&self, patience: &str) -> Result<()> {
        let mut command = self.command("verify");
        command.args(["--timeout", patience, "-o", "json"]);
        let report: Value = serde_json::from_str(&output_of(&mut command)?)?;
        let compared = report.get("tables").and_then(Value::as_array).map_or(0, Vec::len);
        match report.get("equal") == Some(&Value::Bool(true)) && compared > 0 {
            true => Ok(()),
            false => fail(format!("verify compared nothing or found a difference: {report:#}")),
        }
    }

    /// Bytes of all tables' data and delete files.
    pub(crate) fn stored_bytes(&self) -> Result<u64> {
        let status = output_of(self.command("status").args(["-o", "json"]))?;
        let status: Value = serde_json::from_str(&status)?;
        let tables = status.get("tables").and_then(Value::as_array);
        let bytes = tables.into_iter().flatten().filter_map(|table| table.get("bytes")?.as_u64());
        Ok(bytes.sum())
    }

    /// The lake commits of the last run, first to last.
    pub(crate) fn lake_commits(&self) -> Vec<LakeCommit> {
        lake_commits(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// The version, as `frazil --version` gives it.
    pub(crate) fn version(binary: &Path) -> Result<String> {
        output_of(Command::new(binary).arg("--version"))
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FRAZIL_")) {
            command.env_remove(name);
        }
        command.arg(verb).arg(&self.dsn);
        command.args(["--slot", &self.slot, "--publication", &self.publication]);
        if let Some(tables) = &self.tables {
            command.args(["--tables", tables]);
        }
        match &self.lake {
            Lake::Folder(folder) => _ = command.arg("--into").arg(folder),
            Lake::Nessie { uri, key, secret } => {
                command.args(["--catalog", &format!("nessie+{uri}/iceberg"), "--ref", "main"]);
                command.envs([("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)]);
            }
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn lake_commits(log: &str) -> Vec<LakeCommit> {
    let lines = log.lines().filter(|line| line.contains("\"lake commit\""));
    let parsed = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let commits = parsed.filter_map(|line| {
        Some(LakeCommit {
            took_us: line.get("took_us")?.as_u64()?,
            committed_at_us: line.get("committed_at_us")?.as_i64()?,
            source_commit_time_us: line.get("source_commit_time_us").and_then(Value::as_i64),
            tables: line.get("tables")?.as_u64()?,
        })
    });
    commits.collect()
}

/// For each source transaction, committed at these times (Unix microseconds), the seconds until the
/// first lake commit that holds it. Those that no lake commit holds are left out.
pub(crate) fn lags_s(commits: &[LakeCommit], mut source_times_us: Vec<i64>) -> Vec<f64> {
    source_times_us.sort_unstable();
    let mut commits = commits.iter().peekable();
    let mut lags = Vec::with_capacity(source_times_us.len());
    for time in source_times_us {
        while commits
            .next_if(|commit| commit.source_commit_time_us.is_none_or(|t| t < time))
            .is_some()
        {}
        let Some(commit) = commits.peek() else { break };
        lags.push(crate::figures::seconds(commit.committed_at_us - time));
    }
    lags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lake_commits_are_read_from_the_log() {
        let line = r#"{"level":"DEBUG","message":"lake commit","position":"0/1","tables":2,"took_us":1500,"committed_at_us":9000000,"source_commit_time_us":8000000}"#;
        let log = format!("no json\n{{\"message\":\"following\"}}\n{line}\n");
        let commit = LakeCommit {
            took_us: 1500,
            committed_at_us: 9_000_000,
            source_commit_time_us: Some(8_000_000),
            tables: 2,
        };
        assert_eq!(lake_commits(&log), [commit]);
    }

    #[test]
    fn a_lag_ends_with_the_first_lake_commit_that_holds_the_transaction() {
        let commit = |source, at| LakeCommit {
            took_us: 0,
            committed_at_us: at,
            source_commit_time_us: source,
            tables: 1,
        };
        let commits = [
            commit(Some(1_000_000), 1_500_000),
            commit(None, 1_600_000),
            commit(Some(3_000_000), 4_000_000),
        ];
        let lags = lags_s(&commits, vec![2_000_000, 1_000_000, 500_000, 3_500_000]);
        assert_eq!(lags, [1.0, 0.5, 2.0]);
    }
}
