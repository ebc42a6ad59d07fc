//! Nessie makes a lake commit and its answer is lost: it is made once, and nothing is lost
//! (case 146).

use std::time::Duration;

use super::load::Shop;
use super::{SOON, Scene, following, is_long, stop};
use crate::support::fault_proxy::{FaultProxy, Rule};

const COMMIT: &str = "transactions/commit";

// cases: 146 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_commit_whose_answer_is_lost_is_made_once() {
    let wanted = if is_long() { 150 } else { 15 };
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let nessie = FaultProxy::start(scene.branch.uri());
    nessie.set_rules([Rule::on("POST", COMMIT).every(3).drop_answer()]);
    let load = shop.start(&scene.postgres, (2, 3), Duration::from_millis(15));
    let running = following(scene.run_on(&scene.branch.through(&nessie.url())).spawn());
    let patience = if is_long() { 6 * SOON } else { SOON };
    super::until("enough lake commits", patience, async || {
        let lost = nessie.requests("POST", COMMIT).iter().filter(|e| e.fault.is_some()).count();
        lost >= wanted / 3 && scene.lake_commits().await.len() >= wanted
    })
    .await;
    let done = scene.at_rest(load).await;
    stop(running);
    let requests = nessie.requests("POST", COMMIT);
    let made = requests.iter().filter(|entry| entry.status == Some(204)).count();
    let lost = requests.iter().filter(|entry| entry.fault.is_some()).count();
    let commits = scene.lake_commits().await;
    assert_eq!(commits.len(), made, "each of them once: {requests:#?}");
    // After a lost answer the ledger is asked, and nothing is sent again.
    assert_eq!(requests.len(), made, "{requests:#?}");
    scene.assert_equal(&shop.tables()).await;
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
    let files = scene.files().await;
    eprintln!("{made} lake commits, {lost} answers lost, {} orphans", files.orphans.len());
    assert!(files.orphans.is_empty(), "{:#?}", files.orphans);
}

/// Neither made nor answered: 503 before Nessie, and connections that are cut.
#[tokio::test(flavor = "multi_thread")]
async fn tries_that_fail_before_nessie_leave_a_bounded_number_of_files() {
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    let nessie = FaultProxy::start(scene.branch.uri());
    let load = shop.start(&scene.postgres, (2, 4), Duration::from_millis(15));
    let running = following(scene.run_on(&scene.branch.through(&nessie.url())).spawn());
    nessie.set_rules([
        Rule::on("POST", COMMIT).every(5).reset(),
        Rule::on("POST", COMMIT).every(3).answer(503),
        Rule::on("GET", "/tables/").chance(0.05, 5).reset(),
        Rule::on("GET", "/tables/").chance(0.05, 6).answer(500),
    ]);
    let commits = async || scene.lake_commits().await.len();
    scene.until("enough lake commits", async || commits().await >= 12).await;
    scene.at_rest(load).await;
    stop(running);
    scene.assert_equal(&shop.tables()).await;
    let requests = nessie.requests("POST", COMMIT);
    let failed = requests.iter().filter(|entry| entry.status != Some(204)).count();
    let made = requests.len() - failed;
    assert_eq!(scene.lake_commits().await.len(), made);
    let files = scene.files().await;
    let orphans = files.orphans.len();
    eprintln!("{made} lake commits, {failed} failed tries, {orphans} orphans");
    // A try stages, for each of six tables, a manifest list and two manifests at most; what it was
    // given of data files is kept for the next try.
    assert!(failed > 0 && orphans <= failed * 6 * 3, "{:#?}", files.orphans);
    let data = files.orphans.iter().filter(|file| file.ends_with(".parquet")).count();
    assert_eq!(data, 0, "{:#?}", files.orphans);
}
