//! What the server sends does not fit together: frazil connects once more, where everything is
//! described anew, and goes on if that mended it; if not, it stops with a code and has written
//! nothing of it (cases 167, 168).

use super::scene::{Scene, stop};
use crate::support::frazil::{DEADLINE, Frazil};
use crate::support::stream_faults::{Sent, StreamFaults};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 5) g";

pub(super) fn through(scene: &Scene, proxy: &StreamFaults) -> Frazil {
    let dsn = scene.postgres.dsn();
    let port = scene.postgres.port().to_string();
    assert!(dsn.contains(&port) && !dsn.contains('?'), "{dsn}");
    let dsn = dsn.replace(&port, &proxy.port.to_string()) + "?sslmode=disable";
    Frazil::run(&dsn, scene.lake.folder()).arg("--commit-interval=100ms")
}

/// Changes one INSERT, then every INSERT: the first is mended, the second stops with `code`.
async fn is_tried_once_more(code: &str, garble: fn(Vec<u8>) -> Vec<u8>) {
    let mut scene = Scene::new(TABLE).await;
    let proxy = StreamFaults::start(scene.postgres.port()).await;
    let mut running = super::scene::following(through(&scene, &proxy).spawn());
    let mut once = true;
    proxy.set(move |sent: &Sent<'_>| {
        let hit = sent.pgoutput()[0] == b'I' && std::mem::take(&mut once);
        hit.then(|| sent.with(&garble(sent.pgoutput().to_vec())))
    });
    scene
        .sql("INSERT INTO t VALUES (6, 'garbled once'); UPDATE t SET v = 'new' WHERE id < 3")
        .await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    let log = running.stderr();
    assert!(log.contains(code) && log.contains("retry_in"), "{log}");
    assert!(running.is_running());

    proxy.set(move |sent: &Sent<'_>| {
        let hit = sent.pgoutput()[0] == b'I';
        hit.then(|| sent.with(&garble(sent.pgoutput().to_vec())))
    });
    let before = scene.lake.query_now("SELECT * FROM {public.t} ORDER BY id");
    scene.sql("INSERT INTO t VALUES (7, 'garbled')").await;
    running.wait(DEADLINE).exited(1).said(code).said("cure:").said("LSN");
    assert_eq!(scene.lake.query_now("SELECT * FROM {public.t} ORDER BY id"), before);
    // The slot was not moved past it.
    scene.assert_catches_up(&["public.t"]).await;
}

// cases: 168 stops UNKNOWN_RELATION
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_never_described() {
    is_tried_once_more("UNKNOWN_RELATION", |mut message| {
        message[1] ^= 0x40;
        message
    })
    .await;
}

// cases: 168 stops COLUMN_COUNT
#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_another_count_of_columns() {
    is_tried_once_more("COLUMN_COUNT", |mut message| {
        // Kind, oid, 'N', then the count.
        message[7] += 1;
        message.push(b'n');
        message
    })
    .await;
}

// cases: 167 stops BAD_MESSAGE
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_an_unknown_kind() {
    is_tried_once_more("BAD_MESSAGE", |mut message| {
        message[0] = b'?';
        message
    })
    .await;
}

// cases: 167 stops BAD_MESSAGE
#[tokio::test(flavor = "multi_thread")]
async fn a_message_cut_short() {
    is_tried_once_more("BAD_MESSAGE", |mut message| {
        message.truncate(message.len() - 3);
        message
    })
    .await;
}

// cases: 167 stops BAD_MESSAGE
#[tokio::test(flavor = "multi_thread")]
async fn a_length_of_minus_one() {
    is_tried_once_more("BAD_MESSAGE", |mut message| {
        // The count, the first field's kind, its length.
        message[9..13].copy_from_slice(&u32::MAX.to_be_bytes());
        message
    })
    .await;
}

/// A text that is not UTF-8 is a fact of the data: not tried again.
// cases: 167 stops INVALID_UTF8
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_utf8() {
    let mut scene = Scene::new(TABLE).await;
    let proxy = StreamFaults::start(scene.postgres.port()).await;
    let running = super::scene::following(through(&scene, &proxy).spawn());
    proxy.set(|sent: &Sent<'_>| {
        let mut message = sent.pgoutput().to_vec();
        *message.last_mut().unwrap() = 0xff;
        (message[0] == b'I').then(|| sent.with(&message))
    });
    scene.sql("INSERT INTO t VALUES (6, 'x')").await;
    let ended = running.wait(DEADLINE).exited(1).said("INVALID_UTF8").said("public.t");
    ended.said("[column v]");
    scene.assert_catches_up(&["public.t"]).await;
}

/// The proxy itself changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_without_a_fault() {
    let mut scene = Scene::new(TABLE).await;
    let proxy = StreamFaults::start(scene.postgres.port()).await;
    let running = super::scene::following(through(&scene, &proxy).spawn());
    proxy.set(|sent: &Sent<'_>| Some(sent.with(sent.pgoutput())));
    scene.sql("INSERT INTO t VALUES (6, 'x'); DELETE FROM t WHERE id = 1").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    assert!(!stop(running).stderr.contains("retry_in"));
}
