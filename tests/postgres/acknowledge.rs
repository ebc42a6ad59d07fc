//! Case 1: a source transaction acknowledged by its `end_lsn` does not come again, one acknowledged
//! by its `commit_lsn` does. Case 14: the stream ends in order.

use std::time::Duration;

use frazil::postgres::dsn::Source;
use frazil::postgres::pgoutput::{Message, parse};
use frazil::postgres::session::{Session, SlotOptions};
use frazil::postgres::stream::{Frame, MESSAGE_BYTES_MAX, ReplicationStream, next_frame};
use frazil::progress::Lsn;

use super::server::{database, stream_options};

/// The first source transaction of the stream: its commit_lsn and end_lsn. `None`: the server had
/// nothing more to send up to the answer to our own ping.
pub(super) async fn first(stream: &mut ReplicationStream, until: Lsn) -> Option<(Lsn, Lsn)> {
    let (mut bytes, mut pos) = (Vec::new(), 0);
    loop {
        stream.read(&mut bytes).await.unwrap();
        while let Some(frame) = next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX).unwrap() {
            match frame {
                Frame::XLogData { body, .. } => {
                    let message = parse(&bytes, body.start, body.end).unwrap();
                    if let Message::Commit { commit_lsn, end_lsn, .. } = message {
                        return Some((commit_lsn, end_lsn));
                    }
                }
                Frame::Keepalive { wal_end, .. } if wal_end >= until => return None,
                _ => {}
            }
        }
    }
}

async fn stream(source: &Source, start: Lsn) -> ReplicationStream {
    let session = Session::connect(source, "test").await.unwrap();
    session.start_replication(&stream_options("acknowledge", start, "p")).await.unwrap()
}

// cases: 1 2 9 holds
#[tokio::test]
async fn end_lsn_is_what_is_acknowledged() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t";
    let (source, client) = database("acknowledge", sql).await;
    let mut session = Session::connect(&source, "test").await.unwrap();
    let slot = session.create_slot("acknowledge", SlotOptions::default()).await.unwrap();
    assert_eq!(slot.snapshot_name, None);
    session.close().await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    let until: Lsn = row.get::<_, &str>(0).parse().unwrap();

    let mut one = stream(&source, slot.consistent_point).await;
    let (commit_lsn, end_lsn) = first(&mut one, until).await.expect("the insert");
    assert!(slot.consistent_point <= commit_lsn && commit_lsn < end_lsn);
    one.send_status(end_lsn, commit_lsn, false).await.unwrap();
    one.finish(Vec::new(), Duration::from_secs(5)).await.unwrap();

    let mut again = stream(&source, commit_lsn).await;
    assert_eq!(first(&mut again, until).await, Some((commit_lsn, end_lsn)), "sent again");
    again.send_status(end_lsn, end_lsn, true).await.unwrap();
    again.finish(Vec::new(), Duration::from_secs(5)).await.unwrap();

    let mut last = stream(&source, end_lsn).await;
    last.send_status(end_lsn, end_lsn, true).await.unwrap();
    assert_eq!(first(&mut last, end_lsn).await, None, "not sent again");
    last.finish(Vec::new(), Duration::from_secs(5)).await.unwrap();
    let mut session = Session::connect(&source, "test").await.unwrap();
    session.drop_slot("acknowledge").await.unwrap();
}
