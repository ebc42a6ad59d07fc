//! A stop on Nessie: what is complete is committed first; where Nessie does not answer, the stop
//! ends all the same, says so, and nothing is lost.

use std::time::{Duration, Instant};

use super::load::Shop;
use super::{Scene, following, stop};
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::frazil::Frazil;

// cases: 14 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_commits_what_is_complete() {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let load = shop.start(&scene.postgres, (2, 10), Duration::from_millis(10));
    // Only the stop makes a lake commit.
    let run = Frazil::nessie(&scene.postgres.dsn(), &scene.branch, scene.minio);
    let mut running = run.arg("--commit-interval=1h").spawn();
    running.wait_for_log("following the stream", Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let done = load.done();
    // What was sent is here.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.lake_commits().await.len(), 1);
    let since = Instant::now();
    stop(running);
    eprintln!("stopped in {:.1} s", since.elapsed().as_secs_f64());
    assert_eq!(scene.lake_commits().await.len(), 2);
    let state = scene.lake.state();
    let seen = shop.assert_whole(&mut scene.lake, &state).transactions;
    assert!(seen >= done, "{seen} of {done} source transactions");
    let done = load.end().await;
    scene.catch_up().succeeded();
    scene.assert_equal(&shop.tables()).await;
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_nessie_refuses_ends_with_69_and_loses_nothing() {
    stopped_in_trouble(Rule::on("*", "/").answer(503)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_nessie_is_silent_ends_with_69_and_loses_nothing() {
    stopped_in_trouble(Rule::on("*", "/").delay(Duration::from_secs(600))).await;
}

async fn stopped_in_trouble(rule: Rule) {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let nessie = FaultProxy::start(scene.branch.uri());
    let load = shop.start(&scene.postgres, (2, 11), Duration::from_millis(10));
    let running = following(scene.run_on(&scene.branch.through(&nessie.url())).spawn());
    scene.until("two lake commits", async || scene.lake_commits().await.len() > 2).await;
    nessie.set_rules([rule]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    running.signal("TERM");
    let ended = running.wait(Duration::from_secs(60)).exited(69);
    eprintln!("stopped in {:.1} s", since.elapsed().as_secs_f64());
    assert!(ended.stderr.contains("CATALOG_DOWN") || ended.stderr.contains("COMMIT_OPEN"));
    drop(nessie);
    let done = load.end().await;
    scene.catch_up().succeeded();
    scene.assert_equal(&shop.tables()).await;
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
}
