//! Nessie dies, comes back, or stands still: the source stays connected meanwhile and is heard
//! from, memory stays bounded, and then all is there, each lake commit once (cases 12, 152).

use std::time::{Duration, Instant};

use super::load::Shop;
use super::{Scene, following, is_long, stop};
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::nessie::{Nessie, NessieOptions};
use crate::support::postgres::{Postgres, PostgresOptions};

const RSS_MAX: u64 = 400 << 20;

/// The walsender that serves us, and how long ago it heard from us, in seconds.
async fn heard(postgres: &Postgres) -> (String, f64) {
    let sql = "SELECT r.pid, extract(epoch FROM clock_timestamp() - r.reply_time) \
         FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid";
    let rows = postgres.sql(sql).await;
    assert_eq!(rows.len(), 1, "the slot is not active");
    let text = |at: usize| rows[0][at].clone().unwrap();
    (text(0), text(1).parse().unwrap())
}

// cases: 152 holds
#[tokio::test(flavor = "multi_thread")]
async fn nessie_is_killed_and_frozen_and_all_is_there_afterwards() {
    let mut nessie = Nessie::start(NessieOptions::default()).await;
    let shop = Shop::SMALL;
    let options = PostgresOptions::default().set("wal_sender_timeout", "4s");
    let sql = format!("{} CREATE TABLE shop.wide(id int PRIMARY KEY, v text)", shop.sql());
    let mut scene = Scene::on(nessie.branch().await, options, &sql).await;
    let proxy = FaultProxy::start(scene.branch.uri());
    let load = shop.start(&scene.postgres, (2, 13), Duration::from_millis(10));
    let running = following(scene.run_on(&scene.branch.through(&proxy.url())).spawn());
    scene.until("lake commits", async || scene.lake_commits().await.len() > 2).await;
    let (pid, _) = heard(&scene.postgres).await;

    // The frozen server has the requests and answers none.
    let frozen = if is_long() { 90 } else { 10 };
    nessie.freeze();
    let since = Instant::now();
    let mut wide = 0;
    while since.elapsed() < Duration::from_secs(frozen) {
        let (now, seconds) = heard(&scene.postgres).await;
        assert_eq!(now, pid, "connected anew:\n{}", running.stderr());
        assert!(seconds < 3.5, "not heard from for {seconds} s");
        wide += 1;
        scene
            .sql(&format!(
                "INSERT INTO shop.wide VALUES ({wide}, repeat(md5('{wide}'), 30000)); \
                 UPDATE shop.wide SET v = 'x' || v WHERE id > {wide} - 3"
            ))
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nessie.thaw();
    goes_on(&scene, "frozen").await;
    assert_eq!(heard(&scene.postgres).await.0, pid, "connected anew:\n{}", running.stderr());

    // Killed while it has a request, right after it made one whose answer was lost, and while it is
    // asked how the lake stands after one that did not arrive.
    let on_commit = || Rule::on("POST", "transactions/commit").next(1);
    let slow_read = Rule::on("GET", "tables/").delay(Duration::from_secs(1));
    for (sent, rules) in [
        ("transactions/commit", vec![on_commit().delay(Duration::from_secs(1))]),
        ("transactions/commit", vec![on_commit().drop_answer()]),
        ("tables/ledger_", vec![on_commit().reset(), slow_read]),
    ] {
        proxy.clear();
        proxy.set_rules(rules);
        scene.until("it is sent", async || !proxy.requests("*", sent).is_empty()).await;
        nessie.kill9();
        proxy.set_rules([]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        nessie.restart().await;
        goes_on(&scene, "killed").await;
        assert_eq!(heard(&scene.postgres).await.0, pid, "connected anew:\n{}", running.stderr());
    }
    let done = scene.at_rest(load).await;
    let ended = stop(running);
    eprintln!("peak RSS {} MiB, {done} transactions", ended.peak_rss_bytes >> 20);
    assert!(ended.peak_rss_bytes < RSS_MAX, "{} MiB", ended.peak_rss_bytes >> 20);
    scene.assert_equal(&[shop.tables(), vec!["shop.wide".into()]].concat()).await;
    for commit in scene.lake_commits().await {
        let state = scene.lake.state_at(&commit.hash);
        shop.assert_whole(&mut scene.lake, &state);
    }
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
}

async fn goes_on(scene: &Scene, after: &str) {
    let since = Instant::now();
    let before = scene.lake_commits().await.len();
    scene.until(after, async || scene.lake_commits().await.len() > before + 1).await;
    eprintln!("after {after}: lake commits again in {:.1} s", since.elapsed().as_secs_f64());
}
