//! A live source and a live lake: verify finds nothing to say about a lake that is right, whatever
//! the writers do meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frazil::verify::Options;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use super::{Scene, assert_equal, of};
use crate::support::workload::Workload;

const SEED: u64 = 20_261_125;
const WRITERS: u64 = 3;
/// Comparisons while the writers write.
const COMPARISONS: usize = 6;

const CLAIMS: &str = "
    CREATE TABLE claims(id int PRIMARY KEY, n int NOT NULL, body text, note text);
    ALTER TABLE claims ALTER body SET STORAGE EXTERNAL;
    INSERT INTO claims SELECT g, 0, repeat(md5(g::text), 100), 'first' FROM generate_series(1, 400) g;
    CREATE TABLE whole(id int PRIMARY KEY, n int NOT NULL, body text);
    ALTER TABLE whole ALTER body SET STORAGE EXTERNAL;
    ALTER TABLE whole REPLICA IDENTITY FULL;
    INSERT INTO whole SELECT id, n, body FROM claims;
    CREATE TABLE log(what text);";

/// Updates that leave large values alone, changes of keys, upserts, deletes, rollbacks and
/// savepoints, over several tables.
fn source_transaction(random: &mut StdRng) -> String {
    let mut sql = String::from("BEGIN;");
    for _ in 0..random.random_range(1..6) {
        let (id, other) = (random.random_range(1..500), random.random_range(500..1000));
        sql.push_str(&match random.random_range(0..10) {
            0 => format!("DELETE FROM claims WHERE id = {id};"),
            1 => format!("UPDATE claims SET id = id + 1000 WHERE id = {id};"),
            2 => format!("UPDATE claims SET id = id - 1000 WHERE id = {};", id + 1000),
            3 => format!("SAVEPOINT s; UPDATE claims SET n = -1 WHERE id < {id}; ROLLBACK TO s;"),
            4 => format!("UPDATE whole SET n = n + 1 WHERE id BETWEEN {id} AND {id} + 3;"),
            5 => format!("DELETE FROM whole WHERE id = {id};"),
            6 => "INSERT INTO log SELECT 'same' FROM generate_series(1, 2);".to_owned(),
            7 => {
                format!("UPDATE claims SET body = repeat(md5(random()::text), 90) WHERE id = {id};")
            }
            _ => format!(
                "INSERT INTO claims VALUES ({other}, 1, repeat('b', 4000), NULL) \
                 ON CONFLICT (id) DO UPDATE SET n = claims.n + 1; \
                 UPDATE claims SET n = n + 1 WHERE id = {id};"
            ),
        });
    }
    sql.push_str(if random.random_bool(0.15) { "ROLLBACK" } else { "COMMIT" });
    sql
}

fn writer(dsn: String, seed: u64, ends: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let ends = Arc::clone(ends);
    tokio::spawn(async move {
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut random = StdRng::seed_from_u64(seed);
        let mut done = 0;
        while !ends.load(Ordering::Relaxed) {
            // A deadlock or a duplicate key is the writers' own affair.
            match client.batch_execute(&source_transaction(&mut random)).await {
                Ok(()) => done += 1,
                Err(_) => client.batch_execute("ROLLBACK").await.unwrap(),
            }
        }
        done
    })
}

// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_follows_writers_is_equal_every_time() {
    let scene = Scene::new(CLAIMS).await;
    let running = scene.following();
    eprintln!("seeds: {SEED}..");
    let ends = Arc::new(AtomicBool::new(false));
    let dsn = scene.postgres.dsn();
    let writers: Vec<_> = (0..WRITERS).map(|n| writer(dsn.clone(), SEED + n, &ends)).collect();
    let mut overlaid = 0;
    for _ in 0..COMPARISONS {
        let report = scene.verify().await;
        assert_equal(&report);
        assert!(of(&report, "public.claims").source_rows > 0);
        overlaid += usize::from(report.position > report.snapshot_position);
    }
    ends.store(true, Ordering::Relaxed);
    let mut done = 0;
    for writer in writers {
        done += writer.await.unwrap();
    }
    eprintln!("{done} source transactions; {overlaid} of {COMPARISONS} comparisons overlaid");
    assert!(overlaid > COMPARISONS / 2, "the lake was seldom past the snapshot: {overlaid}");
    drop(running);
}

/// Every type of the workload, raw values, TRUNCATE, tables without a key.
// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_type_and_shape_of_table_is_equal_while_it_changes() {
    let mut workload = Workload::new(SEED);
    let scene = Scene::new(&workload.schema_sql()).await;
    let client = scene.postgres.client().await;
    workload.run(&client, 2_000).await;
    let running = scene.following();
    let ends = Arc::new(AtomicBool::new(false));
    let goes_on = Arc::clone(&ends);
    let writing = tokio::spawn(async move {
        while !goes_on.load(Ordering::Relaxed) {
            workload.run(&client, 300).await;
        }
        workload
    });
    // A window may take a while beside other tests.
    let options = Options { timeout: Duration::from_secs(120), ..Options::default() };
    for _ in 0..COMPARISONS {
        assert_equal(&scene.try_verify("*", &options).await.unwrap());
    }
    ends.store(true, Ordering::Relaxed);
    let workload = writing.await.unwrap();
    drop(running);
    scene.catch_up();
    let report = scene.verify().await;
    assert_equal(&report);
    assert_eq!(report.tables.len(), workload.tables().len());
    assert!(report.tables.iter().all(|one| one.not_compared.is_empty()), "{report:?}");
    assert!(report.tables.iter().map(|one| one.source_rows).sum::<u64>() > 1_000);
}
