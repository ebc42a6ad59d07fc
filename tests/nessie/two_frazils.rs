//! Two frazils with one slot and one branch never both commit; a lake commit that a dead frazil
//! sent, and that lands later, is not made a second time (case 16).

use std::time::Duration;

use super::load::Shop;
use super::{Scene, following, stop};
use crate::support::fault_proxy::{FaultProxy, Rule};

// cases: 16 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_second_waits_or_one_of_them_stops() {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let load = shop.start(&scene.postgres, (2, 8), Duration::from_millis(10));
    let mut first = scene.started();
    let mut second = scene.run().spawn();
    second.wait_for_log("SLOT_ACTIVE", Duration::from_secs(30));
    assert!(!second.stderr().contains("following the stream"), "both at once");

    // The first sleeps, perhaps in the middle of a lake commit; its connection is cut.
    first.signal("STOP");
    scene.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    second.wait_for_log("following the stream", Duration::from_secs(60));
    let before = scene.lake_commits().await.len();
    scene.until("the second commits", async || scene.lake_commits().await.len() > before + 2).await;
    first.signal("CONT");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let alive = [first.is_running(), second.is_running()];
    assert!(alive.contains(&true), "both have stopped:\n{}\n{}", first.stderr(), second.stderr());
    let done = load.end().await;
    for (running, is_alive) in [(first, alive[0]), (second, alive[1])] {
        match is_alive {
            true => running.signal("TERM"),
            false => eprintln!("one of them has stopped"),
        }
        let ended = running.wait(Duration::from_secs(60));
        let may_lose = ended.code == Some(1) && ended.stderr.contains("ANOTHER_WRITER");
        assert!(ended.code == Some(0) || may_lose, "{:?}\n{}", ended.code, ended.stderr);
    }
    scene.catch_up().succeeded();
    assert_whole(&mut scene, shop, done).await;
}

/// The request of a killed frazil reaches Nessie when the next one is already at work.
// cases: 16 146 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_late_lake_commit_of_a_dead_frazil_is_not_made_twice() {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let load = shop.start(&scene.postgres, (2, 9), Duration::from_millis(10));
    scene.catch_up().succeeded();
    let nessie = FaultProxy::start(scene.branch.uri());
    let late = Duration::from_secs(4);
    nessie.set_rules([Rule::on("POST", "transactions/commit").next(1).delay(late)]);
    let dead = following(scene.run_on(&scene.branch.through(&nessie.url())).spawn());
    let sent = "transactions/commit";
    scene.until("it is sent", async || !nessie.requests("POST", sent).is_empty()).await;
    dead.kill9();

    // With a window that is open at that moment, and one that is not.
    let mut next = scene.run().spawn();
    next.wait_for_log("following the stream", Duration::from_secs(60));
    tokio::time::sleep(late).await;
    let status = nessie.requests("POST", sent)[0].status;
    // It was refused (the next one was faster), or it landed and the next one stopped.
    eprintln!("the late request: {status:?}");
    if next.is_running() {
        stop(next);
    } else {
        next.wait(Duration::from_secs(30)).exited(1).said("ANOTHER_WRITER");
    }
    let done = load.end().await;
    scene.catch_up().succeeded();
    assert_whole(&mut scene, shop, done).await;
}

async fn assert_whole(scene: &mut Scene, shop: Shop, done: u64) {
    scene.assert_equal(&shop.tables()).await;
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
    // Made once each, P in order.
    assert!(!scene.lake_commits().await.is_empty());
}
