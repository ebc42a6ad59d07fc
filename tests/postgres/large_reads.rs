//! While behind, a read brings much at once, over TLS too, where a record has 16 KiB at most.

use frazil::postgres::dsn::Source;
use frazil::postgres::session::{Session, SlotOptions};
use frazil::postgres::stream::{Frame, MESSAGE_BYTES_MAX, next_frame};
use frazil::progress::Lsn;

use super::server::{database, server, stream_options};

#[tokio::test]
async fn reads_are_large_while_behind() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t";
    let (_source, client) = database("large", sql).await;
    for (i, wire) in ["disable", "require", "unix"].into_iter().enumerate() {
        let dsn = server().dsn("large");
        let folder = format!("host={}", server().folder.display());
        let dsn = match wire {
            "unix" => dsn.replace("host=localhost", &folder),
            _ => format!("{dsn} sslmode={wire}"),
        };
        let mut session = Session::connect(&Source::parse(&dsn).unwrap(), "test").await.unwrap();
        let slot = format!("large_{i}");
        let temporary = SlotOptions { temporary: true, ..SlotOptions::default() };
        let at = session.create_slot(&slot, temporary).await.unwrap().consistent_point;
        let insert = "INSERT INTO t SELECT g + 200000 * $1::int4, repeat('x', 100) \
                      FROM generate_series(1, 200000) g";
        client.execute(insert, &[&i32::try_from(i).unwrap()]).await.unwrap();
        let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
        let until: Lsn = row.get::<_, &str>(0).parse().unwrap();
        let mut stream = session.start_replication(&stream_options(&slot, at, "p")).await.unwrap();
        let (mut bytes, mut pos, mut reads) = (Vec::new(), 0, 0);
        'stream: loop {
            stream.read(&mut bytes).await.unwrap();
            reads += 1;
            while let Some(frame) = next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX).unwrap() {
                match frame {
                    Frame::XLogData { body, .. } if bytes[body.start] == b'C' => break 'stream,
                    Frame::Keepalive { wal_end, .. } if wal_end >= until => break 'stream,
                    _ => {}
                }
            }
        }
        assert!(bytes.len() > 20_000_000, "{wire}: {}", bytes.len());
        assert!(
            wire == "unix" || bytes.len() / reads > 32 << 10,
            "{wire}: {reads} reads for {}",
            bytes.len()
        );
    }
}
