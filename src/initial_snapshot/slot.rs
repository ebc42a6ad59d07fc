//! The slot that an initial snapshot begins with, and the wait for it.
//!
//! Making a slot waits for every source transaction that is writing (case 132). So who that is is
//! shown, the wait has an end, and a slot that is given up leaves nothing behind.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_postgres::Client;

use crate::config::{Failover, Settings};
use crate::error::{Error, Result};
use crate::ops::Shutdown;
use crate::postgres::catalog::server_version;
use crate::postgres::server_error::from_sql;
use crate::postgres::session::{CreatedSlot, Session, SlotOptions};
use crate::postgres::slot::{self, Blocker};

/// When a wait is first worth a line, and how often it is after that.
const LOOK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));
/// How long a cancelled session may take to say so.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// The first server whose slots standbys can have too.
const FAILOVER_SLOTS: u32 = 170_000;

/// Creates the slot and exports a snapshot; where the slot exists, a temporary one that lives as
/// long as `session`. `SLOT_BLOCKED` after `slot_timeout`, `STOPPED` at a stop.
pub(crate) async fn export_snapshot(
    client: &Client,
    session: &mut Session,
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<CreatedSlot> {
    if slot::slot_info(client, &settings.slot).await?.is_some() {
        return export_temporary(client, session, settings, shutdown).await;
    }
    let failover = failover(client, settings).await?;
    let options = SlotOptions { export_snapshot: true, failover, ..SlotOptions::default() };
    let name = settings.slot.as_str();
    match create(client, session, (name, options), settings, shutdown).await? {
        Outcome::Created(created) => Ok(created),
        Outcome::GaveUp(error) => Err(error),
        Outcome::TooLate(error) => {
            session.drop_slot(name).await?;
            Err(error)
        }
    }
}

/// As [`export_snapshot`], always with a slot that lives as long as `session`.
pub(super) async fn export_temporary(
    client: &Client,
    session: &mut Session,
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<CreatedSlot> {
    let name = format!("frazil_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let options = SlotOptions { export_snapshot: true, temporary: true, ..SlotOptions::default() };
    match create(client, session, (&name, options), settings, shutdown).await? {
        Outcome::Created(created) => Ok(created),
        Outcome::GaveUp(error) | Outcome::TooLate(error) => Err(error),
    }
}

/// How the wait for a slot ended.
enum Outcome {
    Created(CreatedSlot),
    /// There is no slot.
    GaveUp(Error),
    /// It was made after all, while it was being given up.
    TooLate(Error),
}

async fn create(
    client: &Client,
    session: &mut Session,
    (name, options): (&str, SlotOptions),
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Outcome> {
    let pid = session.backend_pid();
    let mut creating = pin!(session.create_slot(name, options));
    let mut patience = pin!(sleep(settings.slot_timeout));
    let mut look = interval_at(Instant::now() + LOOK.0, LOOK.1);
    let gave_up = loop {
        tokio::select! {
            biased;
            // It is made.
            created = &mut creating => return created.map(Outcome::Created),
            // A stop need not wait for others' transactions.
            () = shutdown.requested() => break super::stopped(),
            // Long enough.
            () = &mut patience => break blocked(client, pid, settings.slot_timeout).await?,
            // Say what it waits for.
            _ = look.tick() => show(&blockers(client, pid).await?),
        }
    };
    let cancel = "SELECT pg_catalog.pg_cancel_backend($1)";
    client.query(cancel, &[&pid]).await.map_err(from_sql)?;
    match timeout(CANCEL_GRACE, creating).await {
        Ok(Ok(_)) => Ok(Outcome::TooLate(gave_up)),
        _ => Ok(Outcome::GaveUp(gave_up)),
    }
}

/// Whether standbys get the slot too, so that it is there after a failover (case 19). A standby
/// itself cannot make such a slot.
async fn failover(client: &Client, settings: &Settings) -> Result<bool> {
    if settings.failover != Failover::Auto {
        return Ok(settings.failover == Failover::On);
    }
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    let is_standby: bool = client.query_one(sql, &[]).await.map_err(from_sql)?.get(0);
    Ok(!is_standby && server_version(client).await? >= FAILOVER_SLOTS)
}

/// Whom the session `pid` waits for. A role that may not see the others' sessions sees their pids.
async fn blockers(client: &Client, pid: i32) -> Result<Vec<Blocker>> {
    let seen = slot::slot_blockers(client).await?;
    if seen.is_empty() { slot::blocking_pids(client, pid).await } else { Ok(seen) }
}

fn show(blockers: &[Blocker]) {
    for blocker in blockers {
        tracing::warn!(cure = blocker.cure(), "the slot waits for {blocker}");
    }
    if blockers.is_empty() {
        tracing::warn!(
            "the slot is not made yet; a standby waits for its primary, where SELECT \
             pg_log_standby_snapshot() makes it quick"
        );
    }
}

async fn blocked(client: &Client, pid: i32, waited: Duration) -> Result<Error> {
    let blockers = blockers(client, pid).await?;
    let who: Vec<String> = blockers.iter().map(ToString::to_string).collect();
    let what = format!(
        "the slot could not be made within {}: it waits for {}",
        humantime::format_duration(waited),
        if who.is_empty() { "nothing that can be seen".to_owned() } else { who.join("; ") }
    );
    let cure = blockers.first().map_or_else(
        || "raise initial_snapshot.slot_timeout".to_owned(),
        |first| format!("{}; or raise initial_snapshot.slot_timeout", first.cure()),
    );
    Ok(Error::transient("SLOT_BLOCKED", what).with_cure(cure))
}
