//! A second opinion: pgwire-replication, which shares no code with us, reads a copy of the slot and
//! sees the same messages byte for byte.

use frazil::postgres::pgoutput::{Message, parse};
use frazil::postgres::session::{Session, SlotOptions};
use frazil::postgres::stream::{Frame, MESSAGE_BYTES_MAX, next_frame};
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent};

use super::server::{database, server, stream_options};
use crate::support::servers;

const SQL: &str = "
    CREATE TABLE t (id int PRIMARY KEY, v text);
    CREATE TABLE u (id int, v text, PRIMARY KEY (id));
    ALTER TABLE u REPLICA IDENTITY FULL;
    CREATE PUBLICATION p FOR TABLE t, u;
    CREATE ROLE trusted LOGIN REPLICATION";

const WORK: &str = "
    INSERT INTO t SELECT g, repeat('x', g) FROM generate_series(1, 500) g;
    BEGIN; INSERT INTO u SELECT g, 'u' FROM generate_series(1, 50) g;
    UPDATE t SET v = 'y' WHERE id < 9;
    UPDATE t SET id = -id WHERE id < 5; DELETE FROM u WHERE id < 5; UPDATE u SET v = NULL; COMMIT;
    ALTER TABLE t ADD COLUMN w int DEFAULT 3;
    UPDATE t SET w = 4; TRUNCATE u CASCADE; INSERT INTO u VALUES (999, 'end')";

#[tokio::test]
async fn the_independent_client_sees_the_same() {
    if servers::is_before(14, "logical messages, which their client asks for,") {
        return;
    }
    let (source, client) = database("same", SQL).await;
    let mut session = Session::connect(&source, "test").await.unwrap();
    let made = session.create_slot("same_ours", SlotOptions::default()).await.unwrap();
    let copy = "SELECT pg_copy_logical_replication_slot('same_ours', 'same_theirs')";
    client.batch_execute(copy).await.unwrap();
    client.batch_execute(WORK).await.unwrap();
    let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    let until: frazil::progress::Lsn = row.get::<_, &str>(0).parse().unwrap();

    let mut options = stream_options("same_ours", made.consistent_point, "p");
    (options.binary, options.messages) = (false, false);
    let mut stream = session.start_replication(&options).await.unwrap();
    let (mut bytes, mut pos, mut ours, mut commits) = (Vec::new(), 0, Vec::new(), Vec::new());
    'stream: loop {
        stream.read(&mut bytes).await.unwrap();
        while let Some(frame) = next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX).unwrap() {
            match frame {
                Frame::XLogData { body, .. } => {
                    match parse(&bytes, body.start, body.end).unwrap() {
                        Message::Commit { end_lsn, .. } => commits.push(end_lsn.0),
                        Message::Begin { .. } => {}
                        _ => ours.push(bytes[body].to_vec()),
                    }
                }
                Frame::Keepalive { wal_end, .. } if wal_end >= until => break 'stream,
                _ => {}
            }
        }
        if commits.last().is_some_and(|&last| last >= until.0) {
            break;
        }
    }
    drop(stream);

    let start = pgwire_replication::Lsn::from_u64(made.consistent_point.0);
    let config = ReplicationConfig::new("127.0.0.1", "trusted", "", "same", "same_theirs", "p")
        .with_port(server().port)
        .with_start_lsn(start);
    let mut theirs_client = ReplicationClient::connect(config).await.unwrap();
    let (mut theirs, mut their_commits) = (Vec::new(), Vec::new());
    while their_commits.len() < commits.len() {
        match theirs_client.recv().await.unwrap().unwrap() {
            ReplicationEvent::XLogData { data, .. } => theirs.push(data.to_vec()),
            ReplicationEvent::Commit { end_lsn, .. } => their_commits.push(end_lsn.as_u64()),
            _ => {}
        }
    }
    drop(theirs_client);
    assert!(ours.len() > 1_000 && commits.len() >= 2, "{} {}", ours.len(), commits.len());
    assert_eq!(commits, their_commits);
    assert!(ours == theirs, "{} of ours, {} of theirs", ours.len(), theirs.len());
    for slot in ["same_ours", "same_theirs"] {
        let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
        while client.batch_execute(&drop).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
