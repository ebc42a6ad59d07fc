//! frazil ends again and again in the initial snapshot, while others write: only ranges that were
//! not finished are copied again, and the lake equals the source (cases 133, 135).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::{run, until};
use crate::support::frazil::Frazil;
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

const SOON: Duration = Duration::from_secs(90);

/// Tables of many pages; one with values out of line, one with a key of two columns, one without a
/// key.
const SCHEMA: &str = "
    CREATE TABLE big(id int PRIMARY KEY, v int, body text, pad text);
    ALTER TABLE big ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE pairs(a varchar(20), b date, v int, pad text, PRIMARY KEY (a, b));
    CREATE TABLE log(n int, what text);
    INSERT INTO big SELECT g, 0, CASE WHEN g % 50 = 0 THEN repeat(md5(g::text), 100) END,
        repeat('p', 300) FROM generate_series(1, 1500) g;
    INSERT INTO pairs SELECT 'it''s \\' || g, '2026-01-01'::date + g % 7, 0, repeat('q', 200)
        FROM generate_series(1, 1500) g;
    INSERT INTO log SELECT g, repeat('w', 200) FROM generate_series(1, 700) g;";
const TABLES: [&str; 3] = ["public.big", "public.pairs", "public.log"];

/// Every range is written down at once.
const RANGES: &str = "range_pages=return(3);save_every_ms=return(0)";

async fn source() -> Postgres {
    let options = PostgresOptions::default().set("log_statement", "all");
    let postgres = Postgres::start(options).await;
    postgres.sql(SCHEMA).await;
    postgres
}

fn change(random: &mut StdRng, writer: i32) -> String {
    let id = random.random_range(1..1_500);
    let own = 10_000 * writer + random.random_range(0..400);
    match random.random_range(0..12) {
        0 | 1 => format!("UPDATE big SET v = v + 1 WHERE id = {id}"),
        2 => format!("UPDATE big SET body = repeat(md5('{own}'), 90) WHERE id = {id}"),
        3 => format!("UPDATE big SET v = v + 1 WHERE id = {} * 50 % 1500", id / 50),
        4 => format!("DELETE FROM big WHERE id = {id}"),
        5 => format!(
            "INSERT INTO big VALUES ({own}, 1, repeat('b', 3000), 'new') \
             ON CONFLICT (id) DO UPDATE SET v = big.v + 1"
        ),
        6 => format!("UPDATE big SET id = {own} + 1000000 WHERE id = {own}"),
        7 => format!("UPDATE pairs SET v = v + 1 WHERE a = 'it''s \\{id}'"),
        8 => format!("UPDATE pairs SET b = b + 1, a = a || '!' WHERE a = 'it''s \\{id}'"),
        9 => format!("DELETE FROM pairs WHERE a LIKE '%{id}!'"),
        10 => "VACUUM big".to_owned(),
        _ => format!(
            "BEGIN; DELETE FROM big WHERE id = {id}; \
             INSERT INTO big VALUES ({id}, 7, NULL, 'again') ON CONFLICT DO NOTHING; COMMIT"
        ),
    }
}

/// Two writers, until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(postgres: &Postgres) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |writer: i32| {
            let (dsn, stop) = (postgres.dsn(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (client, connection) =
                    tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                let mut random = StdRng::seed_from_u64(u64::try_from(writer).unwrap());
                while !stop.load(Ordering::Acquire) {
                    if client.batch_execute(&change(&mut random, writer)).await.is_err() {
                        let _ = client.batch_execute("ROLLBACK").await;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        };
        let tasks = (1..=2).map(one).collect();
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn crash(postgres: &Postgres, lake: &Path, points: &str) {
    let points = format!("{RANGES};{points}");
    let ended = run(postgres, lake, "frazil").failpoints(&points).spawn().wait(SOON);
    assert_eq!(ended.code, None, "not aborted at {points}:\n{}", ended.stderr);
}

fn to_the_end(postgres: &Postgres, lake: &Path) -> Frazil {
    run(postgres, lake, "frazil").arg("--until-caught-up").failpoints(RANGES)
}

/// How often each range of each table was copied, by its statement.
fn copies(postgres: &Postgres) -> HashMap<String, usize> {
    let mut copies = HashMap::new();
    for line in postgres.log().lines() {
        let Some((_, statement)) = line.split_once(": COPY (") else { continue };
        if !statement.contains(" IN (VALUES ") {
            *copies.entry(statement.to_owned()).or_default() += 1;
        }
    }
    copies
}

/// What frazil has written down of the copy.
pub(super) fn record_of(lake: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(lake.join("frazil")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.to_string_lossy().contains("initial-snapshot-frazil-"))
}

// cases: 133 135 holds
#[tokio::test(flavor = "multi_thread")]
async fn crash_after_crash_only_unfinished_ranges_are_copied_again() {
    let postgres = source().await;
    let folder = tempfile::tempdir().unwrap();
    let writers = Writers::start(&postgres);
    let points = [
        "range_copied=6*off->return",
        "range_copied=9*off->return",
        "range_begun=4*off->return",
        "range_copied=return",
        "changed_rows_read=return",
        "files_written=return",
        "before_catalog_commit=return",
    ];
    for point in points {
        crash(&postgres, folder.path(), point);
    }
    let ended = to_the_end(&postgres, folder.path()).finish().succeeded();
    writers.end().await;
    let ended = ended.said("the initial snapshot goes on");
    assert!(!ended.stderr.contains("begin"), "{}", ended.stderr);
    let copies = copies(&postgres);
    let again: usize = copies.values().map(|times| times - 1).sum();
    // The two workers may both be within a range at a crash, and have one more that waits.
    assert!(copies.len() > 40, "{} ranges", copies.len());
    assert!(again <= 4 * 5, "{again} ranges of {} were copied again", copies.len());
    let record = record_of(folder.path());
    assert!(record.is_none(), "{record:?} was left behind");
    to_the_end(&postgres, folder.path()).finish().succeeded();
    Lake::open(folder.path()).assert_equal(&postgres, &TABLES).await;
}

/// Nothing was finished when the first source transaction after it came, and everything was before
/// the last: what changed in between is deleted and read again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_changed_since_are_as_they_are_now() {
    let postgres = source().await;
    let folder = tempfile::tempdir().unwrap();
    crash(&postgres, folder.path(), "files_written=return");
    let before: usize = copies(&postgres).values().sum();
    postgres
        .sql(
            "UPDATE big SET v = 1 WHERE id % 3 = 0; DELETE FROM big WHERE id % 5 = 0; \
             UPDATE big SET id = id + 5000 WHERE id % 7 = 0; \
             INSERT INTO big VALUES (5, 5, 'back', ''), (-1, 0, NULL, NULL); \
             UPDATE pairs SET a = 'x' || a WHERE v = 0 AND a LIKE '%1'; \
             DELETE FROM pairs WHERE a LIKE '%2'",
        )
        .await;
    postgres.sql("VACUUM big").await;
    let ended = to_the_end(&postgres, folder.path()).finish().succeeded();
    ended.said("the initial snapshot goes on");
    assert_eq!(copies(&postgres).values().sum::<usize>(), before, "something was copied again");
    Lake::open(folder.path()).assert_equal(&postgres, &TABLES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_all_sessions_goes_on_within_the_run() {
    let postgres = source().await;
    let folder = tempfile::tempdir().unwrap();
    let slowly = format!("{RANGES};range_begun=sleep(60)");
    let mut frazil = run(&postgres, folder.path(), "frazil")
        .arg("--initial-snapshot=only")
        .failpoints(&slowly)
        .spawn();
    until("ten ranges are copied", SOON, async || {
        assert!(frazil.is_running(), "{}", frazil.stderr());
        copies(&postgres).len() > 10
    })
    .await;
    postgres
        .sql("UPDATE big SET v = 3 WHERE id % 2 = 0; DELETE FROM pairs WHERE v = 0 AND a LIKE '%3'")
        .await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'frazil/initial-snapshot'";
    postgres.sql(end).await;
    frazil.wait(SOON).succeeded().said("retry_in").said("the initial snapshot goes on");
    let copies = copies(&postgres);
    let again: usize = copies.values().map(|times| times - 1).sum();
    assert!(again <= 4, "{again} ranges of {} were copied again", copies.len());
    to_the_end(&postgres, folder.path()).finish().succeeded();
    Lake::open(folder.path()).assert_equal(&postgres, &TABLES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_copy_leaves_what_is_copied_for_the_next_start() {
    let postgres = source().await;
    let folder = tempfile::tempdir().unwrap();
    // Nothing is written down before the stop.
    let slowly = "range_pages=return(3);save_every_ms=return(600000);range_begun=sleep(60)";
    let mut frazil = run(&postgres, folder.path(), "frazil").failpoints(slowly).spawn();
    until("ten ranges are copied", SOON, async || {
        assert!(frazil.is_running(), "{}", frazil.stderr());
        copies(&postgres).len() > 10
    })
    .await;
    frazil.signal("TERM");
    frazil.wait(SOON).succeeded();
    postgres.sql("UPDATE big SET v = 4 WHERE id % 2 = 0").await;
    to_the_end(&postgres, folder.path()).finish().succeeded().said("the initial snapshot goes on");
    let again: usize = copies(&postgres).values().map(|times| times - 1).sum();
    assert!(again <= 5, "{again} ranges were copied again");
    Lake::open(folder.path()).assert_equal(&postgres, &TABLES).await;
}
