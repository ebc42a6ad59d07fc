//! The independent client: a temporary slot with an exported snapshot at L, and the slot's own
//! stream from there.
//!
//! It is pgwire-replication, text mode, protocol 1. Only the wire below it is ours (addresses, TLS;
//! see [`Tunnel`]). A temporary slot lives and dies with its session, so nothing is left behind,
//! whatever happens; and nothing of it is ever acknowledged, so the server says after each burst
//! how far it has read.

use std::time::Duration;

use bytes::Bytes;
use pgwire_replication::client::ReplicationEvent;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig};
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::postgres::dsn::Source;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::server_error::from_sql;
use crate::postgres::tunnel::{PORT, Tunnel};
use crate::progress::Lsn;

/// Events that wait for us, at most.
const EVENTS_MAX: usize = 1024;
/// Silence after which the server is asked how far it is.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// Settings that decide how values look (case 59), on the walsender.
const PINNED: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex \
                      -c extra_float_digits=3 -c TimeZone=UTC -c statement_timeout=0 \
                      -c lc_monetary=C -c search_path=";

/// A logged-in walsender session.
pub(super) struct Follower {
    client: ReplicationClient,
    tunnel: Tunnel,
    slot: String,
    is_streaming: bool,
}

/// Where a slot begins.
#[derive(Debug, Clone)]
pub(super) struct Begins {
    /// Source transactions with a `commit_lsn` below this are in the snapshot.
    pub(super) consistent_point: Lsn,
    /// Its exported snapshot.
    pub(super) snapshot: String,
}

/// One step of the stream.
#[derive(Debug)]
pub(super) enum Step {
    /// A source transaction begins; its changes follow.
    Begin { commit_lsn: Lsn },
    /// A message between.
    Change(Bytes),
    /// The source transaction is complete; P is such an `end_lsn`.
    End { end_lsn: Lsn },
    /// Between source transactions: everything that commits before this has been sent.
    Reached(Lsn),
}

impl Follower {
    /// Logs in and makes nothing yet.
    pub(super) async fn connect(source: &Source, publications: &[String]) -> Result<Self> {
        let tunnel = Tunnel::open(source).await?;
        let slot = format!("frazil_verify_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let (user, password) = (source.user.clone(), source.password().unwrap_or_default());
        let options = format!("{} {PINNED}", source.options.as_deref().unwrap_or_default());
        let folder = tunnel.folder().display().to_string();
        // The server folds what is not quoted to lower case.
        let names: Vec<String> = publications.iter().map(|name| identifier(name)).collect();
        let config = ReplicationConfig::unix(
            folder,
            PORT,
            user,
            password,
            source.database.clone(),
            slot.clone(),
            names,
        )
        .with_options(options)
        .with_buffer_size(EVENTS_MAX)
        .with_status_interval(STATUS_INTERVAL)
        .with_wakeup_interval(STATUS_INTERVAL)
        .with_application_name(application_name(&slot));
        let client = ReplicationClient::connect_gated(config).await.map_err(broken)?;
        Ok(Self { client, tunnel, slot, is_streaming: false })
    }

    /// `system_identifier` and timeline of the server.
    pub(super) async fn identify(&mut self) -> Result<(String, u32)> {
        let identity = self.client.identify_system().await.map_err(broken)?;
        Ok((identity.system_id, identity.timeline))
    }

    /// Makes the slot and exports its snapshot. Postgres waits for all source transactions that
    /// are writing now (case 132); after `patience` the creation is cancelled, and the error names
    /// them.
    ///
    /// # Errors
    /// `SLOT_BLOCKED` (transient).
    pub(super) async fn create_slot(&mut self, sql: &Client, patience: Duration) -> Result<Begins> {
        let create = format!(
            "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT",
            self.slot
        );
        let name = application_name(&self.slot);
        let making = self.client.simple_query(&create);
        tokio::pin!(making);
        let rows = match tokio::time::timeout(patience, &mut making).await {
            Ok(rows) => rows.map_err(broken)?,
            Err(_) => {
                let error = blocked(sql, &name, patience).await?;
                // The cancelled statement ends; a session that does not is dropped with us.
                let _ = tokio::time::timeout(STATUS_INTERVAL, making).await;
                return Err(error);
            }
        };
        let cell = |at: usize| -> Result<String> {
            let value = rows.first().and_then(|row| row.get(at)).cloned().flatten();
            let value = value.ok_or_else(|| protocol("CREATE_REPLICATION_SLOT gave no row"))?;
            Ok(String::from_utf8_lossy(&value).into_owned())
        };
        Ok(Begins { consistent_point: cell(1)?.parse()?, snapshot: cell(2)? })
    }

    /// Makes a temporary copy of another slot; it begins where that one is acknowledged.
    pub(super) async fn copy_slot(&mut self, of: &str) -> Result<()> {
        let sql = format!(
            "SELECT pg_catalog.pg_copy_logical_replication_slot({}, {}, true)",
            literal(of),
            literal(&self.slot)
        );
        self.client.simple_query(&sql).await.map(|_| ()).map_err(broken)
    }

    /// Starts the slot's stream, from where the slot begins, unless it is started.
    pub(super) async fn start(&mut self) -> Result<()> {
        if self.is_streaming {
            return Ok(());
        }
        self.client.start().await.map_err(broken)?;
        self.is_streaming = true;
        self.client.wait_started().await.map_err(broken)
    }

    /// The next step of the stream.
    pub(super) async fn next(&mut self) -> Result<Step> {
        loop {
            let event = self.client.recv().await.map_err(broken)?;
            return Ok(match event.ok_or_else(|| protocol("the stream ended"))? {
                ReplicationEvent::Begin { final_lsn, .. } => {
                    Step::Begin { commit_lsn: Lsn(final_lsn.as_u64()) }
                }
                ReplicationEvent::XLogData { data, .. } => Step::Change(data),
                ReplicationEvent::Commit { end_lsn, .. } => {
                    Step::End { end_lsn: Lsn(end_lsn.as_u64()) }
                }
                ReplicationEvent::KeepAlive { wal_end, .. } => Step::Reached(Lsn(wal_end.as_u64())),
                _ => continue,
            });
        }
    }

    /// Ends the session; returns when the slot is gone.
    pub(super) async fn close(mut self) {
        if self.is_streaming {
            // The server ends it either way, and the slot with it.
            let _ = tokio::time::timeout(STATUS_INTERVAL, self.client.shutdown()).await;
            self.client.abort();
        }
        // A session that streams nothing ends when its client is dropped.
        drop(self.client);
        self.tunnel.closed().await;
    }
}

fn application_name(slot: &str) -> String {
    format!("frazil/verify {slot}")
}

/// Cancels our slot's creation and says who is in its way.
async fn blocked(sql: &Client, name: &str, patience: Duration) -> Result<Error> {
    const WHO: &str = "\
        SELECT b.pid, coalesce(b.query, '')::text AS query, coalesce(b.state, '')::text AS state, \
               coalesce(extract(epoch FROM now() - b.xact_start), 0)::int8 AS seconds \
        FROM pg_catalog.pg_stat_activity ours, \
             LATERAL unnest(pg_catalog.pg_blocking_pids(ours.pid)) AS blocker(pid) \
        JOIN pg_catalog.pg_stat_activity b ON b.pid = blocker.pid \
        WHERE ours.application_name = $1::text ORDER BY b.xact_start LIMIT 3";
    const CANCEL: &str = "\
        SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE application_name = $1::text";
    let rows = sql.query(WHO, &[&name]).await.map_err(from_sql)?;
    sql.query(CANCEL, &[&name]).await.map_err(from_sql)?;
    let who: Vec<String> = rows
        .iter()
        .map(|row| {
            let (pid, seconds): (i32, i64) = (row.get("pid"), row.get("seconds"));
            let (state, query): (&str, String) = (row.get("state"), row.get("query"));
            let query: String = query.chars().take(200).collect();
            format!("pid {pid} ({state}, its transaction is {seconds} s old): {query}")
        })
        .collect();
    let who = if who.is_empty() { "nobody that can be seen".to_owned() } else { who.join("; ") };
    let patience = humantime::format_duration(patience);
    let what =
        format!("the temporary slot could not be made within {patience}; it waits for {who}");
    Ok(Error::transient("SLOT_BLOCKED", what).with_cure(
        "let that transaction end, or end it: SELECT pg_terminate_backend(PID); or be more patient: \
         --slot-timeout",
    ))
}

fn protocol(what: &str) -> Error {
    Error::transient("CONNECTION", format!("verify's replication session: {what}"))
}

fn broken(error: PgWireError) -> Error {
    let kind = match &error {
        PgWireError::Server(text) if text.contains("53400") || text.contains("all replication") => {
            return Error::config("SLOTS_FULL", "no replication slot is free for verify")
                .with_source(error)
                .with_cure("raise max_replication_slots, or drop a slot that nobody uses");
        }
        PgWireError::Auth(_) => {
            return Error::config("AUTH", "verify's replication session was refused")
                .with_source(error);
        }
        PgWireError::Server(_) => Error::transient("VERIFY_SESSION", "Postgres refused a command"),
        PgWireError::MessageTooLarge { .. } | PgWireError::Protocol(_) => {
            Error::fatal("VERIFY_STREAM", "the replication stream cannot be read")
        }
        _ => Error::transient("CONNECTION", "verify's replication session broke"),
    };
    kind.with_source(error)
}
