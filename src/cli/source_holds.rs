//! What holds the source back, for `frazil status`: the oldest open source transaction, from whose
//! beginning WAL is kept (case 128); standbys that the stream waits for (case 20); and how far back
//! an initial snapshot keeps vacuum (case 138).

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::catalog::server_version;
use crate::postgres::server_error::from_sql;
use crate::postgres::slot::{Blocker, slot_blockers};

/// An open source transaction is worth a line from this age on, in seconds.
const OLD_S: f64 = 60.0;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Holds {
    oldest: Option<Blocker>,
    /// Slots of `synchronized_standby_slots` that no standby reads.
    standbys: Vec<String>,
    /// Age of the oldest snapshot that a copy of ours holds, in source transactions.
    snapshot_age: Option<i64>,
}

impl Holds {
    pub(super) async fn of(client: &Client, slot: &str) -> Result<Self> {
        let age = "SELECT max(age(backend_xmin))::int8 FROM pg_catalog.pg_stat_activity \
                   WHERE application_name = 'frazil/initial-snapshot'";
        let snapshot_age = client.query_one(age, &[]).await.map_err(from_sql)?.get(0);
        Ok(Self {
            oldest: slot_blockers(client).await?.into_iter().next(),
            standbys: standbys(client, slot).await?,
            snapshot_age,
        })
    }

    /// The lines of the status that there is something to say in.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for standby in &self.standbys {
            lines.push(format!(
                "held        the stream waits for the standby {standby}, which is down \
                 (synchronized_standby_slots)"
            ));
        }
        if let Some(oldest) = self.oldest.as_ref().filter(|oldest| oldest.age_s >= OLD_S) {
            lines.push(format!("held        WAL is kept for {oldest}"));
        }
        if let Some(age) = self.snapshot_age {
            lines.push(format!("held        vacuum, by a copy that is {age} transactions old"));
        }
        lines
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "oldest_transaction": self.oldest.as_ref().map(|oldest| json!({
                "pid": oldest.pid,
                "user": oldest.user,
                "query": oldest.query,
                "age_seconds": oldest.age_s,
            })),
            "standbys_waited_for": self.standbys,
            "initial_snapshot_age_transactions": self.snapshot_age,
        })
    }
}

async fn standbys(client: &Client, slot: &str) -> Result<Vec<String>> {
    if server_version(client).await? < 170_000 {
        return Ok(Vec::new());
    }
    let sql = "\
        SELECT trim(wanted.name) \
        FROM pg_catalog.unnest(pg_catalog.string_to_array( \
               current_setting('synchronized_standby_slots'), ',')) AS wanted(name) \
             LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = trim(wanted.name) \
        WHERE s.active IS NOT TRUE \
          AND EXISTS (SELECT FROM pg_catalog.pg_replication_slots o \
                      WHERE o.slot_name = $1::text AND o.failover)";
    let rows = client.query(sql, &[&slot]).await.map_err(from_sql)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
