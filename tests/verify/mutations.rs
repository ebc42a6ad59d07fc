//! The proof of the proof: a lake in which one change was dropped, doubled or altered behind
//! verify's back is never called equal.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Scene, assert_equal, counts, of};

/// Runs in CI; with `FRAZIL_LONG` ten times as many.
const RUNS: u64 = 30;
const ROWS: i64 = 200;
const SEED: u64 = 300;

/// Rows, deleted keys, and what verify must say of them.
type Mutation = (Vec<(i64, String)>, Vec<i64>, (u64, u64, u64));

/// What is done to the lake, as (rows, deleted keys), and the (missing, extra, differing) it makes.
fn mutation(random: &mut StdRng) -> Mutation {
    let id = random.random_range(1..=ROWS);
    let was = format!("v{id}");
    match random.random_range(0..5) {
        0 => (vec![], vec![id], (1, 0, 0)),
        1 => (vec![(id, was)], vec![], (0, 1, 0)),
        2 => {
            // One character of one value.
            let mut altered = was.into_bytes();
            let at = random.random_range(0..altered.len());
            altered[at] ^= 1 << random.random_range(0..3);
            (vec![(id, String::from_utf8(altered).unwrap())], vec![id], (0, 0, 1))
        }
        3 => (vec![(id, String::new())], vec![id], (0, 0, 1)),
        // A row under another key: one is missing, one is too much.
        _ => (vec![(id + 1_000_000, was)], vec![id], (1, 1, 0)),
    }
}

// cases: 178 179 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_is_found() {
    let runs = if std::env::var_os("FRAZIL_LONG").is_some() { RUNS * 10 } else { RUNS };
    let sql = format!(
        "CREATE TABLE t(id bigint PRIMARY KEY, v text);
         INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, {ROWS}) g"
    );
    let scene = Scene::copied(&sql).await;
    assert_equal(&scene.verify().await);
    let mut found = 0;
    for run in 0..runs {
        let mut random = StdRng::seed_from_u64(SEED + run);
        let (rows, deleted, want) = mutation(&mut random);
        let rows: Vec<(i64, &str)> = rows.iter().map(|(id, v)| (*id, v.as_str())).collect();
        scene.tamper(&rows, &deleted).await;
        let report = scene.verify().await;
        assert!(!report.equal, "seed {}: {rows:?} {deleted:?} was not found", SEED + run);
        assert_eq!(counts(of(&report, "public.t")), want, "seed {}", SEED + run);
        found += 1;
        // Back to what it was, by the lake's own means.
        let id = deleted.first().copied().unwrap_or_else(|| rows[0].0);
        let was = format!("v{id}");
        let stray = rows.iter().map(|row| row.0).chain([id]).collect::<Vec<_>>();
        scene.tamper(&[(id, &was)], &stray).await;
    }
    eprintln!("{found} of {runs} mutations found");
    assert_equal(&scene.verify().await);
}
