//! `frazil status`: where the lake stands, and how far the source is ahead of it. The lake's
//! part is shown also when the source cannot be reached.

use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use comfy_table::Cell;
use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::config::{Config, RawConfig};
use crate::error::Result;
use crate::iceberg::Table;
use crate::iceberg::committer::PastCommit;
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::{LedgerRecord, PipelineState};
use crate::iceberg::read::LiveRows;
use crate::ops::{now_us, rfc3339};
use crate::postgres::dsn::Source;
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_sql;
use crate::progress::Lsn;

use super::Place;
use super::report::{Output, number, print, print_json, table};
use super::source_holds::Holds;

/// Lake commits that are looked through for the last source transaction.
const HISTORY_MIN: usize = 50;

/// Namespace of the tables that are frazil's own.
const OWN_NAMESPACE: &str = "frazil";

/// `frazil status`
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    place: Place,
    /// How it is shown
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Read the tables and count their rows as a query sees them
    #[arg(long)]
    exact: bool,
    /// How many of the last lake commits are shown
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    commits: usize,
}

/// What is shown.
struct Report {
    ledger: Option<LedgerRecord>,
    source: Result<SourceState>,
    tables: Vec<TableState>,
    exact: bool,
    /// The branch that readers see, and the position it holds.
    published: Option<(String, Option<Lsn>)>,
    /// Newest first.
    commits: Vec<PastCommit>,
}

/// The source and its slot.
struct SourceState {
    wal_end: Lsn,
    slot: Option<SlotState>,
    holds: Holds,
}

struct SlotState {
    active: bool,
    confirmed_flush_lsn: Option<Lsn>,
    retained_bytes: Option<u64>,
    wal_status: Option<String>,
    /// The server's own measure for the process that reads the slot, in seconds.
    flush_lag_s: Option<f64>,
}

/// One table of the lake.
struct TableState {
    name: String,
    rows: u64,
    data_files: u64,
    delete_files: u64,
    bytes: u64,
}

impl Status {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let config = self.place.resolve(RawConfig::default())?;
        let source = super::source(&config)?;
        let lake = super::existing_lake(&config).await?.ok_or_else(|| super::no_lake(&config))?;
        let commits = lake.committer.history(self.commits.max(HISTORY_MIN)).await?;
        let mut ledger = lake.committer.position().await?;
        if let Some(ledger) = &mut ledger {
            // A ledger-only lake commit has no source transaction of its own.
            let last = commits.iter().find_map(|past| past.record.source_commit_time.clone());
            ledger.source_commit_time = ledger.source_commit_time.take().or(last);
        }
        let report = Report {
            ledger,
            source: source_state(&source, &config.settings.slot).await,
            tables: tables(&lake, self.exact).await?,
            exact: self.exact,
            published: published(&config, &lake).await?,
            commits: commits.into_iter().take(self.commits).collect(),
        };
        match self.output {
            Output::Json => print_json(&report.as_json(now_us()))?,
            Output::Table => print(&report.as_text(now_us()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn published(config: &Config, lake: &Lake) -> Result<Option<(String, Option<Lsn>)>> {
    let (Some(publish), Some(nessie)) = (&config.publish, &lake.nessie) else { return Ok(None) };
    let newest = nessie.lake_commits(&publish.into, &lake.pipeline_id, 1).await?;
    let position = newest.first().map(|past| past.record.committed_lsn);
    Ok(Some((publish.into.clone(), position)))
}

async fn source_state(source: &Source, name: &str) -> Result<SourceState> {
    let client = connect_sql(source, "status").await?;
    let sql = "\
        WITH server AS (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
            THEN pg_catalog.pg_last_wal_replay_lsn() \
            ELSE pg_catalog.pg_current_wal_insert_lsn() END AS wal_end) \
        SELECT wal_end::text AS wal_end, slot_name IS NOT NULL AS found, active, \
               confirmed_flush_lsn::text AS confirmed, wal_status::text, \
               (wal_end - restart_lsn)::int8 AS retained, \
               extract(epoch FROM flush_lag)::float8 AS flush_lag \
        FROM server LEFT JOIN pg_catalog.pg_replication_slots ON slot_name = $1::text \
             LEFT JOIN pg_catalog.pg_stat_replication ON pid = active_pid";
    let row = client.query_one(sql, &[&name]).await.map_err(from_sql)?;
    let confirmed: Option<&str> = row.get("confirmed");
    let state = SlotState {
        active: row.get::<_, Option<bool>>("active").unwrap_or(false),
        confirmed_flush_lsn: confirmed.map(str::parse).transpose()?,
        retained_bytes: row.get::<_, Option<i64>>("retained").and_then(|n| u64::try_from(n).ok()),
        wal_status: row.get("wal_status"),
        flush_lag_s: row.get("flush_lag"),
    };
    let wal_end: &str = row.get("wal_end");
    let slot = row.get::<_, bool>("found").then_some(state);
    let holds = Holds::of(&client, name).await?;
    Ok(SourceState { wal_end: wal_end.parse()?, slot, holds })
}

async fn tables(lake: &Lake, exact: bool) -> Result<Vec<TableState>> {
    let mut states = Vec::new();
    for ident in lake.committer.tables().await? {
        let namespace = ident.namespace().join(".");
        if namespace == OWN_NAMESPACE {
            continue;
        }
        let Some(table) = lake.committer.table(&ident).await? else { continue };
        let mut state = table_state(format!("{namespace}.{}", ident.name()), &table);
        if exact {
            state.rows = LiveRows::count(&lake.storage, &table).await?;
        }
        states.push(state);
    }
    states.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(states)
}

/// The totals of the table's newest iceberg_snapshot (Iceberg spec, Snapshot Summary).
fn table_state(name: String, table: &Table) -> TableState {
    let snapshot = table.metadata().current_snapshot();
    let total = |key: &str| {
        let value = snapshot.and_then(|s| s.summary().additional_properties.get(key));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    TableState {
        name,
        rows: total("total-records"),
        data_files: total("total-data-files"),
        delete_files: total("total-delete-files"),
        bytes: total("total-files-size"),
    }
}

/// Lag in seconds: what the server measures while the slot is read; else the age of the newest
/// source transaction in the lake, which is the most it can be.
fn lag_seconds(ledger: &LedgerRecord, source: &SourceState, now: i64) -> Option<f64> {
    let slot = source.slot.as_ref()?;
    if source.wal_end <= ledger.committed_lsn {
        return Some(0.0);
    }
    if slot.active {
        return Some(slot.flush_lag_s.unwrap_or(0.0));
    }
    let committed = ledger.source_commit_time.as_deref()?;
    let committed = humantime::parse_rfc3339_weak(committed).ok()?;
    let since = committed.duration_since(std::time::UNIX_EPOCH).ok()?;
    let age_us = now.saturating_sub(i64::try_from(since.as_micros()).ok()?).max(0);
    Some(std::time::Duration::from_micros(u64::try_from(age_us).ok()?).as_secs_f64())
}

fn state_name(state: PipelineState) -> &'static str {
    match state {
        PipelineState::Copying => "copying",
        PipelineState::Streaming => "streaming",
    }
}

impl Report {
    fn as_text(&self, now: i64) -> String {
        let mut parts = vec![self.positions(now), self.tables_text()];
        if !self.commits.is_empty() {
            parts.push(self.commits_text());
        }
        parts.join("\n\n")
    }

    fn positions(&self, now: i64) -> String {
        let mut lines = Vec::new();
        match &self.ledger {
            Some(ledger) => lines.push(format!(
                "position    {} ({}), last source commit {}",
                ledger.committed_lsn,
                state_name(ledger.state),
                ledger.source_commit_time.as_deref().unwrap_or("unknown: none since the copy")
            )),
            None => lines.push("position    none yet: the initial snapshot is not done".to_owned()),
        }
        for behind in self.ledger.iter().flat_map(|ledger| ledger.behind.values()) {
            let since = match behind.position {
                Lsn::ZERO => "not in the lake yet".to_owned(),
                position => format!("as of {position}"),
            };
            let (table, cause) = (&behind.table, &behind.cause);
            lines.push(format!("behind      {table} ({since}) is copied afresh: {cause}"));
        }
        if let Some((branch, position)) = &self.published {
            let position = position.map_or("nothing yet".to_owned(), |at| at.to_string());
            lines.push(format!("published   {position} on branch {branch}"));
        }
        match &self.source {
            Err(error) => lines.push(format!("source      not reached: {error}")),
            Ok(source) => {
                lines.push(slot_line(source));
                lines.extend(source.holds.lines());
                if let Some(ledger) = &self.ledger {
                    let slot = source.slot.as_ref();
                    if slot.is_some_and(|slot| is_slot_ahead(slot, ledger.committed_lsn)) {
                        let line = "            the slot is ahead of this lake: is it another's?";
                        lines.push(line.to_owned());
                    }
                    let bytes = ByteSize(source.wal_end.bytes_since(ledger.committed_lsn));
                    let lag = lag_seconds(ledger, source, now);
                    let lag = lag.map_or("unknown time".to_owned(), |s| format!("{s:.1} s"));
                    let active = slot.is_some_and(|slot| slot.active);
                    let most = if active { "" } else { "at most " };
                    lines.push(format!("lag         {most}{lag}, {bytes} of WAL"));
                }
            }
        }
        lines.join("\n")
    }

    fn tables_text(&self) -> String {
        if self.tables.is_empty() {
            return "no tables".to_owned();
        }
        let rows = if self.exact { "rows" } else { "rows in files" };
        let mut shown = table(&["table", rows, "data files", "delete files", "size"]);
        for t in &self.tables {
            shown.add_row([
                Cell::new(&t.name),
                number(HumanCount(t.rows)),
                number(HumanCount(t.data_files)),
                number(HumanCount(t.delete_files)),
                number(ByteSize(t.bytes)),
            ]);
        }
        match self.exact {
            true => shown.to_string(),
            false => {
                format!("{shown}\nrows in files count superseded rows too; live ones: --exact")
            }
        }
    }

    fn commits_text(&self) -> String {
        let mut shown = table(&["lake commit", "position", "source transactions", "rows written"]);
        for past in &self.commits {
            let record = &past.record;
            shown.add_row([
                Cell::new(rfc3339(past.time_ms.saturating_mul(1_000))),
                Cell::new(record.committed_lsn),
                number(HumanCount(record.source_transactions)),
                number(HumanCount(record.rows.values().sum())),
            ]);
        }
        shown.to_string()
    }

    fn as_json(&self, now: i64) -> Value {
        let ledger = self.ledger.as_ref();
        let source = self.source.as_ref().ok();
        let both = ledger.zip(source);
        json!({
            "position": ledger.map(|l| l.committed_lsn),
            "state": ledger.map(|l| state_name(l.state)),
            "published": self.published.as_ref().map(|(branch, position)| json!({
                "branch": branch,
                "position": position,
            })),
            "behind": ledger.map(|l| l.behind.values().collect::<Vec<_>>()),
            "source_commit_time": ledger.and_then(|l| l.source_commit_time.clone()),
            "source_reached": source.is_some(),
            "source_error": self.source.as_ref().err().map(ToString::to_string),
            "source_wal_end": source.map(|s| s.wal_end),
            "slot": source.and_then(|s| s.slot.as_ref()).map(|slot| json!({
                "active": slot.active,
                "confirmed_flush_lsn": slot.confirmed_flush_lsn,
                "retained_wal_bytes": slot.retained_bytes,
                "wal_status": slot.wal_status,
            })),
            "source_holds": source.map(|s| s.holds.as_json()),
            "lag_bytes": both.map(|(l, s)| s.wal_end.bytes_since(l.committed_lsn)),
            "lag_seconds": both.and_then(|(l, s)| lag_seconds(l, s, now)),
            "rows_are": if self.exact { "live" } else { "in_files" },
            "tables": self.tables.iter().map(|t| json!({
                "table": t.name,
                "rows": t.rows,
                "data_files": t.data_files,
                "delete_files": t.delete_files,
                "bytes": t.bytes,
            })).collect::<Vec<_>>(),
            "lake_commits": self.commits.iter().map(|past| json!({
                "time": rfc3339(past.time_ms.saturating_mul(1_000)),
                "position": past.record.committed_lsn,
                "source_transactions": past.record.source_transactions,
                "rows": past.record.rows,
                "hash": past.hash,
            })).collect::<Vec<_>>(),
        })
    }
}

/// The slot has forgotten what this lake still needs.
fn is_slot_ahead(slot: &SlotState, position: Lsn) -> bool {
    slot.confirmed_flush_lsn.is_some_and(|acknowledged| acknowledged > position)
}

fn slot_line(source: &SourceState) -> String {
    let Some(slot) = &source.slot else {
        return "slot        not there: a run cannot go on from this lake".to_owned();
    };
    let shown = |lsn: Option<Lsn>| lsn.map_or("nothing".to_owned(), |lsn| lsn.to_string());
    format!(
        "slot        {}, acknowledged {}, {} of WAL kept ({})",
        if slot.active { "active" } else { "nobody reads it" },
        shown(slot.confirmed_flush_lsn),
        slot.retained_bytes.map_or("unknown".to_owned(), |bytes| ByteSize(bytes).to_string()),
        slot.wal_status.as_deref().unwrap_or("lost"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn source(active: bool, flush_lag_s: Option<f64>) -> SourceState {
        let slot = SlotState {
            active,
            confirmed_flush_lsn: None,
            retained_bytes: None,
            wal_status: None,
            flush_lag_s,
        };
        SourceState { wal_end: Lsn(200), slot: Some(slot), holds: Holds::default() }
    }

    fn ledger() -> LedgerRecord {
        LedgerRecord {
            pipeline_id: "p".to_owned(),
            committed_lsn: Lsn(100),
            timeline: 1,
            system_id: "1".to_owned(),
            source_commit_time: Some("1970-01-01T00:00:10.000000Z".to_owned()),
            source_transactions: 1,
            rows: std::collections::BTreeMap::new(),
            lake_commit: uuid::Uuid::nil(),
            state: PipelineState::Streaming,
            slot: "p".to_owned(),
            behind: std::collections::BTreeMap::default(),
        }
    }

    #[test]
    fn lag_is_the_servers_measure_or_the_most_it_can_be() {
        assert_eq!(lag_seconds(&ledger(), &source(true, Some(1.5)), 30_000_000), Some(1.5));
        assert_eq!(lag_seconds(&ledger(), &source(true, None), 30_000_000), Some(0.0));
        assert_eq!(lag_seconds(&ledger(), &source(false, None), 30_000_000), Some(20.0));
        let caught_up = LedgerRecord { committed_lsn: Lsn(200), ..ledger() };
        assert_eq!(lag_seconds(&caught_up, &source(true, Some(1.5)), 30_000_000), Some(0.0));
    }

    #[test]
    fn the_lake_is_shown_without_its_source() {
        let report = Report {
            ledger: Some(ledger()),
            source: Err(Error::transient("CONNECTION", "refused")),
            tables: Vec::new(),
            exact: false,
            published: Some(("main".to_owned(), Some(Lsn(64)))),
            commits: vec![PastCommit { time_ms: 0, record: ledger(), hash: None }],
        };
        let text = report.as_text(0);
        assert!(text.contains("position    0/64 (streaming)"), "{text}");
        assert!(text.contains("published   0/40 on branch main"), "{text}");
        assert!(text.contains("source      not reached: CONNECTION: refused"), "{text}");
        let json = report.as_json(0);
        assert_eq!(json["position"], "0/64");
        assert_eq!(json["source_reached"], false);
        assert_eq!(json["lag_bytes"], Value::Null);
    }
}
