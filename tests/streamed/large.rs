//! A large streamed transaction: memory is bounded, and what it takes from COMMIT to visible.

use std::time::Instant;

use super::{scene, streamed_bytes};
use crate::behaviour::scene::{following, stop};

/// Rows in CI; `FRAZIL_CHANGES` for more.
const CHANGES: usize = 200_000;
const RSS_MAX: u64 = 400 << 20;

// cases: 122 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_large_streamed_transaction_stays_within_the_limit() {
    let changes = std::env::var("FRAZIL_CHANGES").map_or(CHANGES, |n| n.parse().unwrap());
    for streaming in ["off", "on"] {
        let mut scene = scene("CREATE TABLE t(id int PRIMARY KEY, n int, v text)").await;
        let run = scene.run().env("FRAZIL_SOURCE__STREAMING", streaming);
        let running = following(run.spawn());
        let client = scene.postgres.client().await;
        let fill = format!(
            "BEGIN; INSERT INTO t SELECT g, 0, repeat(md5(g::text), 4) FROM generate_series(1, {0}) g; \
             SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; UPDATE t SET n = id WHERE id <= {0} / 2",
            changes / 2
        );
        let since = Instant::now();
        client.batch_execute(&fill).await.unwrap();
        let open = since.elapsed().as_secs_f64();
        let since = Instant::now();
        client.batch_execute("COMMIT").await.unwrap();
        scene.wait_until_the_lake_holds_it().await;
        let seconds = since.elapsed().as_secs_f64();
        let bytes = streamed_bytes(&scene).await;
        let slot = "SELECT spill_bytes FROM pg_stat_replication_slots";
        let spilled = scene.postgres.value(slot).await;
        let ended = stop(running);
        let mib = ended.peak_rss_bytes >> 20;
        eprintln!(
            "streaming {streaming}, {changes} changes: {open:.1} s open, {seconds:.1} s from COMMIT \
             to visible, peak RSS {mib} MiB, {bytes} bytes streamed, {spilled} spilled"
        );
        assert_eq!(bytes > 0, streaming == "on");
        assert!(ended.peak_rss_bytes < RSS_MAX, "{mib} MiB");
        scene.assert_equal(&["public.t"]).await;
    }
}
