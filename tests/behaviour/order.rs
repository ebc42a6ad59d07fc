//! A second opinion on where the lake stands: pgwire-replication reads a copy of the slot and sees
//! the same source transactions, in the same order, that the ledger counts.

use pgwire_replication::{Lsn, ReplicationClient, ReplicationConfig, ReplicationEvent};

use super::scene::{Scene, lsn, stop, summaries};
use crate::support::servers;

// cases: 4 125 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_what_the_independent_client_sees() {
    if servers::is_before(14, "logical messages, which their client asks for,") {
        return;
    }
    let mut scene = Scene::new(
        "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE u(id int PRIMARY KEY); \
         CREATE ROLE trusted LOGIN REPLICATION SUPERUSER",
    )
    .await;
    scene.run().arg("--initial-snapshot=only").finish().succeeded();
    let start = scene.position();
    scene.sql("SELECT pg_copy_logical_replication_slot('frazil', 'theirs')").await;
    let running = scene.started();
    // A transaction that began early commits late: order is by commit.
    let early = scene.postgres.client().await;
    early.batch_execute("BEGIN; INSERT INTO u VALUES (-1)").await.unwrap();
    for id in 0..150 {
        match id % 5 {
            0 => scene.sql(&format!("BEGIN; INSERT INTO t VALUES ({id}, 'x'); ROLLBACK")).await,
            1 => scene.sql(&format!("BEGIN; INSERT INTO t VALUES ({id}, 'x'); INSERT INTO u VALUES ({id}); COMMIT")).await,
            2 => scene.sql("UPDATE t SET v = v || 'y'").await,
            3 => scene.sql("CREATE TEMP TABLE gone(a int)").await,
            _ => scene.sql(&format!("INSERT INTO t SELECT g, 'many' FROM generate_series({id} * 1000, {id} * 1000 + 40) g")).await,
        };
    }
    let now = lsn(&scene.postgres.value("SELECT pg_current_wal_insert_lsn()").await);
    early.batch_execute("COMMIT").await.unwrap();
    // No logical message here: their client does not ask for them.
    scene.wait_for(now).await;
    stop(running);
    scene.assert_equal(&["public.t", "public.u"]).await;

    let ledger = scene.ledger();
    let count = |summary: &&serde_json::Value| -> u64 {
        summary["frazil.source-transactions"].as_str().map_or(0, |text| text.parse().unwrap())
    };
    let commits = summaries(&ledger);
    let counted: u64 = commits.iter().map(count).sum();
    let positions: Vec<u64> =
        commits.iter().filter_map(|s| s["frazil.position"].as_str()).map(lsn).collect();
    let theirs = their_commits(&scene, start, *positions.last().unwrap()).await;
    assert!(theirs.is_sorted());
    // Each P is the end of one of the transactions they saw; none is in the middle of one.
    for position in positions.iter().filter(|&&position| position > start) {
        assert!(theirs.contains(position), "{position:x} ends no transaction of theirs");
    }
    assert_eq!(counted, u64::try_from(theirs.len()).unwrap());
}

/// The `end_lsn` of each transaction up to P, as the independent client sees them.
async fn their_commits(scene: &Scene, start: u64, until: u64) -> Vec<u64> {
    let config = ReplicationConfig::new("127.0.0.1", "trusted", "", "postgres", "theirs", "frazil")
        .with_port(scene.postgres.port())
        .with_start_lsn(Lsn::from_u64(start));
    let mut client = ReplicationClient::connect(config).await.unwrap();
    let mut ends = Vec::new();
    while ends.last().is_none_or(|&end| end < until) {
        if let ReplicationEvent::Commit { end_lsn, .. } = client.recv().await.unwrap().unwrap() {
            ends.push(end_lsn.as_u64());
        }
    }
    ends
}
