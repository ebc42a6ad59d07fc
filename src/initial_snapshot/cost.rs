//! What a copy costs the source while it runs: vacuum can't remove what its snapshot still sees,
//! and WAL is kept from where its slot began (case 138).

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::ops::Stats;
use crate::postgres::dsn::Source;
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_sql;

/// How often the source is asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Watches over one copy; its figures go when it does.
pub(super) struct Cost<'a> {
    pub(super) source: &'a Source,
    /// The pipeline's slot.
    pub(super) slot: &'a str,
    /// Sessions that hold the snapshot, one with a temporary slot perhaps.
    pub(super) pids: Vec<i32>,
    /// Bytes of WAL that may be kept.
    pub(super) retained_wal_max: Option<u64>,
    pub(super) stats: &'a Arc<Stats>,
}

impl Cost<'_> {
    /// Keeps the figures up to date; returns when the limit is passed.
    pub(super) async fn watch(&self) -> Error {
        let mut client: Option<Client> = None;
        loop {
            match self.look(&mut client).await {
                Ok(None) => {}
                Ok(Some(over)) => return over,
                Err(error) => {
                    tracing::debug!(%error, "what the copy costs the source is not known now");
                    client = None;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, client: &mut Option<Client>) -> Result<Option<Error>> {
        let client = match client {
            Some(client) => client,
            none => none.insert(connect_sql(self.source, "copy-cost").await?),
        };
        let sql = "\
            WITH server AS (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
                THEN pg_catalog.pg_last_wal_replay_lsn() \
                ELSE pg_catalog.pg_current_wal_insert_lsn() END AS wal_end) \
            SELECT (SELECT max(pg_catalog.age(backend_xmin))::int8 \
                    FROM pg_catalog.pg_stat_activity WHERE pid = ANY($1)), \
                   (SELECT max(wal_end - restart_lsn)::int8 \
                    FROM server, pg_catalog.pg_replication_slots \
                    WHERE slot_name = $2::text OR active_pid = ANY($1))";
        let row = client.query_one(sql, &[&self.pids, &self.slot]).await.map_err(from_sql)?;
        let figure = |at| row.get::<_, Option<i64>>(at).and_then(|n| u64::try_from(n).ok());
        let retained = figure(1).unwrap_or(0);
        self.stats.copy_costs(figure(0).unwrap_or(0), retained);
        Ok(self.retained_wal_max.filter(|most| retained > *most).map(|most| over(retained, most)))
    }
}

impl Drop for Cost<'_> {
    fn drop(&mut self) {
        self.stats.copy_costs(0, 0);
    }
}

fn over(retained: u64, most: u64) -> Error {
    let (retained, most) = (ByteSize(retained), ByteSize(most));
    let what = format!(
        "the copy was stopped: the source keeps {retained} of WAL for it, and \
         initial_snapshot.retained_wal_max is {most}"
    );
    Error::config("SNAPSHOT_WAL_MAX", what).with_cure(
        "raise the limit (or more workers, fewer tables) and start again, which goes on with what \
         is copied; the slot keeps its WAL until then, so to give up: frazil drop",
    )
}
