//! Where the lake stands, whatever comes between transactions: nothing beyond what was received is
//! acknowledged, P does not move into an open transaction, and what lies before P is not applied
//! again (cases 2, 8, 11, 25).

use frazil::progress::{Lsn, Progress};
use proptest::prelude::*;

use super::garbled_stream::through;
use super::scene::{Scene, following, stop};
use crate::support::stream_faults::{Sent, StreamFaults};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";

proptest! {
    /// Any calls in any order: positions that are out of order are refused and change nothing.
    // cases: 8 holds
    #[test]
    fn the_order_of_positions_holds(
        resume in 0_u64..50,
        calls in proptest::collection::vec((0_u8..4, 0_u64..100), 0..60),
    ) {
        let mut progress = Progress::resume(Lsn(resume));
        let (mut received, mut written, mut committed) = (resume, resume, resume);
        for (call, lsn) in calls {
            match call {
                0 => {
                    progress.receive(Lsn(lsn));
                    received = received.max(lsn);
                }
                1 => {
                    let fits = (written..=received).contains(&lsn);
                    prop_assert_eq!(progress.write(Lsn(lsn)).is_ok(), fits);
                    written = if fits { lsn } else { written };
                }
                2 => {
                    let fits = (committed..=written).contains(&lsn);
                    prop_assert_eq!(progress.commit(Lsn(lsn)).is_ok(), fits);
                    committed = if fits { lsn } else { committed };
                }
                _ => prop_assert_eq!(progress.acknowledge(), Lsn(committed)),
            }
            prop_assert_eq!(progress.received_lsn(), Lsn(received));
            prop_assert_eq!(progress.committed_lsn(), Lsn(committed));
            prop_assert!(progress.acknowledged_lsn() <= progress.committed_lsn());
        }
    }
}

/// The server skips what commits before the start; frazil does so itself, should it not.
// cases: 2 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_commits_before_the_start_is_not_applied_again() {
    let mut scene = Scene::new(TABLE).await;
    let proxy = StreamFaults::start(scene.postgres.port()).await;
    let running = following(through(&scene, &proxy).spawn());
    let position = scene.position();
    // Two BEGINs that say where their transactions commit: just before P, and at P.
    let mut commits = [position - 1, position].into_iter();
    proxy.set(move |sent: &Sent<'_>| {
        let begin = sent.pgoutput();
        let commit_lsn = (begin[0] == b'B').then(|| commits.next()).flatten()?;
        Some(sent.with(&[&begin[..1], &commit_lsn.to_be_bytes(), &begin[9..]].concat()))
    });
    scene.sql("INSERT INTO t VALUES (2, 'before')").await;
    scene.sql("INSERT INTO t VALUES (3, 'at')").await;
    scene.wait_until_the_lake_holds_it().await;
    let rows = scene.lake.query_now("SELECT id FROM {public.t} ORDER BY id");
    assert_eq!(rows, [[Some("1".to_owned())], [Some("3".to_owned())]]);
    stop(running);
}

/// A source transaction that is open, with rows in the WAL before P.
// cases: 11 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_position_passes_an_open_transaction() {
    let mut scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    let open = scene.postgres.client().await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'open'); UPDATE t SET v = 'b'")
        .await
        .unwrap();
    let inserted =
        super::scene::lsn(&scene.postgres.value("SELECT pg_current_wal_insert_lsn()").await);
    for _ in 0..2 {
        scene.sql("CREATE TABLE IF NOT EXISTS elsewhere(a int); SELECT pg_switch_wal()").await;
        scene.catch_up().succeeded();
    }
    assert!(scene.position() > inserted, "P has not passed the open rows");
    let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
    assert!(super::scene::lsn(&scene.postgres.value(confirmed).await) > inserted);
    open.batch_execute("COMMIT").await.unwrap();
    scene.assert_catches_up(&["public.t"]).await;
}

/// Messages that do not belong to a transaction come at once, in the middle of an open one, and
/// even where theirs is rolled back.
// cases: 25 holds
#[tokio::test(flavor = "multi_thread")]
async fn messages_outside_transactions_move_nothing() {
    let mut scene = Scene::new(TABLE).await;
    let mut running = scene.started();
    let open = scene.postgres.client().await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'open')").await.unwrap();
    for round in 0..4 {
        for prefix in ["frazil", "somebody"] {
            let emit = format!("SELECT pg_logical_emit_message(false, '{prefix}', 'x')");
            open.batch_execute(&emit).await.unwrap();
            scene
                .sql(&format!("BEGIN; INSERT INTO t VALUES (100, 'gone'); {emit}; ROLLBACK"))
                .await;
        }
        scene.sql(&format!("INSERT INTO t VALUES ({}, 'x')", 10 + round)).await;
        scene.wait_until_the_lake_holds_it().await;
        running.kill9();
        running = scene.started();
    }
    open.batch_execute("INSERT INTO t VALUES (3, 'open'); COMMIT").await.unwrap();
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    assert!(!stop(running).stderr.contains("retry_in"));
}
