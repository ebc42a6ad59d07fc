//! S3 in trouble: errors, slow answers, cut connections. Nothing is lost, and no part of an upload
//! is left behind.

use std::time::{Duration, Instant};

use super::load::Shop;
use super::{Scene, following, is_long, stop};
use crate::support::fault_proxy::{Entry, FaultProxy, Rule};

/// Random bytes in text: 40 MB that no codec makes small, so that files are uploaded in parts.
const HUGE: &str = "INSERT INTO shop.blobs SELECT g, \
     (SELECT string_agg(md5(random()::text || g || i), '') FROM generate_series(1, 1250) i) \
     FROM generate_series(1, 1000) g";

// cases: 153 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_lake_is_equal_after_errors_delays_and_resets() {
    let share = if is_long() { 0.2 } else { 0.1 };
    let shop = Shop::SMALL;
    let mut scene = Scene::new(&shop.sql()).await;
    scene.sql("CREATE TABLE shop.blobs(id int PRIMARY KEY, body text)").await;
    scene.sql("ALTER TABLE shop.blobs ALTER body SET STORAGE EXTERNAL").await;
    let storage = FaultProxy::start(&scene.minio.endpoint());
    let rules = |seed: u64| {
        [
            Rule::on("*", "/lake").chance(share / 4.0, seed).reset(),
            Rule::on("*", "/lake").chance(share / 4.0, seed + 1).answer(500),
            Rule::on("*", "/lake")
                .chance(share / 4.0, seed + 2)
                .answer(503)
                .header("Retry-After", "0"),
            Rule::on("*", "/lake").chance(share / 4.0, seed + 3).drop_answer(),
            Rule::on("*", "/lake").chance(share, seed + 4).delay(Duration::from_millis(300)),
        ]
    };
    storage.set_rules(rules(1));
    let load = shop.start(&scene.postgres, (2, 12), Duration::from_millis(20));
    let run = scene.run().env("AWS_ENDPOINT_URL", &storage.url());
    let running = following(run.spawn());
    let since = Instant::now();
    scene.sql(HUGE).await;
    scene.wait_until_the_lake_holds_it().await;
    eprintln!("the huge transaction was in the lake after {:.1} s", since.elapsed().as_secs_f64());
    scene.sql("UPDATE shop.blobs SET body = body || 'x' WHERE id % 2 = 0").await;
    let commits = scene.lake_commits().await.len();
    // Each takes as long as its tries: minutes where the machine is busy too.
    let more = async || scene.lake_commits().await.len() > commits + 8;
    super::until("more lake commits", Duration::from_secs(240), more).await;
    let done = scene.at_rest(load).await;
    stop(running);
    let journal = storage.journal();
    let faults = journal.iter().filter(|entry| entry.fault.is_some()).count();
    let commits = scene.lake_commits().await.len();
    eprintln!("{faults} faults in {} requests, {commits} lake commits", journal.len());
    assert!(faults > 10, "{faults}");
    assert!(journal.iter().any(|entry| entry.path.contains("partNumber")), "no upload in parts");
    scene.assert_equal(&[shop.tables(), vec!["shop.blobs".into()]].concat()).await;
    let state = scene.lake.state();
    assert_eq!(shop.assert_whole(&mut scene.lake, &state).transactions, done);
    // An upload whose beginning was not answered is unknown to frazil; one may not be aborted.
    let is_lost = |entry: &&Entry| {
        let begins = entry.method == "POST" && entry.path.contains("uploads");
        let aborts = entry.method == "DELETE" && entry.path.contains("uploadId");
        entry.fault.is_some() && (begins || aborts)
    };
    assert_uploads(&scene, journal.iter().filter(is_lost).count()).await;
    let files = scene.files().await;
    eprintln!("{} orphans", files.orphans.len());
    assert!(files.orphans.len() <= faults, "{:#?}", files.orphans);
}

/// The storage is away in the middle of a large source transaction, for longer than a request is
/// tried: the run goes on by itself once it is back.
// cases: 153 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_of_a_large_transaction_leaves_no_parts() {
    let mut scene = Scene::new(
        "CREATE SCHEMA shop; CREATE TABLE shop.blobs(id int PRIMARY KEY, body text); \
         ALTER TABLE shop.blobs ALTER body SET STORAGE EXTERNAL;",
    )
    .await;
    let storage = FaultProxy::start(&scene.minio.endpoint());
    let running = following(scene.run().env("AWS_ENDPOINT_URL", &storage.url()).spawn());
    // Part 3 of an upload and whatever comes then, for 4 seconds; aborts of uploads too.
    storage.set_rules([
        Rule::on("PUT", "partNumber").skip(2).answer(503),
        Rule::on("DELETE", "uploadId").next(1).reset(),
    ]);
    scene.sql(HUGE).await;
    scene
        .until("parts are refused", async || {
            storage.requests("PUT", "partNumber").iter().any(|entry| entry.fault.is_some())
        })
        .await;
    assert_eq!(scene.lake_commits().await.len(), 1, "half a source transaction");
    tokio::time::sleep(Duration::from_secs(4)).await;
    storage.set_rules([]);
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["shop.blobs".into()]).await;
    assert_uploads(&scene, 0).await;
}

/// A frazil that dies in the middle of an upload leaves its parts; whoever has them listed sees
/// which. A clean stop leaves none.
async fn assert_uploads(scene: &Scene, most: usize) {
    for commit in scene.lake_commits().await.iter().take(1) {
        for table in &commit.tables {
            let (namespace, name) = table.split_once('.').unwrap();
            let found = scene.branch.get(&format!("namespaces/{namespace}/tables/{name}")).await;
            let location = found["metadata"]["location"].as_str().unwrap();
            let prefix = location.strip_prefix("s3://lake/").unwrap();
            let left = scene.minio.incomplete_uploads(prefix).await;
            assert!(left.len() <= most, "{left:?}");
        }
    }
}
