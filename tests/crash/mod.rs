//! What survives: crashes of frazil and of Postgres, full disks, held locks, other writers. After
//! each the lake equals the source, holds no row twice, and P never goes back.

mod changed_since_the_slot;
mod copied_rows;
mod copy_connections;
mod copy_costs;
mod crash_points;
mod disk_full;
mod held_catalog;
mod kills;
mod left_out_while_the_next_writes;
mod locked_table;
mod moved_pointers;
mod open_rows;
mod publications;
mod resumed_after_ddl;
mod resumed_copy;
mod server_crashes;
mod torn;
mod truncate_in_copy;
mod two_pipelines;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use frazil::iceberg::committer::sql::SqlCommitter;
use frazil::progress::Lsn;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::frazil::{Frazil, Running};
use crate::support::lake::{Lake, LakeState};
use crate::support::postgres::Postgres;
use crate::support::process::poll;

/// The tables of [`SCHEMA`].
const TABLES: [&str; 4] = ["bank.debit", "bank.credit", "bank.notes", "bank.log"];

/// Two tables whose sums are 0 together after every transaction, one with values that are stored
/// out of line and left unchanged by most updates, and one without a key.
const SCHEMA: &str = "
CREATE SCHEMA bank;
CREATE TABLE bank.debit(id int PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE bank.credit(id int PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE bank.notes(id int PRIMARY KEY, n int NOT NULL, text text);
ALTER TABLE bank.notes ALTER text SET STORAGE EXTERNAL;
CREATE TABLE bank.log(n int, what text);
INSERT INTO bank.debit SELECT i, 0 FROM generate_series(1, 200) i;
INSERT INTO bank.credit SELECT i, 0 FROM generate_series(1, 200) i;
INSERT INTO bank.notes SELECT i, 0, repeat(md5(i::text), 200) FROM generate_series(1, 2000) i;
INSERT INTO bank.log SELECT i, 'before' FROM generate_series(1, 5000) i;";

/// Statements without end, in transactions of very different sizes. Needs no model of the rows, so
/// a transaction whose outcome is unknown (the server died) changes nothing.
struct Load {
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    fn start(postgres: &Postgres, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let paused = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let (stopped, pausing, count) = (stop.clone(), paused.clone(), done.clone());
        let dsn = postgres.dsn();
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut client: Option<Client> = None;
            while !stopped.load(Ordering::Acquire) {
                let ready = client.as_ref().is_some_and(|client| !client.is_closed());
                if !ready {
                    client = connect(&dsn).await;
                }
                let pause = pausing.load(Ordering::Acquire);
                if let (Some(client), false) = (&client, pause) {
                    let sql = transaction(&mut random);
                    if client.batch_execute(&sql).await.is_ok() {
                        count.fetch_add(1, Ordering::AcqRel);
                    } else {
                        let _ = client.batch_execute("ROLLBACK").await;
                    }
                }
                let pause_ms = if pause { 20 } else { random.random_range(0..8) };
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        });
        Self { stop, paused, done, task }
    }

    /// How many transactions were committed.
    fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    async fn pause(&self, client: &Client) {
        self.paused.store(true, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(40)).await;
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'load' \
             AND state <> 'idle'";
        for _ in 0..500 {
            let row = client.query_one(busy, &[]).await.unwrap();
            if row.get::<_, i64>(0) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the load does not come to rest");
    }

    fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap();
        self.done.load(Ordering::Acquire)
    }
}

async fn connect(dsn: &str) -> Option<Client> {
    let dsn = format!("{dsn}?application_name=load");
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

fn transaction(random: &mut StdRng) -> String {
    let id = random.random_range(1..=200);
    let other = random.random_range(1..=200);
    let amount = random.random_range(1..100);
    let note = random.random_range(1..=2000);
    let transfer = format!(
        "UPDATE bank.debit SET amount = amount - {amount} WHERE id = {id}; \
         UPDATE bank.credit SET amount = amount + {amount} WHERE id = {other};"
    );
    let work = match random.random_range(0..1000) {
        // Raw WAL of more than one segment (16 MiB) in one source transaction.
        0..4 => format!(
            "{transfer} UPDATE bank.notes SET n = n + 1, \
             text = repeat(md5((id + {amount})::text), 360) WHERE id <= 1800; \
             {transfer} UPDATE bank.notes SET n = n + 1 WHERE id % 3 = 0; \
             DELETE FROM bank.notes WHERE id % 100 = {amount}; {transfer}"
        ),
        4..40 => format!(
            "UPDATE bank.debit SET amount = amount - 1; {transfer} \
             UPDATE bank.credit SET amount = amount + 1;"
        ),
        // A key change there and back, which leaves the key's rows where they are for the reader.
        40..120 => format!(
            "UPDATE bank.debit SET id = {id} + 1000 WHERE id = {id}; \
             UPDATE bank.debit SET id = id - 1000 WHERE id = {id} + 1000; {transfer}"
        ),
        120..200 => format!(
            "{transfer} SAVEPOINT s; UPDATE bank.debit SET amount = 99999; ROLLBACK TO s; \
             DELETE FROM bank.notes WHERE id = {note};"
        ),
        200..400 => format!("UPDATE bank.notes SET n = n + 1 WHERE id = {note}; {transfer}"),
        400..600 => format!(
            "INSERT INTO bank.notes VALUES ({note}, 0, repeat(md5('{amount}'), {amount} * 8)) \
             ON CONFLICT (id) DO UPDATE SET n = notes.n + 1; {transfer}"
        ),
        600..610 => String::from(
            "TRUNCATE bank.notes; \
             INSERT INTO bank.notes SELECT i, 0, repeat(md5(i::text), 200) \
             FROM generate_series(1, 2000) i;",
        ),
        610..700 => format!("INSERT INTO bank.log VALUES ({id}, 'x'), ({id}, 'x'); {transfer}"),
        _ => transfer,
    };
    format!("BEGIN; {work} COMMIT")
}

/// `frazil run` with an own slot and a short commit interval.
fn run(postgres: &Postgres, lake: &Path, slot: &str) -> Frazil {
    Frazil::run(&postgres.dsn(), lake).arg("--slot").arg(slot).arg("--commit-interval=120ms")
}

fn catch_up(postgres: &Postgres, lake: &Path, slot: &str) {
    run(postgres, lake, slot).arg("--until-caught-up").finish().succeeded();
}

/// Whether it ended by itself within `deadline`.
fn ends(running: &mut Running, deadline: Duration) -> bool {
    poll(deadline, || (!running.is_running()).then_some(())).is_some()
}

/// Catches up with a source at rest; the lake equals it, holds nothing half, P is in order, and all
/// files that it names exist.
async fn assert_whole(postgres: &Postgres, folder: &Path, slot: &str) {
    catch_up(postgres, folder, slot);
    let mut lake = Lake::open(folder);
    lake.assert_equal(postgres, &TABLES).await;
    let state = lake.state();
    assert_balanced(&mut lake, &state);
    assert_monotone(&state, slot);
    assert_files(folder, slot).await;
}

/// Money is neither made nor lost in any state of the lake; 200 accounts each.
#[track_caller]
fn assert_balanced(lake: &mut Lake, state: &LakeState) {
    let sums = lake.query(
        state,
        "SELECT d.s + c.s, d.n, c.n FROM \
         (SELECT sum(amount) s, count(*) n FROM {bank.debit}) d, \
         (SELECT sum(amount) s, count(*) n FROM {bank.credit}) c",
    );
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(sums, [vec![text("0"), text("200"), text("200")]], "a torn source transaction");
}

/// P of every lake commit, oldest first, from the summaries of the ledger's snapshots.
fn positions(state: &LakeState, slot: &str) -> Vec<Lsn> {
    let location = state.location(&format!("frazil.ledger_{slot}"));
    let text = std::fs::read_to_string(location).unwrap();
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let mut snapshots: Vec<_> = metadata["snapshots"].as_array().unwrap().iter().collect();
    snapshots.sort_by_key(|snapshot| snapshot["sequence-number"].as_i64().unwrap());
    let position =
        |s: &Value| s["summary"]["frazil.committed-lsn"].as_str().unwrap().parse().unwrap();
    snapshots.into_iter().map(position).collect()
}

#[track_caller]
fn assert_monotone(state: &LakeState, slot: &str) -> usize {
    let positions = positions(state, slot);
    assert!(!positions.is_empty());
    assert!(positions.is_sorted(), "P goes back: {positions:?}");
    positions.len()
}

/// Every file that a snapshot of a table names exists; how many there are that none names.
async fn assert_files(folder: &Path, slot: &str) -> usize {
    let committer = SqlCommitter::open(folder, slot).await.unwrap();
    let mut named = HashSet::new();
    for table in committer.pinned().await.unwrap() {
        named.insert(plain(table.metadata_location().unwrap()));
        named.extend(table.metadata().metadata_log().iter().map(|m| plain(&m.metadata_file)));
        for snapshot in table.metadata().snapshots() {
            named.insert(plain(snapshot.manifest_list()));
            let list = table.manifest_list_reader(snapshot).load().await;
            for file in list.unwrap().entries() {
                if !named.insert(plain(&file.manifest_path)) {
                    continue;
                }
                let manifest = file.load_manifest(table.file_io()).await.unwrap();
                let live = manifest.entries().iter().filter(|entry| entry.is_alive());
                named.extend(live.map(|entry| plain(entry.file_path())));
            }
        }
    }
    let missing: Vec<_> = named.iter().filter(|file| !Path::new(file).exists()).collect();
    assert!(missing.is_empty(), "named by the lake, but gone: {missing:?}");
    let mut all = Vec::new();
    walk(folder, &mut all);
    let orphans = all.iter().filter(|file| !named.contains(*file)).count();
    eprintln!("{}: {} files named, {orphans} that nothing names", folder.display(), named.len());
    orphans
}

fn plain(location: &str) -> String {
    location.strip_prefix("file://").unwrap_or(location).to_owned()
}

fn walk(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, into);
        } else if !path.to_string_lossy().contains("catalog.db") {
            into.push(path.display().to_string());
        }
    }
}

/// Waits until `ready`, asked every 50 ms.
async fn until(what: &str, deadline: Duration, mut ready: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + deadline;
    while !ready().await {
        assert!(std::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
