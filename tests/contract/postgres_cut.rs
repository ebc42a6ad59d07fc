//! The connection to a SQL catalog in Postgres breaks just before or just after its COMMIT: the
//! ledger decides, and the lake commit is made exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::lake::minio_settings;
use super::{Lake, app, create, summary, want};
use crate::support::postgres::Postgres;

const NEVER: u8 = 0;
/// Postgres does not get the COMMIT.
const BEFORE: u8 = 1;
/// Postgres commits, and its answer is lost.
const AFTER: u8 = 2;

/// Passes connections on to Postgres, and cuts one at a COMMIT.
struct Relay {
    port: u16,
    cut: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
}

impl Relay {
    async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Self { port, cut: Arc::default(), cuts: Arc::default() };
        let (cut, cuts) = (relay.cut.clone(), relay.cuts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (cut, cuts) = (cut.clone(), cuts.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                    pass(client, server, &cut, &cuts).await;
                });
            }
        });
        relay
    }
}

/// Until either side ends, or the cut.
async fn pass(mut client: TcpStream, mut server: TcpStream, cut: &AtomicU8, cuts: &AtomicUsize) {
    let (mut asked, mut said) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            biased;
            Ok(n @ 1..) = client.read(&mut asked) => {
                let is_commit = asked[..n].windows(7).any(|bytes| bytes == b"COMMIT\0");
                let when = if is_commit { cut.swap(NEVER, Ordering::SeqCst) } else { NEVER };
                if when == BEFORE {
                    cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                server.write_all(&asked[..n]).await.unwrap();
                if when == AFTER {
                    let _ = server.read(&mut said).await;
                    cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
            Ok(n @ 1..) = server.read(&mut said) => {
                if client.write_all(&said[..n]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

// cases: 146 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_commit_is_made_once_over_a_cut_connection() {
    let postgres = Postgres::shared().await;
    for cut in [BEFORE, AFTER] {
        let relay = Relay::start(postgres.port()).await;
        let database = postgres.database().await;
        let dsn = format!("postgres://postgres@127.0.0.1:{}/{database}", relay.port);
        let lake = Lake::on_postgres_at(&dsn, minio_settings().await).await;
        let (a, b) = (app("a"), app("b"));
        lake.commit(None, 10, [&a, &b].map(|t| create(t, vec![])).into()).await.unwrap();
        let commit = lake.insert((10, 20), &[&a, &b], 1).await;
        let before = lake.files(&[&a, &b]).await;
        relay.cut.store(cut, Ordering::SeqCst);

        assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);

        assert_eq!(relay.cuts.load(Ordering::SeqCst), 1);
        for ident in [&a, &b] {
            assert_eq!(lake.rows(ident).await, want(&[(1, "x")]), "{ident}");
            assert_eq!(summary(&lake.table(ident).await, "total-records"), 1);
        }
        assert_eq!(lake.position().await, 20);
        let now = lake.files(&[&a, &b]).await;
        let gone: Vec<_> = before.iter().filter(|file| !now.contains(file)).collect();
        assert!(gone.is_empty(), "deleted: {gone:?}");
        let records: Vec<_> = lake.committer.history(9).await.unwrap();
        assert_eq!(records.len(), 2);
    }
}
