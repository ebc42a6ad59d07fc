//! frazil on Nessie and S3 as a person runs it: one Nessie commit per lake commit, and what happens
//! when Nessie, the storage, other writers or frazil itself fail. After each the lake on the branch
//! equals the source, at every one of its hashes whole.

mod commits;
#[cfg(feature = "failpoints")]
mod crash_points;
mod field_ids;
mod foreign_writer;
mod initial_snapshot;
mod load;
mod lost_answers;
mod nessie_down;
mod odd_names;
mod orphans;
mod random_restarts;
#[cfg(feature = "failpoints")]
mod resumed_copy;
mod shapes;
mod stop;
mod storage_faults;
mod two_frazils;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::support::frazil::{DEADLINE, Finished, Frazil, Running};
use crate::support::lake::Lake;
use crate::support::minio::Minio;
use crate::support::nessie::{Branch, Nessie, NessieCommit};
use crate::support::postgres::{Postgres, PostgresOptions};

const LEDGER: &str = "frazil.ledger_frazil";
const SOON: Duration = Duration::from_secs(180);

/// The long counts: for a run by hand.
fn is_long() -> bool {
    std::env::var_os("FRAZIL_LONG").is_some()
}

/// A source, and a branch of its own for its lake.
struct Scene {
    postgres: Postgres,
    minio: &'static Minio,
    branch: Branch,
    lake: Lake,
}

impl Scene {
    /// On the shared server.
    async fn new(sql: &str) -> Self {
        let nessie = Nessie::shared().await;
        Self::on(nessie.branch().await, PostgresOptions::default(), sql).await
    }

    async fn on(branch: Branch, options: PostgresOptions, sql: &str) -> Self {
        let postgres = Postgres::start(options).await;
        postgres.sql(sql).await;
        let minio = Minio::shared().await;
        let lake = Lake::nessie(&branch, minio);
        Self { postgres, minio, branch, lake }
    }

    /// `frazil run`.
    fn run_plain(&self) -> Frazil {
        Frazil::nessie(&self.postgres.dsn(), &self.branch, self.minio)
    }

    /// The same with a short commit interval.
    fn run(&self) -> Frazil {
        self.run_on(&self.branch)
    }

    /// The same by another address of the branch: a proxy's.
    fn run_on(&self, branch: &Branch) -> Frazil {
        let frazil = Frazil::nessie(&self.postgres.dsn(), branch, self.minio);
        frazil.arg("--commit-interval=200ms")
    }

    /// Started, and past the initial snapshot.
    fn started(&self) -> Running {
        following(self.run().spawn())
    }

    /// `--until-caught-up`, to its end.
    fn catch_up(&self) -> Finished {
        self.run().arg("--until-caught-up").finish()
    }

    async fn sql(&self, sql: &str) {
        self.postgres.sql(sql).await;
    }

    /// Asserts that these tables hold the source's rows, all at one hash.
    async fn assert_equal(&mut self, tables: &[String]) {
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        self.lake.assert_equal(&self.postgres, &tables).await;
    }

    /// All lake commits of the branch.
    async fn lake_commits(&self) -> Vec<LakeCommit> {
        lake_commits(&self.branch.log().await)
    }

    /// Waits until P has reached what is committed in the source now.
    async fn wait_until_the_lake_holds_it(&self) {
        let now = lsn(&self.postgres.value("SELECT pg_current_wal_lsn()").await);
        self.sql("SELECT pg_logical_emit_message(true, 'frazil', '')").await;
        self.until("the lake holds it", async || {
            self.lake_commits().await.last().is_some_and(|last| last.lsn >= now)
        })
        .await;
    }

    /// Ends the writers and waits until the lake holds all that they did; how many transactions.
    async fn at_rest(&self, load: load::Load) -> u64 {
        let done = load.end().await;
        self.wait_until_the_lake_holds_it().await;
        done
    }

    async fn until(&self, what: &str, ready: impl AsyncFnMut() -> bool) {
        until(what, SOON, ready).await;
    }
}

/// Waits until `ready`, asked every 100 ms.
async fn until(what: &str, deadline: Duration, mut ready: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !ready().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the stream is followed.
fn following(mut running: Running) -> Running {
    running.wait_for_log("following the stream", SOON);
    running
}

/// SIGTERM, and a clean end.
fn stop(running: Running) -> Finished {
    running.signal("TERM");
    running.wait(DEADLINE).succeeded()
}

/// A Nessie commit that is a lake commit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LakeCommit {
    hash: String,
    lsn: u64,
    /// How many source transactions it says it holds.
    transactions: u64,
    /// The rows it says it wrote, per table.
    rows: BTreeMap<String, u64>,
    /// The tables it put, the ledger apart.
    tables: Vec<String>,
}

impl LakeCommit {
    fn is_ledger_only(&self) -> bool {
        self.tables.is_empty()
    }
}

/// The lake commits of a log that holds nothing else but new namespaces, oldest first. Each was
/// made once, puts each table and the ledger once, says what it is, and P never goes back.
#[track_caller]
fn lake_commits(log: &[NessieCommit]) -> Vec<LakeCommit> {
    let mut commits = Vec::new();
    let mut ids = BTreeSet::new();
    for entry in log.iter().rev() {
        let Some(lsn_text) = entry.properties.get("frazil.committed-lsn") else {
            assert!(
                entry.message.contains("NAMESPACE") || entry.message.contains("namespace"),
                "no lake commit: {entry:?}"
            );
            continue;
        };
        assert!(ids.insert(entry.properties["frazil.lake-commit"].clone()), "twice: {entry:?}");
        assert!(entry.message.starts_with(&format!("{lsn_text}: ")), "{entry:?}");
        assert_eq!(entry.authors, ["frazil frazil"], "{entry:?}");
        assert_eq!(entry.operations, entry.puts.len(), "{entry:?}");
        let puts: BTreeSet<&String> = entry.puts.iter().collect();
        assert_eq!(puts.len(), entry.puts.len(), "a table twice: {entry:?}");
        assert!(entry.puts.iter().any(|put| put == LEDGER), "without the ledger: {entry:?}");
        let tables = entry.puts.iter().filter(|put| *put != LEDGER).cloned().collect();
        commits.push(LakeCommit {
            hash: entry.hash.clone(),
            lsn: lsn(lsn_text),
            transactions: entry.properties["frazil.source-transactions"].parse().unwrap(),
            rows: serde_json::from_str(&entry.properties["frazil.rows"]).unwrap(),
            tables,
        });
    }
    assert!(commits.iter().is_sorted_by_key(|one| one.lsn), "P goes back: {commits:#?}");
    commits
}

/// `0/16B3748` as a number.
fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("no LSN: {text}"));
    let part = |hex| u64::from_str_radix(hex, 16).unwrap();
    (part(high) << 32) + part(low)
}
