//! The initial snapshot of one table, by one worker and by two, beside COPY to /dev/null.

use crate::baseline::{self, DEADLINE};
use crate::figures::{Measured, Row, count};
use crate::frazil::{Frazil, Lake, PUBLICATION, SLOT};
use crate::stage::Stage;
use crate::{Context, Result};

use super::streams::events;

/// The source: 5,000,000 rows of 10 columns; and how many they are.
pub(crate) fn staged(context: &Context) -> Result<(Stage<'_>, u64)> {
    let rows = context.scaled(5_000_000, 5_000);
    let stage = Stage::new(context, &events(rows))?;
    stage.postgres.sql("DROP TABLE bench_mark; VACUUM ANALYZE events; CHECKPOINT;")?;
    Ok((stage, rows))
}

pub(crate) fn run(context: &Context) -> Result<Vec<Row>> {
    let (stage, rows) = staged(context)?;
    let mut done = Vec::new();
    for workers in [1, 2] {
        let before = copy(&stage, workers)?;
        let (measured, frazil) = snapshot(&stage, &stage.frazil, workers)?;
        let after = copy(&stage, workers)?;
        stage.verify(&frazil)?;
        let row = Row {
            scenario: format!("snapshot, {workers} worker{}", if workers == 1 { "" } else { "s" }),
            rows,
            before: Some(before),
            frazil: Some(measured),
            after: Some(after),
            bytes_per_row: Some(count(frazil.stored_bytes()?) / count(rows)),
            ..Row::default()
        };
        let (must, aim) = if workers == 1 { (0.9, 1.0) } else { (0.6, 0.7) };
        done.push(row.ratio_at_least(must, aim).cpu_at_most(0.9, 0.55));
    }
    Ok(done)
}

fn copy(stage: &Stage, workers: u64) -> Result<Measured> {
    stage.context.say(&format!("COPY by {workers}"));
    baseline::copy(&stage.postgres, "events", workers, stage.folder.path())
}

/// A fresh lake, from a new slot to its first lake commit; the lake before it is gone.
pub(crate) fn snapshot(stage: &Stage, frazil: &Frazil, workers: u64) -> Result<(Measured, Frazil)> {
    stage.context.say(&format!("frazil by {workers}"));
    let lake = stage.folder.path().join("snapshot");
    if lake.exists() {
        std::fs::remove_dir_all(&lake)?;
    }
    stage.postgres.drop_slot(SLOT)?;
    stage.postgres.sql(&format!("DROP PUBLICATION IF EXISTS {PUBLICATION}"))?;
    let settings = vec![("FRAZIL_INITIAL_SNAPSHOT__WORKERS", workers.to_string())];
    let frazil = Frazil { lake: Lake::Folder(lake), settings, ..frazil.clone() };
    stage.postgres.settle()?;
    let server_cpu_s = stage.postgres.cpu_s();
    let used = frazil.run(&["--initial-snapshot", "only"])?.wait(DEADLINE)?;
    Ok((Measured::new(used, stage.postgres.cpu_s() - server_cpu_s), frazil))
}
