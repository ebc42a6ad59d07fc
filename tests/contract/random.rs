//! Random lake commits against a model: segments, deletes, truncates. `FRAZIL_SEED` replays one.

use std::collections::BTreeMap;

use frazil::iceberg::row_delta::SegmentFiles;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Lake, app, change, create, on_every_catalog, summary};

on_every_catalog! { the_lake_is_the_model }

const COMMITS: u64 = 120;
const COMMITS_AWAY: u64 = 20;
const KEYS: i64 = 40;

type Model = BTreeMap<i64, String>;

/// One segment's net changes: a key is deleted if and only if it stood before the segment.
async fn segment(lake: &Lake, random: &mut StdRng, model: &mut Model) -> SegmentFiles {
    let ident = app("t");
    let (mut rows, mut deleted) = (Model::new(), Vec::new());
    for _ in 0..random.random_range(1..12) {
        let key = random.random_range(0..KEYS);
        if rows.contains_key(&key) || deleted.contains(&key) {
            continue;
        }
        if model.remove(&key).is_some() {
            deleted.push(key);
        }
        if random.random_bool(0.7) {
            rows.insert(key, format!("v{}", random.random::<u32>()));
        }
    }
    model.extend(rows.clone());
    let rows: Vec<(i64, &str)> = rows.iter().map(|(k, v)| (*k, v.as_str())).collect();
    lake.segment(&ident, &rows, &deleted).await
}

async fn the_lake_is_the_model(lake: Lake) {
    let seed = std::env::var("FRAZIL_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("FRAZIL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let t = app("t");
    let mut model = Model::new();
    lake.commit(None, 1, vec![create(&t, vec![])]).await.unwrap();
    for lsn in 1..=lake.rounds(COMMITS, COMMITS_AWAY) {
        let truncate = random.random_bool(0.03);
        if truncate {
            model.clear();
        }
        let mut segments = Vec::new();
        for _ in 0..random.random_range(1..4) {
            segments.push(segment(&lake, &mut random, &mut model).await);
        }
        let mut one = change(&t, segments);
        one.delta.truncate = truncate;
        lake.commit(Some(lsn), lsn + 1, vec![one]).await.unwrap();
        if lsn % 10 == 0 {
            let want: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(lake.rows(&t).await, want, "after lake commit {lsn}, FRAZIL_SEED={seed}");
        }
    }
    let table = lake.table(&t).await;
    let files = frazil::iceberg::read::live_data_files(&table).await.unwrap();
    assert_eq!(summary(&table, "total-data-files"), files.len() as u64);
    let records: u64 = files.iter().map(|f| f.0.record_count()).sum();
    assert_eq!(summary(&table, "total-records"), records);
    let deletes = frazil::iceberg::read::live_delete_files(&table).await.unwrap();
    let bytes: u64 = files.iter().chain(&deletes).map(|f| f.0.file_size_in_bytes()).sum();
    assert_eq!(summary(&table, "total-files-size"), bytes);
    let keys: u64 = deletes.iter().map(|f| f.0.record_count()).sum();
    assert_eq!(summary(&table, "total-equality-deletes"), keys);
}
