//! Accounts in two tables, money moved between them by four writers: in every state of the lake
//! that can be seen while frazil runs, the sum over both tables is the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::scene::{LEDGER, Scene, following, lsn, metadata, stop, summaries};

const ACCOUNTS: i32 = 200;
const WRITERS: u64 = 4;
const SECONDS: u64 = 8;
const SEED: u64 = 7;

const SCHEMA: &str = "
    CREATE TABLE here(id int PRIMARY KEY, owner text, balance numeric(14,2) NOT NULL);
    CREATE TABLE there(owner text, id int, balance bigint NOT NULL, PRIMARY KEY (owner, id));
    INSERT INTO here SELECT g, 'o' || g, 1000 FROM generate_series(1, 200) g;
    INSERT INTO there SELECT 'o' || g, g, 1000 FROM generate_series(1, 200) g;
    CREATE FUNCTION move_money(one int, two int, amount int) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE here SET balance = balance - amount WHERE id = one;
        -- An account that another writer has just closed or renamed moves nothing.
        IF FOUND THEN
            UPDATE there SET balance = balance + amount WHERE id = two;
            IF NOT FOUND THEN RAISE 'no account %', two; END IF;
        END IF;
    END $$;";

const SUM: &str =
    "SELECT (SELECT sum(balance) FROM {public.here}) + (SELECT sum(balance) FROM {public.there})";

/// One source transaction: amounts from one table to the other, and now and then an account that is
/// closed and opened again elsewhere, or a change of its key.
fn transfer(random: &mut StdRng) -> String {
    let (one, two) = (random.random_range(1..=ACCOUNTS), random.random_range(1..=ACCOUNTS));
    let amount = random.random_range(-50..50);
    let mut sql = format!("BEGIN; SELECT move_money({one}, {two}, {amount});");
    match random.random_range(0..12) {
        0 => sql.push_str(&format!("UPDATE here SET id = -id WHERE id IN ({one}, -{one});")),
        1 => sql.push_str(&format!("UPDATE there SET owner = owner || 'x' WHERE id = {two};")),
        2 => sql.push_str(&format!(
            "WITH gone AS (DELETE FROM here WHERE id = {two} RETURNING *) \
             INSERT INTO there SELECT owner || gen_random_uuid(), id + 1000, balance FROM gone;"
        )),
        3 => sql.push_str(&format!(
            "WITH gone AS (DELETE FROM there WHERE id = 1000 + {two} RETURNING *) \
             INSERT INTO here SELECT id * 1000 + (random() * 1e6)::int, owner, balance FROM gone;"
        )),
        _ => {}
    }
    sql.push_str(if random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" });
    sql
}

fn writer(scene: &Scene, seed: u64, ends: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (dsn, ends) = (scene.postgres.dsn(), Arc::clone(ends));
    tokio::spawn(async move {
        let (client, connection) =
            tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut random = StdRng::seed_from_u64(seed);
        let mut done = 0;
        while !ends.load(Ordering::Relaxed) {
            // A deadlock or a duplicate key is the writers' own affair.
            match client.batch_execute(&transfer(&mut random)).await {
                Ok(()) => done += 1,
                Err(_) => client.batch_execute("ROLLBACK").await.unwrap(),
            }
        }
        done
    })
}

// cases: 121 150 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_sum_is_the_same_in_every_lake_commit() {
    let mut scene = Scene::new(SCHEMA).await;
    eprintln!("seeds: {SEED}..");
    let ends = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS).map(|n| writer(&scene, SEED + n, &ends)).collect();
    // The initial snapshot is taken under load too.
    let running = following(scene.run().spawn());
    let since = Instant::now();
    let (mut last, mut seen) = (None, 0);
    while since.elapsed() < Duration::from_secs(SECONDS) {
        let state = scene.lake.state();
        if last.as_ref() == Some(&state) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let sum: f64 = scene.lake.query(&state, SUM)[0][0].as_ref().unwrap().parse().unwrap();
        assert!(
            (sum - 400_000.0).abs() < 1e-6,
            "a torn lake commit: {sum} in {state:?}; source: {:?}",
            scene
                .sql("SELECT (SELECT sum(balance) FROM here) + (SELECT sum(balance) FROM there)")
                .await
        );
        // The ledger keeps few old metadata files: a slow reader may be too late.
        if Path::new(state.location(LEDGER)).exists() {
            assert_positions(&state);
        }
        (last, seen) = (Some(state), seen + 1);
    }
    ends.store(true, Ordering::Relaxed);
    let mut transfers = 0;
    for writer in writers {
        transfers += writer.await.unwrap();
    }
    eprintln!("{transfers} transfers, {seen} lake states read");
    assert!(seen >= 5, "only {seen} lake states were seen");
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.here", "public.there"]).await;

    let ledger = scene.ledger();
    let positions: Vec<u64> = summaries(&ledger)
        .iter()
        .filter_map(|summary| summary["frazil.position"].as_str())
        .map(lsn)
        .collect();
    assert!(positions.len() >= seen, "{} of {seen}", positions.len());
    assert!(positions.is_sorted(), "P went back: {positions:?}");
}

/// No table of one lake state is ahead of its ledger.
fn assert_positions(state: &crate::support::lake::LakeState) {
    let of = |table| {
        let found = metadata(state, table);
        let current = found["current-snapshot-id"].clone();
        let snapshots = found["snapshots"].as_array().unwrap().clone();
        let snapshot = snapshots.into_iter().find(|one| one["snapshot-id"] == current).unwrap();
        lsn(snapshot["summary"]["frazil.position"].as_str().unwrap())
    };
    let ledger = of(LEDGER);
    for table in ["public.here", "public.there"] {
        assert!(of(table) <= ledger, "{table} is ahead of the ledger");
    }
}
