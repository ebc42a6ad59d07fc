//! Lake commits are an interval apart; what comes after a longer silence does not wait for one.

use std::time::{Duration, Instant};

use super::scene::{Scene, following, stop};

const INTERVAL: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_change_after_a_silence_does_not_wait() {
    let mut scene = Scene::new("CREATE TABLE t(id int PRIMARY KEY)").await;
    let running = following(scene.run_every("8s").spawn());
    // The silence is what is tested: no condition tells its end.
    tokio::time::sleep(INTERVAL).await;
    let since = Instant::now();
    scene.sql("INSERT INTO t VALUES (1)").await;
    holds(&mut scene, 1).await;
    let (after_silence, since) = (since.elapsed(), Instant::now());
    scene.sql("INSERT INTO t VALUES (2)").await;
    holds(&mut scene, 2).await;
    let behind_it = since.elapsed();
    stop(running);
    eprintln!("{after_silence:?} after a silence, {behind_it:?} right behind it");
    assert!(after_silence < INTERVAL / 2, "{after_silence:?}");
    assert!(behind_it > INTERVAL / 2, "{behind_it:?}");
}

/// Waits until the lake has this many rows, without a word to the source.
async fn holds(scene: &mut Scene, rows: u64) {
    let end = Instant::now() + INTERVAL * 3;
    while scene.lake.query_now("SELECT count(*) FROM {public.t}") != [[Some(rows.to_string())]] {
        assert!(Instant::now() < end, "the lake has not {rows} rows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
