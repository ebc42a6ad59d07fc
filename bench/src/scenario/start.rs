//! From the start of the process to the first WAL that the server sends it.

use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::figures::{Limit, Measured, Row, percentile};
use crate::stage::Stage;
use crate::{Context, Result, fail};

use super::streams::events;

/// When (in Unix seconds) the slot's walsender had sent all before `lsn`; looks every millisecond.
/// `pg_stat_replication` would be as of the transaction's start, so not that view.
const SENT: &str = "
    CREATE FUNCTION sent_at(slot text, lsn pg_lsn) RETURNS float8 LANGUAGE plpgsql AS $$
    BEGIN
      FOR i IN 1..60000 LOOP
        PERFORM FROM pg_stat_get_wal_senders() s JOIN pg_replication_slots r ON r.active_pid = s.pid
          WHERE r.slot_name = slot AND s.sent_lsn >= lsn;
        IF FOUND THEN RETURN extract(epoch FROM clock_timestamp()); END IF;
        PERFORM pg_sleep(0.001);
      END LOOP;
      RETURN NULL;
    END $$;";

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let starts = context.scaled(20, 3);
    let mut stage = Stage::new(context, &format!("{}{SENT}", events(1_000)))?;
    stage.seed()?;
    context.say(&format!("{starts} starts"));
    let mut took = Vec::new();
    let mut measured = Measured::default();
    for number in 0..starts {
        let (seconds, one) = start(&stage, number)?;
        took.push(seconds * 1e3);
        measured = one;
    }
    stage.verify(&stage.frazil)?;
    let (p50, max) = (percentile(&took, 50), percentile(&took, 100));
    let row = Row {
        scenario: "start".to_owned(),
        frazil: Some(measured),
        limits: vec![Limit::at_most("ms to first WAL", p50, 300.0, 100.0)],
        note: format!("first WAL after {p50:.0} ms (p50 of {starts}), at most {max:.0} ms"),
        ..Row::default()
    };
    Ok(vec![row])
}

/// Writes a row, starts frazil, and gives the seconds until that row was sent.
fn start(stage: &Stage, number: u64) -> Result<(f64, Measured)> {
    stage.postgres.sql(&format!("CALL insert_event({})", 1_000_000 + number))?;
    let lsn = stage.postgres.sql("SELECT pg_current_wal_insert_lsn()")?;
    let slot = &stage.frazil.slot;
    let mut watch = stage.postgres.psql();
    watch.args(["-c", &format!("SELECT sent_at('{slot}', '{lsn}')")]);
    let watch = watch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    // It looks while frazil starts, not after.
    let watching = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT sent_at(%'";
    crate::process::wait_until("psql watches", std::time::Duration::from_secs(30), || {
        Ok(stage.postgres.sql(watching)? == "1")
    })?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut running = stage.frazil.run(&["--commit-interval", "100ms"])?;
    let output = watch.wait_with_output()?;
    running.check()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Ok(sent) = text.trim().parse::<f64>() else {
        return fail(format!("the server never sent what was there: {text}"));
    };
    stage.wait_acknowledged(slot)?;
    Ok((sent - began, Measured::new(running.stop()?, 0.0)))
}
