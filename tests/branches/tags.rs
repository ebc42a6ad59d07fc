//! Tags are made by themselves and on request, and stay where they are.

use std::time::Duration;

use crate::support::process::poll;

use super::{Scene, TABLE};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_tag_is_made_every_tag_interval_with_the_lsn_in_its_name() {
    let scene = Scene::new().await;
    let name = scene.readers.name();
    let config = scene.config("lake: {tag_interval: 300ms}");
    let mut running = scene.run(&config).arg("--ref").arg(name).spawn();
    running.wait_for_log("tagged", SOON);
    scene.postgres.sql("UPDATE account SET balance = 1").await;
    let tags = || {
        let refs = scene.lake_json(&["refs"]);
        let refs = refs.as_array().unwrap().iter();
        let tags = refs.filter(|r| r["kind"] == "tag").map(|r| r["hash"].clone());
        tags.collect::<Vec<_>>()
    };
    let ours = |hash: &serde_json::Value| {
        let log = scene.lake_json(&["log"]);
        log.as_array().unwrap().iter().any(|c| c["hash"] == *hash)
    };
    let two = poll(SOON, || (tags().iter().filter(|h| ours(h)).count() >= 2).then_some(()));
    assert!(two.is_some(), "{:?}", tags());
    running.signal("TERM");
    running.wait(SOON).succeeded();
    // Nothing changed since: no tag without a lake commit of its own.
    let log = scene.lake_json(&["log"]);
    for commit in log.as_array().unwrap() {
        let tagged = tags().iter().filter(|hash| **hash == commit["hash"]).count();
        assert!(tagged <= 1, "{commit}");
    }
}

#[tokio::test]
async fn a_tag_on_request_keeps_the_state_at_an_lsn() {
    let scene = Scene::new().await;
    let config = scene.config("");
    let run = || scene.run(&config).arg("--ref").arg(scene.readers.name()).arg("--until-caught-up");
    run().finish().succeeded();
    let lsn = scene.postgres.value("SELECT pg_current_wal_lsn()").await;
    scene.postgres.sql("DELETE FROM account WHERE id > 10").await;
    run().finish().succeeded();

    let tag = format!("{}_before", scene.readers.name());
    scene.lake(&["tag", &tag, "--lsn", &lsn]).succeeded();
    let mut lake = scene.seen_by_readers();
    let at = |lake: &mut crate::support::lake::Lake, at: &str| {
        lake.query_attached(at, "SELECT count(*) FROM {public.account}")[0][0].clone().unwrap()
    };
    assert_eq!(at(&mut lake, &tag), "100");
    assert_eq!(at(&mut lake, scene.readers.name()), "10");
    let again = scene.lake(&["tag", &tag]).exited(78);
    let _ = again.said("CATALOG_REF").said("exists already");
    let named = scene.lake(&["tag"]).succeeded().stdout;
    assert!(named.starts_with("tag lsn-"), "{named}");
    let _ = scene.lake(&["tag", "no good"]).exited(78).said("is no name");
    assert_eq!(super::count(&mut lake, TABLE), "10");
}
