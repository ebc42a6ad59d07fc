//! frazil follows while the source is written to: how long until a source transaction is in the
//! lake.

use crate::figures::{Limit, Measured, Row, p50_p99};
use crate::frazil::{Frazil, LakeCommit, lags_s};
use crate::postgres::Postgres;
use crate::process::{Running, wait_until};
use crate::stage::Stage;
use crate::{Context, Result};

use super::streams::{Load, pgbench_tables, tpcb};

/// The longest that frazil lets a source transaction wait where latency is measured.
pub(super) const COMMIT_INTERVAL: &str = "1s";

/// pgbench at full speed for 60 s: the lag; then the same as a load that is there already.
pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let seconds = context.scaled(60, 2);
    let mut stage = Stage::new(context, "")?;
    pgbench_tables(&stage.postgres, context.scaled(10, 1))?;
    stage.seed()?;
    context.say("pgbench at full speed");
    let live = follow(&stage, &stage.frazil, COMMIT_INTERVAL, |postgres| {
        Load::Pgbench(seconds).write(postgres)
    })?;
    stage.verify(&stage.frazil)?;
    let changes = stage.postgres.number("SELECT 4 * count(*) FROM pgbench_history")?;
    let lags = lags_s(&live.lake_commits, commit_times(&stage.postgres, "pgbench_history")?);
    let mut row = live.row("small, pgbench live".to_owned(), changes, &lags);
    row.note = format!("{} changes/s reached", changes / seconds.max(1));
    drop(stage);
    let mut rows = vec![row];
    rows.extend(tpcb(context).run(context)?);
    Ok(rows)
}

/// What frazil did while the source was written to.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) measured: Measured,
    pub(super) lake_commits: Vec<LakeCommit>,
}

impl Live {
    /// Its row; there is no baseline for being in time.
    pub(super) fn row(&self, scenario: String, rows: u64, lags_s: &[f64]) -> Row {
        let latency_s = p50_p99(lags_s);
        let p99 = latency_s.map_or(f64::MAX, |(_, p99)| p99);
        Row {
            scenario,
            rows,
            frazil: Some(self.measured),
            latency_s,
            lake_commits: Some(self.lake_commits.len()),
            limits: vec![Limit::at_most("lag p99 s", p99, 2.0, 1.0)],
            ..Row::default()
        }
    }
}

/// Runs frazil, lets `drive` write, waits until all of it is acknowledged, and stops frazil.
pub(super) fn follow(
    stage: &Stage,
    frazil: &Frazil,
    commit_interval: &str,
    drive: impl FnOnce(&Postgres) -> Result<()>,
) -> Result<Live> {
    let mut running = frazil.run(&["--commit-interval", commit_interval])?;
    wait_active(&mut running, &stage.postgres, &frazil.slot)?;
    let server_cpu_s = stage.postgres.cpu_s();
    drive(&stage.postgres)?;
    running.check()?;
    stage.wait_acknowledged(&frazil.slot)?;
    let used = running.stop()?;
    let measured = Measured::new(used, stage.postgres.cpu_s() - server_cpu_s);
    Ok(Live { measured, lake_commits: frazil.lake_commits() })
}

/// Waits until frazil reads its slot.
pub(super) fn wait_active(running: &mut Running, postgres: &Postgres, slot: &str) -> Result<()> {
    let query = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let deadline = std::time::Duration::from_secs(120);
    wait_until("frazil reads its slot", deadline, || {
        running.check()?;
        Ok(postgres.sql(&query)? == "t")
    })
}

/// When the source transactions that wrote the rows of `table` last were committed, in Unix
/// microseconds; each once.
pub(super) fn commit_times(postgres: &Postgres, table: &str) -> Result<Vec<i64>> {
    let times = postgres.sql(&format!(
        "SELECT DISTINCT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::int8 \
         FROM {table}"
    ))?;
    times.lines().map(|line| line.parse().map_err(Into::into)).collect()
}
