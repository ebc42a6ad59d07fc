//! A primary with a synchronised standby is killed and the standby promoted (cases 19 to 22): with
//! a failover slot frazil goes on by itself, nothing lost and nothing doubled; without one it
//! stops.

use std::time::{Duration, Instant};

use crate::behaviour::scene::{LEDGER, metadata, stop, summaries};
use crate::support::frazil::{DEADLINE, Finished, Frazil, Running};
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
        // Started now, for a worker that finds nothing to do rests up to 30 s.
        self.standby.set("sync_replication_slots", "on").await;
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

    /// `kill -9` of the primary, and the standby takes over.
    async fn fail_over(&mut self) {
        self.primary.kill9();
        self.standby.promote().await;
    }

    fn catch_up(&self) -> Finished {
        self.run().arg("--until-caught-up").finish()
    }

    /// The ledger's timeline.
    fn timeline(&mut self) -> String {
        let ledger = metadata(&self.lake.state(), LEDGER);
        let newest = summaries(&ledger).last().unwrap()["frazil.timeline"].clone();
        newest.as_str().unwrap().to_owned()
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
    assert_eq!(pair.timeline(), "2", "the new timeline stands with P");
    pair.standby
        .sql("UPDATE t SET v = 'later' WHERE id % 2 = 0; DELETE FROM t WHERE id % 7 = 0")
        .await;
    wait_until_equal(&mut pair.lake, &pair.standby).await;
    stop(running);
    pair.catch_up().succeeded();
    pair.lake.assert_equal(&pair.standby, TABLES).await;
}

/// The stream must not be ahead of a standby that may take over: while that is down it waits, says
/// why, and is neither dropped nor begun again.
// cases: 20 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_waits_for_a_standby_that_is_down() {
    let mut pair = Pair::new().await;
    pair.primary.set("synchronized_standby_slots", STANDBY_SLOT).await;
    let mut running = pair.started();
    pair.wait_until_synced().await;
    wait_until_equal(&mut pair.lake, &pair.primary).await;
    let walsender = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'frazil'";
    let before = pair.primary.value(walsender).await;
    pair.standby.stop();
    pair.primary.sql("INSERT INTO t VALUES (1, 'not on the standby')").await;
    // The server itself names the standby's slot.
    running.wait_for_log("does not have active_pid", DEADLINE);
    assert!(running.stderr().contains(STANDBY_SLOT), "{}", running.stderr());
    // Longer than either side waits for the other.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(pair.primary.value(walsender).await, before, "the stream was begun again");
    assert!(!running.stderr().contains("retry_in"), "{}", running.stderr());
    let rows = pair.lake.query_now("SELECT count(*) FROM {public.t} WHERE id = 1");
    assert_eq!(rows[0][0].as_deref(), Some("0"), "ahead of the standby");
    let folder = pair.lake.folder().to_str().unwrap().to_owned();
    let status = Frazil::new(["status", &pair.primary.dsn(), "--into", &folder]).finish();
    assert!(status.stdout.contains(&format!("waits for the standby {STANDBY_SLOT}")), "{status:?}");
    pair.standby.restart().await;
    wait_until_equal(&mut pair.lake, &pair.primary).await;
    assert_eq!(pair.primary.value(walsender).await, before);
    stop(running);
}

/// A slot that no standby has is gone after the failover; it is not made again, which would skip
/// what happened in between.
// cases: 21 stops SLOT_LOST
#[tokio::test(flavor = "multi_thread")]
async fn without_a_failover_slot_the_slot_is_lost() {
    let mut pair = Pair::new().await;
    pair.run().env("FRAZIL_SOURCE__FAILOVER", "off").arg("--until-caught-up").finish().succeeded();
    let failover = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'frazil'";
    assert_eq!(pair.primary.value(failover).await, "f");
    pair.wait_for_standby().await;
    pair.standby.sql("SELECT pg_sync_replication_slots()").await;
    pair.fail_over().await;
    pair.standby.sql("INSERT INTO t VALUES (1, 'after')").await;
    pair.catch_up().exited(1).said("SLOT_LOST").said("cure:");
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'";
    assert_eq!(pair.standby.value(slots).await, "0");
}

/// Without `synchronized_standby_slots` the lake may hold what the standby never got.
// cases: 7 22 stops LAKE_AHEAD
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_behind_the_lake_is_refused() {
    let mut pair = Pair::new().await;
    let running = pair.started();
    pair.wait_until_synced().await;
    stop(running);
    pair.standby.stop();
    pair.primary.sql("INSERT INTO t SELECT g, 'lost' FROM generate_series(1, 1000) g").await;
    pair.catch_up().succeeded();
    pair.primary.kill9();
    pair.standby.restart().await;
    pair.standby.promote().await;
    pair.catch_up().exited(1).said("LAKE_AHEAD").said("cure:");
    // Once its WAL has passed P, the history tells.
    let wal = "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 5000) g";
    pair.standby.sql(wal).await;
    pair.standby.sql("SELECT pg_switch_wal()").await;
    pair.catch_up().exited(1).said("TIMELINE").said("cure:");
}

/// A backup that is brought back is behind the lake, and after its recovery on a timeline of its
/// own.
// cases: 7 stops LAKE_AHEAD
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_is_refused() {
    let mut primary = Postgres::start(PostgresOptions::default()).await;
    primary.sql(TABLE).await;
    let folder = tempfile::tempdir().unwrap();
    let catch_up = |postgres: &Postgres| {
        Frazil::run(&postgres.dsn(), folder.path()).arg("--until-caught-up").finish()
    };
    catch_up(&primary).succeeded();
    let mut backup = primary.copy(PostgresOptions::default().set("restore_command", "false"));
    primary.restart().await;
    primary.sql("INSERT INTO t VALUES (1, 'after the backup')").await;
    catch_up(&primary).succeeded();
    primary.stop();
    std::fs::write(backup.data_dir().join("recovery.signal"), "").unwrap();
    backup.restart().await;
    let end = Instant::now() + DEADLINE;
    while backup.value("SELECT pg_is_in_recovery()").await != "f" {
        assert!(Instant::now() < end, "the recovery does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    catch_up(&backup).exited(1).said("LAKE_AHEAD").said("cure:");
    backup.sql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(10, 5000) g").await;
    catch_up(&backup).exited(1).said("TIMELINE").said("cure:");
}
