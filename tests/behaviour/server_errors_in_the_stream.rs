//! An ErrorResponse within the stream: what passes is tried again, what Postgres cannot decode is
//! tried three times and then named with its position; a notice ends nothing (case 169).

use super::garbled_stream::through;
use super::scene::{Scene, following, stop};
use crate::support::frazil::DEADLINE;
use crate::support::stream_faults::{Sent, StreamFaults, response};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old')";

/// Answers the first `times` INSERTs with this error.
fn answers(proxy: &StreamFaults, times: usize, sqlstate: &'static str, message: &'static str) {
    let mut left = times;
    proxy.set(move |sent: &Sent<'_>| {
        if sent.pgoutput()[0] != b'I' || left == 0 {
            return None;
        }
        left -= 1;
        Some(response(b'E', "ERROR", sqlstate, message))
    });
}

// cases: 169 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again() {
    let mut scene = Scene::new(TABLE).await;
    let proxy = StreamFaults::start(scene.postgres.port()).await;
    let mut running = following(through(&scene, &proxy).spawn());
    for (id, (times, sqlstate, code)) in [
        (4, "57P01", "UNAVAILABLE"),
        (4, "57P03", "UNAVAILABLE"),
        (4, "53300", "UNAVAILABLE"),
        // One less than what makes poison.
        (2, "XX000", "DECODING"),
        (2, "22021", "DECODING"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = running.stderr().matches("retry_in").count();
        answers(&proxy, times, sqlstate, "not now");
        scene.sql(&format!("INSERT INTO t VALUES ({}, '{sqlstate}')", id + 10)).await;
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(&["public.t"]).await;
        let log = running.stderr();
        assert_eq!(log.matches("retry_in").count(), before + times, "{sqlstate}:\n{log}");
        assert!(log.contains(code) && log.contains(&format!("Postgres says {sqlstate}")), "{log}");
    }
    assert!(running.is_running());
    stop(running);
}

// cases: 169 stops POISON_TRANSACTION
#[tokio::test(flavor = "multi_thread")]
async fn what_never_passes_is_poison() {
    for sqlstate in ["22021", "XX000"] {
        let mut scene = Scene::new(TABLE).await;
        let proxy = StreamFaults::start(scene.postgres.port()).await;
        let running = following(through(&scene, &proxy).spawn());
        answers(&proxy, usize::MAX, sqlstate, "invalid memory alloc request size");
        scene.sql("INSERT INTO t VALUES (2, 'poison')").await;
        let ended = running.wait(DEADLINE).exited(1).said("POISON_TRANSACTION").said("LSN");
        let ended = ended.said(&format!("Postgres says {sqlstate}")).said("cure: ");
        assert_eq!(ended.stderr.matches("retry_in").count(), 2, "{}", ended.stderr);
        scene.assert_catches_up(&["public.t"]).await;
    }
}

// cases: 169 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_ends_nothing() {
    let mut scene = Scene::new(TABLE).await;
    let proxy = StreamFaults::start(scene.postgres.port()).await;
    let running = following(through(&scene, &proxy).spawn());
    proxy.set(|sent: &Sent<'_>| {
        Some(sent.after(&response(b'N', "WARNING", "55000", "a standby is away")))
    });
    scene.sql("INSERT INTO t VALUES (2, 'x')").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    let log = stop(running).stderr;
    assert!(log.contains("a standby is away") && log.contains("55000"), "{log}");
    assert!(!log.contains("retry_in"), "{log}");
}

/// A type whose values can be stored but not be read: the server fails at its output function.
const BROKEN: &str = "
    CREATE TYPE broken;
    CREATE FUNCTION broken_in(cstring) RETURNS broken LANGUAGE internal STRICT IMMUTABLE AS 'textin';
    CREATE FUNCTION broken_out(broken) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'trigger_out';
    CREATE TYPE broken (INPUT = broken_in, OUTPUT = broken_out, LIKE = text);
    CREATE TABLE t(id int PRIMARY KEY, v broken); INSERT INTO t VALUES (1)";

/// No fault in between: Postgres itself cannot send the row. The cure that is named helps.
// cases: 169 stops POISON_TRANSACTION
#[tokio::test(flavor = "multi_thread")]
async fn a_real_poison_transaction_and_its_cure() {
    let mut scene = Scene::new(BROKEN).await;
    let running = scene.started();
    scene.sql("INSERT INTO t VALUES (2)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.sql("INSERT INTO t VALUES (3, 'x')").await;
    let ended = running.wait(DEADLINE).exited(1).said("POISON_TRANSACTION").said("0A000");
    let ended = ended.said("LSN").said("pg_replication_slot_advance");
    assert_eq!(ended.stderr.matches("retry_in").count(), 2, "{}", ended.stderr);
    let end = "SELECT confirmed_flush_lsn < pg_current_wal_lsn() FROM pg_replication_slots";
    assert_eq!(scene.postgres.value(end).await, "t", "the slot was moved past it");

    scene.sql("DELETE FROM t WHERE id = 3").await;
    scene.sql("SELECT pg_replication_slot_advance('frazil', pg_current_wal_lsn())").await;
    scene.catch_up().exited(1).said("SLOT_AHEAD");
    let resync = scene.run().env("FRAZIL_SOURCE__ON_SLOT_LOSS", "resync");
    resync.arg("--until-caught-up").finish().succeeded();
    let rows = scene.lake.query_now("SELECT id FROM {public.t} ORDER BY id");
    assert_eq!(rows, [[Some("1".to_owned())], [Some("2".to_owned())]]);
}
