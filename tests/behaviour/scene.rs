//! What these tests share: a source, a lake's folder, frazil between them, and the ledger as it
//! stands in the metadata files.

use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::frazil::{DEADLINE, Finished, Frazil, Running};
use crate::support::lake::{Lake, LakeState};
use crate::support::postgres::{Postgres, PostgresOptions, TextRow};

pub(crate) const LEDGER: &str = "frazil.ledger_frazil";
const SOON: Duration = Duration::from_secs(60);

/// A source with its lake.
pub(crate) struct Scene {
    pub(crate) postgres: Postgres,
    pub(crate) lake: Lake,
    folder: TempDir,
}

impl Scene {
    pub(crate) async fn new(sql: &str) -> Self {
        Self::with(PostgresOptions::default(), sql).await
    }

    pub(crate) async fn with(options: PostgresOptions, sql: &str) -> Self {
        let postgres = Postgres::start(options).await;
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(&folder.path().join("lake"));
        postgres.sql(sql).await;
        Self { postgres, lake, folder }
    }

    /// A place for other files of the test.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// `frazil run` with a short commit interval.
    pub(crate) fn run(&self) -> Frazil {
        self.run_every("100ms")
    }

    pub(crate) fn run_every(&self, interval: &str) -> Frazil {
        let lake = self.lake.folder();
        Frazil::run(&self.postgres.dsn(), lake).arg(&format!("--commit-interval={interval}"))
    }

    /// Started, and past the initial snapshot.
    pub(crate) fn started(&self) -> Running {
        following(self.run().spawn())
    }

    /// `--until-caught-up`, to its end.
    pub(crate) fn catch_up(&self) -> Finished {
        self.run().arg("--until-caught-up").finish()
    }

    pub(crate) async fn sql(&self, sql: &str) -> Vec<TextRow> {
        self.postgres.sql(sql).await
    }

    /// Asserts that these tables hold the source's rows, in one lake state.
    pub(crate) async fn assert_equal(&mut self, tables: &[&str]) {
        self.lake.assert_equal(&self.postgres, tables).await;
    }

    /// Catches up in one run and asserts equality.
    pub(crate) async fn assert_catches_up(&mut self, tables: &[&str]) {
        self.catch_up().succeeded();
        self.assert_equal(tables).await;
    }

    /// The ledger's metadata file.
    pub(crate) fn ledger(&mut self) -> Value {
        let state = self.lake.state();
        metadata(&state, LEDGER)
    }

    /// P as the ledger's table property has it; 0 where there is no lake yet.
    pub(crate) fn position(&mut self) -> u64 {
        if !self.lake.folder().join("catalog.db").exists() {
            return 0;
        }
        let state = self.lake.state();
        if !state.tables().any(|table| table == LEDGER) {
            return 0;
        }
        lsn(metadata(&state, LEDGER)["properties"]["frazil.position"].as_str().unwrap())
    }

    /// Waits until the lake holds all that is committed now.
    pub(crate) async fn wait_until_the_lake_holds_it(&mut self) {
        self.wait_for_commit().await;
        let end = Instant::now() + SOON;
        while self.behind() != "{}" {
            assert!(Instant::now() < end, "still behind: {}", self.behind());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// A position after all that is committed now, which P passes even where nothing that is
    /// followed has changed since.
    pub(crate) async fn position_now(&mut self) -> u64 {
        let now = lsn(&self.postgres.value("SELECT pg_current_wal_lsn()").await);
        self.sql("SELECT pg_logical_emit_message(true, 'frazil', '')").await;
        now
    }

    /// Waits until the lake holds all that is committed now, whatever is behind.
    pub(crate) async fn wait_for_commit(&mut self) {
        let now = self.position_now().await;
        self.wait_for(now).await;
    }

    /// The tables that the ledger calls behind, as JSON.
    pub(crate) fn behind(&mut self) -> String {
        self.ledger()["properties"]["frazil.behind"].as_str().unwrap().to_owned()
    }

    /// Waits until P has reached `lsn`.
    pub(crate) async fn wait_for(&mut self, lsn: u64) {
        let end = Instant::now() + SOON;
        while self.position() < lsn {
            assert!(Instant::now() < end, "the lake is at {:x}, not {lsn:x}", self.position());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// Waits until the stream is followed.
pub(crate) fn following(mut running: Running) -> Running {
    running.wait_for_log("following the stream", SOON);
    running
}

/// SIGTERM, and a clean end.
pub(crate) fn stop(running: Running) -> Finished {
    running.signal("TERM");
    running.wait(DEADLINE).succeeded()
}

/// The metadata file of a table.
pub(crate) fn metadata(state: &LakeState, table: &str) -> Value {
    let location = state.location(table);
    let location = location.strip_prefix("file://").unwrap_or(location);
    serde_json::from_slice(&std::fs::read(location).unwrap()).unwrap()
}

/// The summaries of all iceberg_snapshots that a metadata file lists, oldest first.
pub(crate) fn summaries(metadata: &Value) -> Vec<&Value> {
    let mut snapshots: Vec<&Value> = metadata["snapshots"].as_array().unwrap().iter().collect();
    snapshots.sort_by_key(|one| one["sequence-number"].as_u64());
    snapshots.into_iter().map(|one| &one["summary"]).collect()
}

/// `0/16B3748` as a number.
pub(crate) fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("no LSN: {text}"));
    let part = |hex| u64::from_str_radix(hex, 16).unwrap();
    (part(high) << 32) + part(low)
}
