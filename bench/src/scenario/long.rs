//! 10,000 lake commits on one table: the last must not take longer than the first.

use std::time::{Duration, Instant};

use crate::figures::{Limit, Row, count, percentile};
use crate::frazil::LakeCommit;
use crate::process::Running;
use crate::stage::Stage;
use crate::{Context, Result, fail, plot};

use super::live::{self, Live};
use super::streams::events;

/// The shortest that frazil takes.
const COMMIT_INTERVAL: &str = "50ms";
/// Lake commits at either end that are compared.
const COMPARED: usize = 100;
/// The longest that one lake commit may take on average.
const PATIENCE: Duration = Duration::from_secs(1);

/// A row more and an updated row every few milliseconds until somebody says stop. The table that
/// says so is not logged, and so not replicated.
const DRIP: &str = "
    CREATE UNLOGGED TABLE bench_stop (at timestamptz PRIMARY KEY);
    CREATE PROCEDURE drip() LANGUAGE plpgsql AS $$
    DECLARE k bigint := 1000000;
    BEGIN
      WHILE NOT EXISTS (SELECT FROM bench_stop) LOOP
        k := k + 1;
        CALL insert_event(k);
        UPDATE events SET qty = k % 1000 WHERE id = 1 + k % 1000;
        COMMIT;
        PERFORM pg_sleep(0.004);
      END LOOP;
    END $$;";

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let wanted = context.scaled(10_000, 40);
    let setup = format!("{}{DRIP}", events(1_000));
    let mut stage = Stage::new(context, &setup)?;
    stage.seed()?;
    let mut drip = stage.postgres.psql();
    drip.args(["-c", "CALL drip()"]);
    let live = live::follow(&stage, &stage.frazil, COMMIT_INTERVAL, |postgres| {
        let drip = Running::start(&drip, &stage.folder.path().join("drip.log"))?;
        wait_for_commits(&stage, wanted)?;
        postgres.sql("INSERT INTO bench_stop VALUES (now())")?;
        drip.wait(live_deadline(wanted)).map(drop)
    })?;
    stage.verify(&stage.frazil)?;
    let took = took_ms(&live.lake_commits);
    plot::line(
        &context.plots,
        ("long", "Milliseconds of a lake commit, by the number of lake commits before it"),
        &[("p50 of 100", smooth(&took))],
    )?;
    let rows = stage.postgres.number("SELECT count(*) FROM events WHERE id > 1000000")?;
    Ok(vec![row(&live, rows, &took)])
}

fn row(live: &Live, rows: u64, took: &[f64]) -> Row {
    let compared = COMPARED.min(took.len() / 4);
    let (first, last) = (took.get(..compared), took.get(took.len() - compared..));
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let (first_ms, last_ms) = (percentile(first, 50), percentile(last, 50));
    Row {
        limits: vec![Limit::at_most("last by first", last_ms / first_ms.max(1e-3), 1.3, 1.1)],
        latency_s: None,
        note: format!("a lake commit: p50 {first_ms:.1} ms at first, {last_ms:.1} ms at last"),
        ..live.row("long".to_owned(), 2 * rows, &[])
    }
}

fn live_deadline(wanted: u64) -> Duration {
    PATIENCE * u32::try_from(wanted).unwrap_or(u32::MAX) + Duration::from_secs(120)
}

fn wait_for_commits(stage: &Stage, wanted: u64) -> Result<()> {
    let began = Instant::now();
    let mut said = 0;
    loop {
        let made = count_of(&stage.frazil.lake_commits());
        if made >= wanted {
            return Ok(());
        }
        if made >= said + 1_000 {
            said = made;
            stage.context.say(&format!("{made} of {wanted} lake commits"));
        }
        if began.elapsed() >= live_deadline(wanted) {
            return fail(format!("{made} of {wanted} lake commits in {:?}", began.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn count_of(commits: &[LakeCommit]) -> u64 {
    u64::try_from(commits.len()).unwrap_or(u64::MAX)
}

fn took_ms(commits: &[LakeCommit]) -> Vec<f64> {
    let with_rows = commits.iter().filter(|commit| commit.tables > 0);
    with_rows.map(|commit| count(commit.took_us) / 1e3).collect()
}

/// The median of each hundred (of each tenth, where there are few), by the number of its first.
fn smooth(took_ms: &[f64]) -> Vec<(f64, f64)> {
    let size = COMPARED.min(took_ms.len() / 10).max(1);
    let chunks = took_ms.chunks(size).enumerate();
    let number = |at: usize| f64::from(u32::try_from(at * size).unwrap_or(u32::MAX));
    chunks.map(|(at, chunk)| (number(at), percentile(chunk, 50))).collect()
}
