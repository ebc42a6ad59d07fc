//! A primary with a synchronised standby is killed and the standby promoted (cases 19 to 22): with a
//! failover slot frazil goes on by itself, nothing lost and nothing doubled; without one it stops.

use std::time::{Duration, Instant};

use crate::support::frazil::{DEADLINE, Frazil, Running};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions, STANDBY_SLOT};
use crate::support::process::tail;
use crate::support::servers::bin_dir_at_least;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text); \
    CREATE TABLE keyless(n int); INSERT INTO t VALUES (0, 'before')";
const TABLES: &[&str] = &["public.t", "public.keyless"];

struct Pair {
    primary: Postgres,
    standby: Postgres,
    lake: Lake,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Self {
        let options = PostgresOptions::default().bin_dir(bin_dir_at_least(17));
        let options = options.set("wal_sender_timeout", "3s");
        let mut primary = Postgres::start(options).await;
        primary.sql(TABLE).await;
        let standby = primary.standby(PostgresOptions::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(&folder.path().join("lake"));
        Self { primary, standby, lake, _folder: folder }
    }

    /// Both servers, whichever takes writes.
    fn run(&self) -> Frazil {
        let (first, second) = (self.primary.port(), self.standby.port());
        let dsn = format!(
            "postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres\
             ?target_session_attrs=read-write"
        );
        Frazil::run(&dsn, self.lake.folder()).arg("--commit-interval=100ms")
    }

    fn started(&self) -> Running {
        let mut running = self.run().spawn();
        running.wait_for_log("following the stream", DEADLINE);
        running
    }

    /// Writes on the primary until its slot is on the standby for good (case 19).
    async fn wait_until_synced(&self) {
        let is_ready = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'frazil' \
             AND synced AND NOT temporary AND invalidation_reason IS NULL";
        let end = Instant::now() + DEADLINE;
        while self.standby.value(is_ready).await != "1" {
            assert!(Instant::now() < end, "not synced:\n{}", tail(&self.standby.log(), 20));
            self.primary
                .sql("INSERT INTO keyless VALUES (0); SELECT pg_log_standby_snapshot()")
                .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the standby has everything.
    async fn wait_for_standby(&self) {
        let now = self.primary.value("SELECT pg_current_wal_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{now}'");
        let end = Instant::now() + DEADLINE;
        while self.standby.value(&replayed).await != "t" {
            assert!(Instant::now() < end, "the standby is behind");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The ledger's timeline and position.
    fn ledger(&mut self) -> (String, String) {
        let state = self.lake.state();
        let ledger = crate::behaviour::scene::metadata(&state, "frazil.ledger_frazil");
        let id = &ledger["current-snapshot-id"];
        let snapshots = ledger["snapshots"].as_array().unwrap();
        let newest = snapshots.iter().find(|one| one["snapshot-id"] == *id).unwrap();
        let text = |key: &str| newest["summary"][key].as_str().unwrap_or_default().to_owned();
        (text("frazil.timeline"), text("frazil.position"))
    }
}

/// Inserts rows with ids from `from` on, one source transaction each; returns the first id that
/// failed.
async fn insert_until_it_fails(postgres: &Postgres, from: i32) -> i32 {
    let client = postgres.client().await;
    let mut id = from;
    loop {
        let sql = format!(
            "BEGIN; INSERT INTO t VALUES ({id}, 'x'); INSERT INTO keyless VALUES ({id}); COMMIT"
        );
        if client.batch_execute(&sql).await.is_err() {
            return id;
        }
        id += 1;
    }
}

async fn wait_until_equal(lake: &mut Lake, postgres: &Postgres) {
    let count = "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM keyless)";
    let expected = postgres.value(count).await;
    let end = Instant::now() + DEADLINE;
    loop {
        let found = lake.query_now(
            "SELECT (SELECT count(*) FROM {public.t}) + (SELECT count(*) FROM {public.keyless})",
        );
        if found[0][0].as_deref() == Some(expected.as_str()) {
            break;
        }
        assert!(Instant::now() < end, "{found:?} rows, not {expected}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lake.assert_equal(postgres, TABLES).await;
}

// cases: 19 22 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_is_followed() {
    let mut pair = Pair::new().await;
    pair.primary.set("synchronized_standby_slots", STANDBY_SLOT).await;
    let running = pair.started();
    pair.wait_until_synced().await;
    // Writers are at it when the primary dies.
    let load = async { insert_until_it_fails(&pair.primary, 1).await };
    let port = pair.primary.port();
    let kill = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pid = std::fs::read_to_string(pair.primary.data_dir().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().parse().unwrap();
        crate::support::process::signal(pid, "KILL");
    };
    let (failed, ()) = tokio::join!(load, kill);
    assert!(failed > 10, "{failed} at port {port}");
    pair.primary.kill9();
    pair.standby.promote().await;
    pair.standby.sql(&format!("INSERT INTO t VALUES ({failed} + 1000000, 'after')")).await;
    wait_until_equal(&mut pair.lake, &pair.standby).await;
    assert_eq!(pair.ledger().0, "2", "the new timeline stands with P");
    pair.standby
        .sql("UPDATE t SET v = 'later' WHERE id % 2 = 0; DELETE FROM t WHERE id % 7 = 0")
        .await;
    wait_until_equal(&mut pair.lake, &pair.standby).await;
    running.signal("TERM");
    running.wait(DEADLINE).succeeded();
    pair.run().arg("--until-caught-up").finish().succeeded();
    pair.lake.assert_equal(&pair.standby, TABLES).await;
}
