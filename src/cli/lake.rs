//! `frazil lake`: the lake's own history. Branches, tags and the log of Nessie, and what an LSN or
//! a time means in the lake.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use iceberg::spec::SnapshotRef;
use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::iceberg::committer::PastCommit;
use crate::iceberg::committer::rest::nessie::{Nessie, Reference, ReferenceKind};
use crate::iceberg::lake::Lake;
use crate::iceberg::{POSITION_KEY, Table};
use crate::ops::rfc3339;
use crate::progress::Lsn;
use crate::publish::{no_branches, tag_name};

use super::LakeArgs;
use super::report::{Output, number, print, print_json, table};

/// Characters of a hash that are shown to people.
const HASH_SHOWN: usize = 16;

/// `frazil lake`
#[derive(Debug, Args)]
pub(crate) struct LakeVerb {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    lake: LakeArgs,
    /// How it is shown
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List branches and tags (Nessie)
    Refs,
    /// List lake commits, newest first
    Log {
        /// Of this branch or tag (Nessie) [default: the branch that is written to]
        #[arg(value_name = "REF")]
        of: Option<String>,
        /// How many
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
        most: usize,
    },
    /// Find the lake's state at an LSN or a time: the newest lake commit that holds nothing later
    At(When),
    /// Tag a state (Nessie) [default: the newest lake commit, named lsn-<LSN>]
    Tag {
        /// Name of the tag
        name: Option<String>,
        #[command(flatten)]
        when: When,
    },
    /// Make a branch at a state (Nessie) [default: the newest]
    Branch {
        /// Name of the branch
        name: String,
        #[command(flatten)]
        when: When,
    },
    /// List the tables that differ between two states (Nessie): REF or REF@HASH
    Diff {
        /// The first state
        from: String,
        /// The second state
        to: String,
    },
}

/// Which state of the lake.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(super) struct When {
    /// The position: nothing that was committed at the source after it
    #[arg(long = "lsn", visible_alias = "at-lsn", value_name = "LSN")]
    lsn: Option<Lsn>,
    /// The source's time, as 2026-11-25T10:00:00Z: nothing that was committed after it
    #[arg(long = "at", value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    at: Option<SystemTime>,
}

impl LakeVerb {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let lake = self.lake.open().await?;
        let (text, json) = match self.what {
            What::Refs => references(&nessie(&lake)?.references().await?),
            What::Log { of, most } => log(&lake, of.as_deref(), most).await?,
            What::At(when) => at(&lake, &when).await?,
            What::Tag { name, when } => {
                make(&lake, ReferenceKind::Tag, name.as_deref(), &when).await?
            }
            What::Branch { name, when } => {
                make(&lake, ReferenceKind::Branch, Some(&name), &when).await?
            }
            What::Diff { from, to } => diff(&*nessie(&lake)?, &from, &to).await?,
        };
        match self.output {
            Output::Json => print_json(&json)?,
            Output::Table => print(&text)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn nessie(lake: &Lake) -> Result<Arc<Nessie>> {
    lake.nessie.clone().ok_or_else(no_branches)
}

fn references(found: &[Reference]) -> (String, Value) {
    let mut shown = table(&["kind", "name", "hash"]);
    for one in found {
        shown.add_row([kind_name(one.kind), &one.name, short(&one.hash)]);
    }
    let json = found
        .iter()
        .map(|one| json!({"kind": kind_name(one.kind), "name": one.name, "hash": one.hash}));
    (shown.to_string(), json.collect())
}

fn kind_name(kind: ReferenceKind) -> &'static str {
    match kind {
        ReferenceKind::Branch => "branch",
        ReferenceKind::Tag => "tag",
    }
}

fn short(hash: &str) -> &str {
    hash.get(..HASH_SHOWN).unwrap_or(hash)
}

async fn log(lake: &Lake, of: Option<&str>, most: usize) -> Result<(String, Value)> {
    let commits = match of {
        Some(of) => nessie(lake)?.lake_commits(of, &lake.pipeline_id, most).await?,
        None => lake.committer.history(most).await?,
    };
    let mut shown = table(&[
        "lake commit",
        "hash",
        "position",
        "source time",
        "source transactions",
        "rows",
        "tables",
    ]);
    for past in &commits {
        let record = &past.record;
        shown.add_row([
            Cell::new(to_the_second(&time(past))),
            Cell::new(past.hash.as_deref().map_or("", short)),
            Cell::new(record.committed_lsn),
            Cell::new(record.source_commit_time.as_deref().map_or(String::new(), to_the_second)),
            number(HumanCount(record.source_transactions)),
            number(HumanCount(record.rows.values().sum())),
            number(record.rows.len()),
        ]);
    }
    Ok((shown.to_string(), commits.iter().map(as_json).collect()))
}

/// `2026-11-25T10:00:00Z` of an RFC 3339 time in UTC.
fn to_the_second(time: &str) -> String {
    format!("{}Z", time.get(..19).unwrap_or(time))
}

fn time(past: &PastCommit) -> String {
    rfc3339(past.time_ms.saturating_mul(1_000))
}

fn as_json(past: &PastCommit) -> Value {
    json!({
        "time": time(past),
        "hash": past.hash,
        "position": past.record.committed_lsn,
        "source_commit_time": past.record.source_commit_time,
        "source_transactions": past.record.source_transactions,
        "rows": past.record.rows,
        "lake_commit": past.record.lake_commit,
    })
}

/// The newest lake commit that holds nothing later than `when`.
pub(super) async fn find(lake: &Lake, when: &When) -> Result<PastCommit> {
    let fits = |past: &PastCommit| when.holds(past);
    let found = match &lake.nessie {
        Some(nessie) => {
            let pipeline = &lake.pipeline_id;
            nessie.find_lake_commit(nessie.reference(), pipeline, fits).await?
        }
        None => lake.committer.history(usize::MAX).await?.into_iter().find(fits),
    };
    found.ok_or_else(|| {
        Error::config("NO_SUCH_STATE", format!("the lake remembers no state {}", when.describe()))
            .with_cure("see how far back it goes: frazil lake log -n 1000")
    })
}

impl When {
    pub(super) fn is_now(&self) -> bool {
        self.lsn.is_none() && self.at.is_none()
    }

    fn holds(&self, past: &PastCommit) -> bool {
        match (self.lsn, self.at) {
            (Some(lsn), _) => past.record.committed_lsn <= lsn,
            (None, Some(at)) => state_time(past).is_some_and(|time| time <= at),
            (None, None) => true,
        }
    }

    fn describe(&self) -> String {
        match (self.lsn, self.at) {
            (Some(lsn), _) => format!("at {lsn} or before"),
            (None, Some(at)) => format!("at {} or before", humantime::format_rfc3339(at)),
            (None, None) => "at all".to_owned(),
        }
    }
}

/// The commit time of the last source transaction; of a lake commit without one its own time.
fn state_time(past: &PastCommit) -> Option<SystemTime> {
    match &past.record.source_commit_time {
        Some(text) => humantime::parse_rfc3339_weak(text).ok(),
        None => Some(UNIX_EPOCH + Duration::from_millis(u64::try_from(past.time_ms).ok()?)),
    }
}

async fn at(lake: &Lake, when: &When) -> Result<(String, Value)> {
    let past = find(lake, when).await?;
    let position = past.record.committed_lsn;
    if let Some(hash) = &past.hash {
        let name = lake.nessie.as_ref().map_or("", |nessie| nessie.reference());
        return Ok((format!("{name}@{hash}  position {position}"), as_json(&past)));
    }
    let snapshots = snapshots_at(lake, position).await?;
    let mut shown = table(&["table", "iceberg_snapshot"]);
    for (name, id) in &snapshots {
        shown.add_row([Cell::new(name), number(id)]);
    }
    let mut json = as_json(&past);
    if let Some(object) = json.as_object_mut() {
        let all = snapshots.iter().map(|(name, id)| (name.clone(), json!(id))).collect();
        object.insert("snapshots".to_owned(), all);
    }
    Ok((format!("position {position}\n{shown}"), json))
}

/// The iceberg_snapshot of each table in the state at `position`: the newest whose own position is
/// not later.
pub(super) async fn snapshots_at(lake: &Lake, position: Lsn) -> Result<Vec<(String, i64)>> {
    let mut found = Vec::new();
    for ident in lake.committer.tables().await? {
        let Some(table) = lake.committer.whole_table(&ident).await? else { continue };
        if let Some(snapshot) = held_at(&table, position)? {
            let name = format!("{}.{}", ident.namespace().join("."), ident.name());
            found.push((name, snapshot.snapshot_id()));
        }
    }
    Ok(found)
}

/// The newest iceberg_snapshot at `position` or before; `None` where there was no table yet.
///
/// # Errors
/// `NO_SUCH_STATE` (config) where a later one says that the table does not remember it any more:
/// one that is older still would be another state.
fn held_at(table: &Table, position: Lsn) -> Result<Option<&SnapshotRef>> {
    let at = |snapshot: &SnapshotRef| {
        let text = snapshot.summary().additional_properties.get(POSITION_KEY)?;
        text.parse::<Lsn>().ok()
    };
    let metadata = table.metadata();
    let is_past = |snapshot: &&SnapshotRef| at(snapshot).is_some_and(|at| at <= position);
    let newest = metadata.snapshots().filter(is_past).max_by_key(|s| s.sequence_number());
    let is_later = |snapshot: &&SnapshotRef| at(snapshot).is_some_and(|at| at > position);
    let mut next = metadata.snapshots().filter(is_later).min_by_key(|s| s.sequence_number());
    // Somebody else's stand in between.
    while let Some(parent) = next.and_then(|next| next.parent_snapshot_id()) {
        next = metadata.snapshot_by_id(parent);
        match next {
            None => {
                let what = format!("the table does not remember its state at {position} any more");
                return Err(Error::config("NO_SUCH_STATE", what)
                    .with_table(table.identifier())
                    .with_cure("choose one that `frazil lake log` shows"));
            }
            Some(found) if at(found).is_some() => break,
            Some(_) => {}
        }
    }
    Ok(newest)
}

async fn make(
    lake: &Lake,
    kind: ReferenceKind,
    name: Option<&str>,
    when: &When,
) -> Result<(String, Value)> {
    let nessie = nessie(lake)?;
    let past = find(lake, when).await?;
    let name = name.map_or_else(|| tag_name(past.record.committed_lsn), str::to_owned);
    let hash = past.hash.clone().unwrap_or_default();
    let (from, position) = (nessie.reference().to_owned(), past.record.committed_lsn);
    let at = Reference { kind: ReferenceKind::Branch, name: from, hash: hash.clone() };
    nessie.make(kind, &name, &at).await?;
    let kind = kind_name(kind);
    let text = format!("{kind} {name} at {} (position {position})", short(&hash));
    Ok((text, json!({"kind": kind, "name": name, "hash": hash, "position": position})))
}

async fn diff(nessie: &Nessie, from: &str, to: &str) -> Result<(String, Value)> {
    let found = nessie.diff(from, to).await?;
    let mut shown = table(&["table", "change"]);
    let mut json = Vec::new();
    for one in &found {
        let change = match (&one.from, &one.to) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        shown.add_row([one.key.as_str(), change]);
        json.push(json!({
            "table": one.key, "change": change, "from": one.from, "to": one.to,
        }));
    }
    let text = match found.is_empty() {
        true => format!("{from} and {to} are equal"),
        false => shown.to_string(),
    };
    Ok((text, json.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::iceberg::committer::{LakeCommit, NewTable, TableChange};
    use crate::iceberg::ledger::{LedgerRecord, PipelineState};
    use crate::iceberg::row_delta::RowDelta;
    use crate::iceberg::table_ident;

    fn past(lsn: u64, source_time: Option<&str>, time_ms: i64) -> PastCommit {
        let record = LedgerRecord {
            pipeline_id: "p".to_owned(),
            committed_lsn: Lsn(lsn),
            timeline: 1,
            system_id: "1".to_owned(),
            source_commit_time: source_time.map(str::to_owned),
            source_transactions: 1,
            rows: std::collections::BTreeMap::new(),
            lake_commit: uuid::Uuid::nil(),
            state: PipelineState::Streaming,
            slot: "p".to_owned(),
            behind: std::collections::BTreeMap::default(),
        };
        PastCommit { time_ms, record, hash: None }
    }

    #[test]
    fn a_state_holds_nothing_later() {
        let at_lsn = When { lsn: Some(Lsn(100)), at: None };
        assert!(at_lsn.holds(&past(100, None, 0)) && !at_lsn.holds(&past(101, None, 0)));
        let ten = UNIX_EPOCH + Duration::from_secs(10);
        let at_time = When { lsn: None, at: Some(ten) };
        assert!(at_time.holds(&past(1, Some("1970-01-01T00:00:10.000000Z"), 99_000)));
        assert!(!at_time.holds(&past(1, Some("1970-01-01T00:00:10.000001Z"), 0)));
        assert!(at_time.holds(&past(1, None, 10_000)) && !at_time.holds(&past(1, None, 10_001)));
    }

    /// `n` lake commits, each of which changes the table `a`, the first three also `b`.
    async fn lake_of(folder: &std::path::Path, n: u64) -> Lake {
        let lake = Lake::in_folder(folder, "p").await.unwrap();
        for lsn in 1..=n {
            let names = if lsn <= 3 { vec!["a", "b"] } else { vec!["a"] };
            let changes = names.into_iter().map(|name| {
                let create = (lsn == 1).then(|| NewTable {
                    schema: iceberg::spec::Schema::builder().build().unwrap(),
                    properties: HashMap::new(),
                });
                let delta = RowDelta {
                    properties: HashMap::from([("n".to_owned(), lsn.to_string())]),
                    ..RowDelta::default()
                };
                TableChange { ident: table_ident("app", name), create, delta }
            });
            let mut ledger = past(lsn, None, 0).record;
            ledger.lake_commit = uuid::Uuid::now_v7();
            let base = (lsn > 1).then_some(Lsn(lsn - 1));
            let changes = changes.collect();
            lake.committer.commit(&LakeCommit { ledger, base, changes }).await.unwrap();
        }
        lake
    }

    #[tokio::test]
    async fn a_state_that_is_forgotten_is_no_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake_of(folder.path(), 200).await;
        let found = snapshots_at(&lake, Lsn(150)).await.unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["app.a", "app.b", "frazil.ledger_p"]);
        let a = lake.committer.table(&table_ident("app", "a")).await.unwrap().unwrap();
        let snapshot = a.metadata().snapshot_by_id(found[0].1).unwrap();
        assert_eq!(snapshot.summary().additional_properties[POSITION_KEY], "0/96");
        let error = snapshots_at(&lake, Lsn(5)).await.unwrap_err();
        assert_eq!(error.code(), "NO_SUCH_STATE", "{error}");
    }
}
