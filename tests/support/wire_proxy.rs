//! A TCP proxy whose connections can be made half open: both sides still see them open, and nothing
//! gets through any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// See the module. It ends with the test's runtime.
pub struct WireProxy {
    port: u16,
    /// Connections with a smaller number are half open.
    frozen: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
}

impl WireProxy {
    /// A proxy in front of 127.0.0.1:`port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            frozen: Arc::default(),
            accepted: Arc::default(),
        };
        let (frozen, accepted) = (Arc::clone(&proxy.frozen), Arc::clone(&proxy.accepted));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = accepted.fetch_add(1, Ordering::AcqRel);
                let to = SocketAddr::from(([127, 0, 0, 1], port));
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, Arc::clone(&frozen), number));
                tokio::spawn(carry(from_server, to_client, Arc::clone(&frozen), number));
            }
        });
        proxy
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes every connection there is half open; new ones are not.
    pub fn freeze(&self) {
        self.frozen.store(self.accepted.load(Ordering::Acquire), Ordering::Release);
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    frozen: Arc<AtomicU64>,
    number: u64,
) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let got = from.read(&mut bytes).await.unwrap_or(0);
        if number < frozen.load(Ordering::Acquire) {
            // Neither the bytes nor the end get through.
            std::future::pending::<()>().await;
        }
        if got == 0 || to.write_all(&bytes[..got]).await.is_err() {
            return;
        }
    }
}
