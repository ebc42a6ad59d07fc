//! frazil on Nessie ends at each named point of the data path as by `kill -9`, in the stream and in
//! the initial snapshot; the next start goes on, and each source transaction is in the lake once.

use std::time::Duration;

use super::load::Shop;
use super::{Scene, is_long};
use crate::support::frazil::Frazil;

const POINTS: [&str; 5] = [
    "files_written",
    "manifest_written",
    "before_catalog_commit",
    "after_catalog_commit",
    "before_acknowledge",
];

fn at(point: &str, pass: usize) -> String {
    match pass {
        1 => format!("{point}=return"),
        _ => format!("{point}={}*off->return", pass - 1),
    }
}

/// Runs until the point is reached.
fn crash(frazil: Frazil, points: &str) {
    let ended = frazil.failpoints(points).spawn().wait(Duration::from_secs(90));
    assert_eq!(ended.code, None, "not aborted at {points}:\n{}", ended.stderr);
}

// cases: 127 144 145 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_of_the_stream_loses_nothing_and_doubles_nothing() {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let load = shop.start(&scene.postgres, (2, 6), Duration::from_millis(10));
    scene.catch_up().succeeded();
    for point in POINTS {
        for pass in 1..=if is_long() { 5 } else { 2 } {
            crash(scene.run(), &at(point, pass));
        }
        let state = scene.lake.state();
        let seen = shop.assert_whole(&mut scene.lake, &state).transactions;
        eprintln!("after {point}: {seen} of {} transactions", load.done());
    }
    let done = load.end().await;
    scene.catch_up().succeeded();
    scene.assert_equal(&shop.tables()).await;
    for commit in scene.lake_commits().await {
        let state = scene.lake.state_at(&commit.hash);
        shop.assert_whole(&mut scene.lake, &state);
    }
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
}

// cases: 135 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_of_the_initial_snapshot_leaves_nothing_or_all() {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let load = shop.start(&scene.postgres, (2, 7), Duration::from_millis(10));
    for point in ["files_written", "manifest_written", "before_catalog_commit"] {
        crash(scene.run(), &at(point, 1));
        assert!(scene.lake_commits().await.is_empty(), "visible after {point}");
        assert_eq!(scene.lake.state().tables().count(), 0, "visible after {point}");
    }
    crash(scene.run(), &at("after_catalog_commit", 1));
    let commits = scene.lake_commits().await;
    assert_eq!(commits.len(), 1);
    let state = scene.lake.state();
    shop.assert_whole(&mut scene.lake, &state);
    load.end().await;
    scene.catch_up().succeeded();
    assert_eq!(
        scene.lake_commits().await[0],
        commits[0],
        "the initial snapshot is not taken again"
    );
    scene.assert_equal(&shop.tables()).await;
}
