//! The same load into Nessie with MinIO and into a folder with SQLite; and how long until a commit
//! at the source is one of Nessie.

use crate::baseline::DEADLINE;
use crate::figures::Row;
use crate::frazil::{Frazil, Lake, lags_s};
use crate::postgres::Postgres;
use crate::process::output_of;
use crate::servers::{KEY, SECRET, Servers};
use crate::stage::Stage;
use crate::{Context, Result};

use super::live::{self, COMMIT_INTERVAL, commit_times};
use super::streams::{events, mixed};

/// Rows of a source transaction where latency is measured.
const ROWS: u64 = 10;
/// Changes per second where latency is measured.
const RATES: [u64; 2] = [1_000, 5_000];

/// Folder, Nessie, folder, on the same WAL.
pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let stream = mixed(context);
    // Three lakes get these base rows: a fifth is enough for the updates to spread over.
    let setup = events(context.scaled(1_000_000, 5_000));
    let mut stage = Stage::new(context, &setup)?;
    stage.seed()?;
    let servers = Servers::start(context, stage.folder.path())?;
    let nessie = on_nessie(&stage, &servers);
    context.say("Nessie gets the base rows");
    nessie.catch_up(DEADLINE)?;
    stage.load(|postgres| stream.load.write(postgres))?;
    let folder = stage.frazil.clone();
    let before = stage.follow(&folder)?;
    context.say("into Nessie");
    let into_nessie = stage.follow_once(&nessie)?;
    let after = stage.follow(&folder)?;
    stage.verify(&folder)?;
    stage.verify(&nessie)?;
    let row = Row {
        scenario: "catalog".to_owned(),
        rows: stream.changes,
        before: Some(before.measured),
        frazil: Some(into_nessie.measured),
        after: Some(after.measured),
        bytes_per_row: into_nessie.bytes_per_row(stream.changes),
        lake_commits: Some(into_nessie.lake_commits.len()),
        note: "baseline: frazil into a folder".to_owned(),
        ..Row::default()
    };
    Ok(vec![row.ratio_at_least(0.8, 0.95)])
}

/// pgbench with transactions of ten rows at a fixed rate.
pub(super) fn latency(context: &Context) -> Result<Vec<Row>> {
    let seconds = context.scaled(60, 2);
    let tables = RATES.map(|rate| {
        format!("CREATE TABLE rate_{rate} (id int8 PRIMARY KEY, v text, n int4, mark int4);")
    });
    let mut stage = Stage::new(context, &tables.concat())?;
    let servers = Servers::start(context, stage.folder.path())?;
    let nessie = on_nessie(&stage, &servers);
    nessie.catch_up(DEADLINE)?;
    let mut rows = Vec::new();
    for rate in RATES {
        context.say(&format!("{rate} changes/s"));
        let table = format!("rate_{rate}");
        let script = stage.folder.path().join("rate.sql");
        std::fs::write(&script, insert_script(&table))?;
        let live = live::follow(&stage, &nessie, COMMIT_INTERVAL, |postgres| {
            pgbench(postgres, &script, rate / ROWS, seconds)
        })?;
        let changes: u64 = stage.postgres.number(&format!("SELECT count(*) FROM {table}"))?;
        let lags = lags_s(&live.lake_commits, commit_times(&stage.postgres, &table)?);
        let mut row = live.row(format!("latency, {rate} changes/s on Nessie"), changes, &lags);
        row.note = format!("{} changes/s reached", changes / seconds.max(1));
        rows.push(row);
    }
    stage.verify(&nessie)?;
    stage.frazil = nessie;
    Ok(rows)
}

/// Keys that no two clients share.
fn insert_script(table: &str) -> String {
    format!(
        "\\set id random(1, 1000000000000)\n\
         INSERT INTO {table} SELECT :id + g, md5((:id + g)::text), g FROM \
         generate_series(1, {ROWS}) g ON CONFLICT (id) DO NOTHING;\n"
    )
}

fn pgbench(
    postgres: &Postgres,
    script: &std::path::Path,
    per_second: u64,
    seconds: u64,
) -> Result<()> {
    let mut pgbench = postgres.program("pgbench");
    pgbench.args(["-n", "-c", "4", "-R", &per_second.to_string(), "-T", &seconds.to_string()]);
    output_of(pgbench.arg("-f").arg(script).arg("postgres"))?;
    Ok(())
}

fn on_nessie(stage: &Stage, servers: &Servers) -> Frazil {
    Frazil {
        lake: Lake::Nessie {
            uri: servers.nessie_uri(),
            key: KEY.to_owned(),
            secret: SECRET.to_owned(),
        },
        slot: "nessie".to_owned(),
        log: stage.folder.path().join("frazil-nessie.log"),
        ..stage.frazil.clone()
    }
}
