//! Nothing to do for five minutes, while another database writes 1 GiB in the second half.

use std::time::{Duration, Instant};

use crate::figures::{Limit, Measured, Row, mib};
use crate::process::{Running, Used};
use crate::stage::Stage;
use crate::{Context, Result};

use super::live;
use super::streams::events;

/// Another database of the same server, with a table that takes `mib` MiB of WAL.
const OTHER: &str = "
    CREATE DATABASE other;
    \\connect other
    CREATE TABLE junk(t text);
    CREATE PROCEDURE write_mib(n int) LANGUAGE sql AS $$
      TRUNCATE junk;
      INSERT INTO junk SELECT repeat('x', 950) FROM generate_series(1, n * 1024);
    $$;";

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let seconds = context.scaled(300, 6);
    let written = context.scaled(1_024, 8);
    let mut stage = Stage::new(context, &events(1_000))?;
    stage.postgres.sql(OTHER)?;
    stage.seed()?;
    let mut running = stage.frazil.run(&[])?;
    live::wait_active(&mut running, &stage.postgres, &stage.frazil.slot)?;
    // What it does at its start is not idling.
    std::thread::sleep(Duration::from_secs(seconds.min(5)));
    let seen = watch(&stage, &running, (seconds, written))?;
    running.check()?;
    running.stop()?;
    stage.verify(&stage.frazil)?;
    let Used { wall_s, cpu_s, peak_rss_bytes } = seen.used;
    let percent = cpu_s / wall_s * 100.0;
    let grown = mib(seen.retained_max.saturating_sub(seen.retained_before));
    let measured = Measured { wall_s, cpu_s, peak_rss_bytes, ..Measured::default() };
    let row = Row { scenario: "idle".to_owned(), frazil: Some(measured), ..Row::default() };
    let mut row = row.rss_at_most(60.0, 40.0);
    row.limits.push(Limit::at_most("CPU %", percent, 0.2, 0.2));
    row.limits.push(Limit::at_most("retained WAL MiB", grown, 256.0, 128.0));
    row.note = format!(
        "{wall_s:.0} s; CPU {percent:.2} %; another database wrote {written} MiB, the slot kept at \
         most {grown:.0} MiB more than before"
    );
    Ok(vec![row])
}

struct Seen {
    used: Used,
    /// Bytes of WAL that the slot keeps, before and at most.
    retained_before: u64,
    retained_max: u64,
}

fn watch(stage: &Stage, running: &Running, (seconds, mib): (u64, u64)) -> Result<Seen> {
    let retained = || -> Result<u64> {
        stage.postgres.number(&format!(
            "SELECT pg_current_wal_insert_lsn() - restart_lsn FROM pg_replication_slots \
             WHERE slot_name = '{}'",
            stage.frazil.slot
        ))
    };
    let (began, cpu_s, half) = (Instant::now(), running.cpu_s(), seconds / 2);
    stage.context.say(&format!("idle, {half} s"));
    let retained_before = retained()?;
    let mut seen = Seen { used: Used::default(), retained_before, retained_max: 0 };
    let (mut said, mut written) = (false, 0);
    while began.elapsed().as_secs() < seconds {
        let second = began.elapsed().as_secs();
        if second >= half {
            if !std::mem::replace(&mut said, true) {
                stage.context.say(&format!("another database writes {mib} MiB"));
            }
            // As much as is due by now.
            let due = (mib * (second + 1 - half)).div_ceil(seconds - half).min(mib);
            if due > written {
                let mut psql = stage.postgres.program("psql");
                psql.args([
                    "-qX",
                    "-d",
                    "other",
                    "-c",
                    &format!("CALL write_mib({})", due - written),
                ]);
                crate::process::output_of(&mut psql)?;
                written = due;
            }
        }
        seen.retained_max = seen.retained_max.max(retained()?);
        seen.used.peak_rss_bytes = seen.used.peak_rss_bytes.max(running.rss_bytes());
        std::thread::sleep(Duration::from_millis(500));
    }
    seen.used.wall_s = began.elapsed().as_secs_f64();
    seen.used.cpu_s = running.cpu_s() - cpu_s;
    Ok(seen)
}
