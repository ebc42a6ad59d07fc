//! Replication slots as `pg_replication_slots` shows them.

use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::catalog::server_version;
use crate::postgres::server_error::from_sql;
use crate::progress::Lsn;

/// One replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// Database; `None` for a physical slot.
    pub database: Option<String>,
    /// Process that reads it now.
    pub active_pid: Option<i32>,
    /// What was acknowledged; not durable on the server (case 5).
    pub confirmed_flush_lsn: Option<Lsn>,
    /// WAL is kept from here on; `None` where the slot is lost.
    pub restart_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL until the slot may be lost; `None` where there is no limit.
    pub safe_wal_size: Option<i64>,
    /// Decodes at PREPARE (server 14 and later).
    pub two_phase: bool,
    /// Gone with its session.
    pub temporary: bool,
    /// Standbys have it too (server 17 and later).
    pub failover: bool,
    /// Why it is of no use any more, where the server says (16: conflict; 17: the reason).
    pub invalidation: Option<String>,
}

impl SlotInfo {
    /// Whether the WAL it needs is gone (case 18).
    pub fn is_lost(&self) -> bool {
        self.invalidation.is_some() || self.wal_status.as_deref() == Some("lost")
    }
}

/// A process that keeps a slot from being made (case 132).
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Its pid.
    pub pid: i32,
    /// Role.
    pub user: String,
    /// What it runs or ran last.
    pub query: String,
    /// How long its source transaction has been open, in seconds.
    pub age_s: f64,
}

/// How much of a query is shown.
const QUERY_CHARS: usize = 200;

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let query: String = self.query.chars().take(QUERY_CHARS).collect();
        match self.pid {
            0 => write!(f, "a prepared transaction of {}", self.user)?,
            pid => write!(f, "process {pid} ({})", self.user)?,
        }
        write!(f, ", which has been writing for {:.0} s: {query}", self.age_s)
    }
}

impl Blocker {
    /// What ends it.
    pub fn cure(&self) -> String {
        match self.pid {
            0 => format!(
                "let it end: COMMIT PREPARED or ROLLBACK PREPARED ({})",
                self.query.trim_start_matches("PREPARE TRANSACTION ")
            ),
            pid => format!("let it commit, or SELECT pg_terminate_backend({pid})"),
        }
    }
}

/// The slot called `name`, if there is one.
pub async fn slot_info(client: &Client, name: &str) -> Result<Option<SlotInfo>> {
    let version = server_version(client).await?;
    let two_phase = if version >= 140_000 { "two_phase" } else { "false" };
    let failover = if version >= 170_000 { "failover" } else { "false" };
    let invalidation = match version {
        170_000.. => "invalidation_reason::text",
        160_000.. => "CASE WHEN conflicting THEN 'conflict' END",
        _ => "NULL::text",
    };
    let sql = format!(
        "SELECT plugin::text, database::text, active_pid, confirmed_flush_lsn::text AS confirmed, \
                restart_lsn::text AS restart, wal_status::text, safe_wal_size, temporary, \
                {two_phase} AS two_phase, {failover} AS failover, \
                {invalidation} AS invalidation \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text"
    );
    let Some(row) = client.query_opt(&sql, &[&name]).await.map_err(from_sql)? else {
        return Ok(None);
    };
    let lsn = |name: &str| row.get::<_, Option<&str>>(name).map(str::parse).transpose();
    Ok(Some(SlotInfo {
        plugin: row.get("plugin"),
        database: row.get("database"),
        active_pid: row.get("active_pid"),
        confirmed_flush_lsn: lsn("confirmed")?,
        restart_lsn: lsn("restart")?,
        wal_status: row.get("wal_status"),
        safe_wal_size: row.get("safe_wal_size"),
        two_phase: row.get("two_phase"),
        temporary: row.get("temporary"),
        failover: row.get("failover"),
        invalidation: row.get("invalidation"),
    }))
}

/// Processes with a source transaction that has written and is still open, oldest first: making a
/// slot waits for every one of them, prepared ones (without a pid) too.
pub async fn slot_blockers(client: &Client) -> Result<Vec<Blocker>> {
    let sql = "\
        SELECT pid, coalesce(usename::text, '') AS usename, coalesce(query, '') AS query, \
               extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age \
        FROM pg_catalog.pg_stat_activity \
        WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() \
      UNION ALL \
        SELECT 0, owner::text, 'PREPARE TRANSACTION ' || pg_catalog.quote_literal(gid), \
               extract(epoch FROM clock_timestamp() - prepared)::float8 \
        FROM pg_catalog.pg_prepared_xacts \
        ORDER BY 4 DESC";
    let rows = client.query(sql, &[]).await.map_err(from_sql)?;
    Ok(rows
        .iter()
        .map(|row| Blocker {
            pid: row.get(0),
            user: row.get(1),
            query: row.get(2),
            age_s: row.get::<_, Option<f64>>(3).unwrap_or(0.0),
        })
        .collect())
}

/// Who holds the lock that the process `pid` waits for; what else there is to know of them, others
/// may not see.
pub async fn blocking_pids(client: &Client, pid: i32) -> Result<Vec<Blocker>> {
    let sql = "SELECT DISTINCT unnest(pg_catalog.pg_blocking_pids($1))";
    let rows = client.query(sql, &[&pid]).await.map_err(from_sql)?;
    let hidden = "its query shows itself to a member of pg_read_all_stats";
    let blocker = |pid| Blocker {
        pid,
        user: "another role".to_owned(),
        query: hidden.to_owned(),
        age_s: 0.0,
    };
    Ok(rows.iter().map(|row| blocker(row.get(0))).collect())
}
