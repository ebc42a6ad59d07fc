//! Case 12: status updates at `status_interval` keep the walsender alive while nothing is read, and
//! without them it goes away.

use std::time::Duration;

use frazil::postgres::dsn::Source;
use frazil::postgres::session::{Session, SlotOptions};
use frazil::postgres::stream::{Frame, MESSAGE_BYTES_MAX, next_frame};
use frazil::progress::Lsn;

use super::server::{database, server, stream_options};

async fn survives(slot: &str, minded: bool) -> bool {
    let dsn = format!("{} options='-c wal_sender_timeout=1s'", server().dsn("stall"));
    let source = Source::parse(&dsn).unwrap();
    let mut session = Session::connect(&source, "test").await.unwrap();
    let temporary = SlotOptions { temporary: true, ..SlotOptions::default() };
    let slot_at = session.create_slot(slot, temporary).await.unwrap().consistent_point;
    let options = stream_options(slot, slot_at, "p");
    let mut stream = session.start_replication(&options).await.unwrap();
    assert!(stream.status_interval() <= Duration::from_millis(334));
    for _ in 0..10 {
        tokio::time::sleep(stream.status_interval()).await;
        if minded && stream.send_status(slot_at, slot_at, false).await.is_err() {
            return false;
        }
    }
    if stream.send_status(slot_at, slot_at, true).await.is_err() {
        return false;
    }
    let (mut bytes, mut pos) = (Vec::new(), 0);
    loop {
        if stream.read(&mut bytes).await.is_err() {
            return false;
        }
        while let Ok(Some(frame)) = next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX) {
            if matches!(frame, Frame::Keepalive { wal_end, .. } if wal_end > Lsn::ZERO) {
                // Answered after three timeouts' worth of silence on our side of the socket.
                return tokio::time::timeout(Duration::from_millis(300), stream.read(&mut bytes))
                    .await
                    .is_err_and(|_| true)
                    || stream.send_status(slot_at, slot_at, false).await.is_ok() && minded;
            }
        }
    }
}

#[tokio::test]
async fn status_updates_keep_a_stalled_stream_alive() {
    database("stall", "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t")
        .await;
    let (minded, unminded) =
        tokio::join!(survives("stall_minded", true), survives("stall_not", false));
    assert!(minded, "with status updates");
    assert!(!unminded, "without them");
}
