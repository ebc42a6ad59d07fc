//! The initial snapshot of many tables is one Nessie commit: until then nothing is visible,
//! whatever happened to the frazil that took it.

use std::time::Duration;

use super::load::Shop;
use super::{Scene, lsn, stop};
use crate::support::fault_proxy::{FaultProxy, Rule};

// cases: 135 holds
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_leaves_nothing_and_the_next_run_completes_it() {
    let shop = Shop::LARGE;
    let mut scene = Scene::new(&shop.sql()).await;
    scene
        .sql("INSERT INTO shop.log SELECT 0, g, md5(g::text) FROM generate_series(1, 50000) g")
        .await;
    let load = shop.start(&scene.postgres, (2, 2), Duration::from_millis(20));

    // While files are written, and again when all are there and the commit is on its way.
    let storage = FaultProxy::start(&scene.minio.endpoint());
    storage.set_rules([Rule::on("PUT", "/lake/").skip(12).delay(Duration::from_secs(120))]);
    let frazil = scene.run().env("AWS_ENDPOINT_URL", &storage.url()).spawn();
    scene.until("files are written", async || storage.requests("PUT", "/lake/").len() > 12).await;
    frazil.kill9();
    drop(storage);
    assert_nothing_is_visible(&mut scene).await;

    let nessie = FaultProxy::start(scene.branch.uri());
    nessie.set_rules([Rule::on("POST", "transactions/commit").delay(Duration::from_secs(120))]);
    let frazil = scene.run_on(&scene.branch.through(&nessie.url())).spawn();
    let sent = "transactions/commit";
    scene.until("the commit is sent", async || !nessie.requests("POST", sent).is_empty()).await;
    frazil.kill9();
    drop(nessie);
    assert_nothing_is_visible(&mut scene).await;

    let running = scene.started();
    let first = scene.lake_commits().await.remove(0);
    let mut wanted = shop.tables();
    wanted.sort();
    let mut made = first.tables.clone();
    made.sort();
    assert_eq!(made, wanted, "all tables in one Nessie commit");
    let state = scene.lake.state_at(&first.hash);
    let copied = "SELECT count(*) FROM {shop.log} WHERE writer = 0";
    assert_eq!(scene.lake.query(&state, copied), [[Some("50000".into())]]);
    scene.at_rest(load).await;
    stop(running);
    let last = scene.lake_commits().await.pop().unwrap();
    let end = lsn(&scene.postgres.value("SELECT pg_current_wal_lsn()").await);
    assert!(first.lsn < last.lsn && last.lsn <= end, "{first:?} {last:?} {end:x}");
    let state = scene.lake.state();
    shop.assert_whole(&mut scene.lake, &state);
    scene.assert_equal(&shop.tables()).await;
}

async fn assert_nothing_is_visible(scene: &mut Scene) {
    assert!(scene.lake_commits().await.is_empty());
    let state = scene.lake.state();
    let seen: Vec<&str> = state.tables().collect();
    assert!(seen.is_empty(), "{seen:?}");
}
