//! Case 12: status updates at `status_interval` keep the walsender alive while nothing is read, and
//! without them it goes away.

use std::time::Duration;

use frazil::postgres::dsn::Source;
use frazil::postgres::session::{Session, SlotOptions};
use tokio_postgres::Client;

use super::server::{database, server, stream_options};

async fn survives(client: &Client, slot: &str, minded: bool) -> bool {
    let dsn = format!("{} options='-c wal_sender_timeout=1s'", server().dsn("stall"));
    let source = Source::parse(&dsn).unwrap();
    let mut session = Session::connect(&source, slot).await.unwrap();
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
    // The server has been silent or gone for three of its timeouts: does it answer a ping?
    if stream.send_status(slot_at, slot_at, true).await.is_err() {
        return false;
    }
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = $1",
            &[&format!("frazil/{slot}")],
        )
        .await
        .unwrap();
    row.get::<_, i64>(0) == 1
}

// cases: 12 holds
#[tokio::test]
async fn status_updates_keep_a_stalled_stream_alive() {
    let (_source, client) =
        database("stall", "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t")
            .await;
    let (minded, unminded) = tokio::join!(
        survives(&client, "stall_minded", true),
        survives(&client, "stall_not", false)
    );
    assert!(minded, "with status updates");
    assert!(!unminded, "without them");
}
