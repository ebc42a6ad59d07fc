//! 1,000 tables: the load as a stream, and the time of a lake commit by how many tables changed in
//! it, in a lake of 1,000 tables and in one of 100.

use std::collections::BTreeMap;

use crate::figures::{Limit, Row, count, percentile};
use crate::stage::Stage;
use crate::{Context, Result, plot};

use super::live;
use super::streams::many;

/// A source transaction is a window of its own.
const COMMIT_INTERVAL: &str = "50ms";
/// Tables that change in one lake commit.
const CHANGED: [u64; 7] = [1, 3, 10, 30, 100, 300, 1_000];
/// Tables of the lake and of the smaller lake.
pub(super) const TABLES: (u64, u64) = (1_000, 100);
/// Keys from here on belong to the lake commits that are timed.
const FIRST_KEY: u64 = 1_000_000;

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let (large, small) = (context.scaled(TABLES.0, 20), context.scaled(TABLES.1, 10));
    let stream = many(context, large);
    let mut stage = stream.staged(context)?;
    let mut rows = stream.measure(&mut stage)?;
    let of_large = timed(&stage, large)?;
    drop(stage);
    let mut stage = Stage::new(context, &many(context, small).setup)?;
    stage.seed()?;
    let of_small = timed(&stage, small)?;
    plot::line(
        &context.plots,
        ("many", "Milliseconds of a lake commit, by the number of tables that changed"),
        &[
            (&format!("{large} tables"), points(&of_large)),
            (&format!("{small} tables"), points(&of_small)),
        ],
    )?;
    for row in &mut rows {
        judge(row, &of_large, &of_small);
    }
    Ok(rows)
}

/// Median milliseconds by the number of changed tables.
type Times = BTreeMap<u64, f64>;

/// Changes 1, 3, 10 ... tables at a time, each in a lake commit of its own.
fn timed(stage: &Stage, tables: u64) -> Result<Times> {
    let repeats = stage.context.scaled(20, 3);
    let live = live::follow(stage, &stage.frazil, COMMIT_INTERVAL, |_| {
        let mut key = FIRST_KEY;
        for touched in CHANGED.into_iter().filter(|touched| *touched <= tables) {
            stage.context.say(&format!("{touched} of {tables} tables"));
            for _ in 0..repeats {
                key += 1;
                let first = key * touched % tables;
                let change = format!("CALL change_some({tables}, {key}, {first}, {touched})");
                stage.write_and_wait(&stage.frazil.slot, &change)?;
            }
        }
        Ok(())
    })?;
    stage.verify(&stage.frazil)?;
    let mut times: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for commit in &live.lake_commits {
        times.entry(commit.tables).or_default().push(count(commit.took_us) / 1e3);
    }
    // What else was committed: the mark at the end, idle positions.
    times.retain(|touched, took| CHANGED.contains(touched) && took.len() > 1);
    Ok(times.into_iter().map(|(touched, took)| (touched, percentile(&took, 50))).collect())
}

fn points(times: &Times) -> Vec<(f64, f64)> {
    times.iter().map(|(touched, took)| (count(*touched), *took)).collect()
}

/// The same number of changed tables must take the same time in the large lake.
fn judge(row: &mut Row, large: &Times, small: &Times) {
    let common = large.iter().rev().find_map(|(n, took)| Some((n, took, small.get(n)?)));
    if let Some((changed, in_large, in_small)) = common {
        let grown = in_large / in_small.max(1e-3);
        row.limits.push(Limit::at_most("commit time by that in fewer tables", grown, 1.3, 1.1));
        let all: Vec<String> = large.iter().map(|(n, took)| format!("{n}: {took:.0}")).collect();
        row.note = format!(
            "ms by changed tables: {}; {changed} in the lake of fewer tables: {in_small:.0}",
            all.join(", ")
        );
    }
}
