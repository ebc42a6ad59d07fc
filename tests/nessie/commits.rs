//! One lake commit is one Nessie commit: whole source transactions over all tables, at the position
//! it says, and every reader that reads at its hash sees one state of the source.

use std::time::{Duration, Instant};

use super::load::Shop;
use super::{LEDGER, Scene, is_long, lsn, stop};
use crate::support::postgres::Postgres;

/// Where each source transaction ends, seen by a slot of the test's own.
async fn ends(postgres: &Postgres) -> Vec<u64> {
    let sql = "SELECT lsn FROM pg_logical_slot_peek_changes('witness', NULL, NULL, \
         'skip-empty-xacts', '1') WHERE data LIKE 'COMMIT%'";
    postgres.sql(sql).await.iter().map(|row| lsn(row[0].as_ref().unwrap())).collect()
}

// cases: 121 150 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_hash_of_the_branch_is_one_state_of_the_source() {
    let wanted = if is_long() { 200 } else { 14 };
    let shop = Shop::LARGE;
    let mut scene = Scene::new(&shop.sql()).await;
    scene.sql("SELECT pg_create_logical_replication_slot('witness', 'test_decoding')").await;
    let load = shop.start(&scene.postgres, (3, 1), Duration::from_millis(15));
    let running = scene.started();
    let since = Instant::now();
    let patience = Duration::from_secs(if is_long() { 600 } else { 100 });
    super::until("enough lake commits", patience, async || {
        scene.lake_commits().await.len() > wanted
    })
    .await;
    let done = load.end().await;
    let ends = ends(&scene.postgres).await;
    let reached = async || scene.lake_commits().await.last().map(|last| last.lsn);
    scene.until("the last one", async || reached().await >= ends.last().copied()).await;
    stop(running);
    let seconds = since.elapsed().as_secs_f64();
    scene.assert_equal(&shop.tables()).await;

    let commits = scene.lake_commits().await;
    let log = scene.branch.log().await;
    assert_eq!(log.len(), commits.len() + 2, "two namespaces, and else lake commits");
    eprintln!("{} lake commits of {done} source transactions in {seconds:.1} s", commits.len());
    assert_eq!(ends.len() as u64, done);
    let mut before = 0;
    for (i, commit) in commits.iter().enumerate() {
        assert!(commit.tables.len() <= 20, "{commit:?}");
        assert!(i == 0 || !commit.is_ledger_only(), "{commit:?}");
        let written: Vec<&String> = commit.rows.keys().filter(|t| *t != LEDGER).collect();
        let mut tables: Vec<&String> = commit.tables.iter().collect();
        tables.sort();
        assert_eq!(written, tables, "{commit:?}");
        let held = ends.iter().filter(|end| **end <= commit.lsn).count() as u64;
        // The first is the initial snapshot; each later one ends where a source transaction does.
        if i > 0 {
            assert!(ends.contains(&commit.lsn), "{commit:?}");
            assert_eq!(commit.transactions, held - before, "{commit:?}");
        }
        before = held;
    }
    assert_eq!(before, done);

    let since = Instant::now();
    for (i, commit) in commits.iter().enumerate() {
        // DuckDB opens every data and delete file at each hash: the long count is sampled.
        if i > 30 && i % 25 != 0 {
            continue;
        }
        let state = scene.lake.state_at(&commit.hash);
        let seen = shop.assert_whole(&mut scene.lake, &state);
        let held = ends.iter().filter(|end| **end <= commit.lsn).count() as u64;
        assert_eq!(seen.transactions, held, "{commit:?}");
        // As a person would: ATTACH, and `table@branch#hash`.
        if i % 10 == 1 {
            assert_eq!(shop.assert_whole_attached(&mut scene.lake, &commit.hash), seen);
        }
    }
    eprintln!("all of them read in {:.1} s", since.elapsed().as_secs_f64());
}
