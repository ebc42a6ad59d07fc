//! A private door to the server for a client that speaks the protocol itself: a Unix socket in a
//! folder of our own, joined to a wire that follows our rule for addresses and TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::postgres::dsn::Source;
use crate::postgres::socket::Socket;

/// The port in the socket's name.
pub const PORT: u16 = 5432;

/// How long the server may take to end a session that the client has left.
const PATIENCE: Duration = Duration::from_secs(10);

/// The door, for one client.
#[derive(Debug)]
pub struct Tunnel {
    folder: TempDir,
    relay: JoinHandle<()>,
}

impl Tunnel {
    /// Connects to `source` and waits for the client in the background.
    ///
    /// # Errors
    /// `CONNECTION` (transient), `TLS` (config), `TEMPORARY_FOLDER` (transient).
    pub async fn open(source: &Source) -> Result<Self> {
        let no_folder = |e: std::io::Error| {
            Error::transient("TEMPORARY_FOLDER", "no folder of our own could be made")
                .with_source(e)
                .with_cure("is TMPDIR there, writable and not full?")
        };
        let folder = tempfile::Builder::new().prefix("frazil-").tempdir().map_err(no_folder)?;
        let path: PathBuf = folder.path().join(format!(".s.PGSQL.{PORT}"));
        let listener = UnixListener::bind(path).map_err(no_folder)?;
        let mut server = Socket::open(source).await?.guarded();
        let relay = tokio::spawn(async move {
            let Ok((mut client, _)) = listener.accept().await else { return };
            // Either end tells its own side what broke.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        Ok(Self { folder, relay })
    }

    /// The folder of the socket: what libpq takes for a host.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns when the server has ended its session, once the client has left: then nothing of the
    /// session is there any more, a temporary slot for instance.
    pub async fn closed(mut self) {
        let _ = timeout(PATIENCE, &mut self.relay).await;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.relay.abort();
    }
}
