//! Random schemas, workloads, DDL and crashes. The model (`model.rs`) says what the source must
//! hold
//! without asking it; the source is compared with the model, and the lake with the source by
//! `frazil verify`, whose client and decoder share nothing with the path they prove.
//!
//! `FRAZIL_SEEDS=1000` runs that many seeds, `FRAZIL_FIRST_SEED` says where they begin,
//! `FRAZIL_SEED=17` replays one.

mod live;
mod model;
mod run;

use futures::StreamExt;

/// What CI runs.
const SEEDS: u64 = 50;
/// At the same time.
const PARALLEL: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

// cases: 63 65 67 73 74 76 80 81 91 92 93 94 95 96 97 100 101 103 104 107 115 116 117 125 127 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_lake_equals_the_source_whatever_happens() {
    let seeds: Vec<u64> = match std::env::var("FRAZIL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first = setting("FRAZIL_FIRST_SEED", 1);
            (first..first + setting("FRAZIL_SEEDS", SEEDS)).collect()
        }
    };
    let runs = seeds.into_iter().map(|seed| async move {
        let done = tokio::spawn(run::one(seed)).await;
        (seed, done.is_ok())
    });
    let outcomes: Vec<(u64, bool)> =
        futures::stream::iter(runs).buffer_unordered(PARALLEL).collect().await;
    let failed: Vec<u64> = outcomes.iter().filter(|(_, ok)| !ok).map(|(seed, _)| *seed).collect();
    eprintln!("{} seeds, {} failed", outcomes.len(), failed.len());
    assert!(failed.is_empty(), "replay with FRAZIL_SEED=...: {failed:?}");
}
