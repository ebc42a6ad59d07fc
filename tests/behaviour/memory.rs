//! Memory is bounded whatever the size of a source transaction.

use std::time::Instant;

use super::scene::{Scene, following, stop};

/// Row changes in CI; `FRAZIL_CHANGES` for the long count, which is ten times this.
const CHANGES: usize = 200_000;
const RSS_MAX: u64 = 400 << 20;

/// Inserts, then updates and deletes of the same rows, in one transaction of at least `changes`.
fn one_transaction(changes: usize) -> String {
    let rows = changes / 2;
    format!(
        "BEGIN; INSERT INTO t SELECT g, g % 97, repeat(md5(g::text), 4), now(), g * 1.5 FROM generate_series(1, {rows}) g; \
         UPDATE t SET v = v + 1 WHERE id % 2 = 0; UPDATE t SET id = -id WHERE id % 5 = 0; DELETE FROM t WHERE id % 7 = 0; \
         INSERT INTO u SELECT g, 'u' FROM generate_series(1, {rows} / 5) g; COMMIT"
    )
}

// cases: 122 holds
#[tokio::test(flavor = "multi_thread")]
async fn one_large_transaction_stays_within_the_limit() {
    one_large_transaction("int PRIMARY KEY").await;
}

/// Whole rows are counted in earlier segments and in the lake.
// cases: 74 holds
#[tokio::test(flavor = "multi_thread")]
async fn one_large_transaction_without_a_key_stays_within_the_limit() {
    one_large_transaction("int").await;
}

async fn one_large_transaction(id: &str) {
    let changes = std::env::var("FRAZIL_CHANGES").map_or(CHANGES, |n| n.parse().unwrap());
    let schema = "CREATE TABLE t(id ID, v int, body text, at timestamptz, n numeric(14,2)); \
         CREATE TABLE u(id ID, v text); \
         ALTER TABLE t REPLICA IDENTITY WANTED; ALTER TABLE u REPLICA IDENTITY WANTED;";
    let identity = if id.contains("KEY") { "DEFAULT" } else { "FULL" };
    let schema = schema.replace("ID,", &format!("{id},")).replace("WANTED", identity);
    let mut scene = Scene::new(&schema).await;
    let running = following(scene.run_every("1s").spawn());
    scene.sql(&one_transaction(changes)).await;
    let since = Instant::now();
    // Far more than the scene's own patience at the long count.
    for _ in 0..20 {
        let now = super::scene::lsn(&scene.postgres.value("SELECT pg_current_wal_lsn()").await);
        if scene.position() >= now {
            break;
        }
        scene.sql("SELECT pg_logical_emit_message(true, 'frazil', '')").await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    scene.wait_until_the_lake_holds_it().await;
    let seconds = since.elapsed().as_secs_f64();
    let ended = stop(running);
    let mib = ended.peak_rss_bytes >> 20;
    eprintln!("one transaction of {changes} changes: peak RSS {mib} MiB, {seconds:.1} s");
    assert!(ended.peak_rss_bytes < RSS_MAX, "{mib} MiB");
    scene.assert_equal(&["public.t", "public.u"]).await;
}

/// Values of 1 MiB: a segment holds few rows.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_stay_within_the_limit() {
    let mut scene = Scene::new("CREATE TABLE t(id int PRIMARY KEY, body bytea)").await;
    scene.sql("ALTER TABLE t ALTER body SET STORAGE EXTERNAL").await;
    let insert = |from: u32, to: u32| {
        let value = "decode(repeat(md5(g::text), 65536), 'hex')";
        format!("INSERT INTO t SELECT g, {value} FROM generate_series({from}, {to}) g")
    };
    scene.sql(&insert(1, 60)).await;
    let running = scene.started();
    for (what, sql) in
        [("copied", insert(101, 200)), ("streamed", "DELETE FROM t WHERE id % 3 = 0".into())]
    {
        eprintln!("{what}: peak RSS {} MiB", running.peak_rss_bytes() >> 20);
        scene.sql(&sql).await;
        scene.wait_until_the_lake_holds_it().await;
    }
    let ended = stop(running);
    let mib = ended.peak_rss_bytes >> 20;
    eprintln!("values of 1 MiB: peak RSS {mib} MiB");
    assert!(ended.peak_rss_bytes < RSS_MAX, "{mib} MiB");
    let sums = "SELECT count(*), sum(octet_length(body)), max(id) FROM";
    let lake = scene.lake.query_now(&format!("{sums} {{public.t}}"));
    assert_eq!(lake, scene.sql(&format!("{sums} t")).await);
}

/// Values of 1 MiB: a segment holds few rows.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_large_values_stay_within_the_limit() {
    let mut scene = Scene::new("CREATE TABLE t(id int PRIMARY KEY, body bytea)").await;
    scene.sql("ALTER TABLE t ALTER body SET STORAGE EXTERNAL").await;
    let insert = |from: u32, to: u32| {
        let value = "decode(repeat(md5(g::text), 65536), 'hex')";
        format!("INSERT INTO t SELECT g, {value} FROM generate_series({from}, {to}) g")
    };
    scene.sql(&insert(1, 60)).await;
    let running = scene.started();
    for (what, sql) in [
        ("copied", insert(101, 200)),
        ("streamed", "UPDATE t SET id = -id".into()),
        ("new keys for all", "DELETE FROM t WHERE id % 3 = 0".into()),
    ] {
        eprintln!("{what}: peak RSS {} MiB", running.peak_rss_bytes() >> 20);
        scene.sql(&sql).await;
        scene.wait_until_the_lake_holds_it().await;
    }
    let ended = stop(running);
    let mib = ended.peak_rss_bytes >> 20;
    eprintln!("values of 1 MiB: peak RSS {mib} MiB");
    assert!(ended.peak_rss_bytes < RSS_MAX, "{mib} MiB");
    let sums = "SELECT count(*), sum(octet_length(body)), max(id) FROM";
    let lake = scene.lake.query_now(&format!("{sums} {{public.t}}"));
    assert_eq!(lake, scene.sql(&format!("{sums} t")).await);
}
