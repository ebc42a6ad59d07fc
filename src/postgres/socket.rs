//! The wire to Postgres: TCP, TLS over TCP, or a Unix socket.
//!
//! Source of the rules: Postgres manual, "SSL Session Encryption" in "Message Flow".

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Result};
use crate::postgres::dsn::{Address, Source, SslMode};
use crate::postgres::tls;

/// An open connection to a server, TLS already agreed on.
#[derive(Debug)]
pub(super) struct Socket {
    wire: Wire,
    /// tls-server-end-point of the server's certificate.
    end_point: Option<Vec<u8>>,
    /// Nobody can listen in.
    private: bool,
    /// What came first, while requests for a password in clear are looked for.
    guard: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// The connection broke.
pub(super) fn lost(error: io::Error) -> Error {
    Error::transient("CONNECTION", "the connection to Postgres broke").with_source(error)
}

impl Socket {
    /// Tries the addresses of `source` in order.
    pub(super) async fn open(source: &Source) -> Result<Self> {
        let mut last = Error::config("BAD_DSN", "the DSN names no host");
        for address in &source.addresses {
            let attempt = timeout(source.connect_timeout, Self::open_at(source, address)).await;
            match attempt {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    let what = format!("{address} did not answer in time");
                    last = Error::transient("CONNECTION", what);
                }
            }
        }
        Err(last)
    }

    async fn open_at(source: &Source, address: &Address) -> Result<Self> {
        let unreachable = |e: io::Error| {
            let what = format!("{address} cannot be reached");
            Error::transient("CONNECTION", what)
                .with_source(e)
                .with_cure("is Postgres running, and does it listen there (listen_addresses)?")
        };
        match address {
            Address::Unix(folder, port) => {
                let stream = unix(folder, *port).await.map_err(unreachable)?;
                Ok(Self::new(Wire::Unix(stream), None, true))
            }
            Address::Tcp(host, port) => {
                let stream = tcp(host, *port).await.map_err(unreachable)?;
                secure(source, host, stream).await
            }
        }
    }

    fn new(wire: Wire, end_point: Option<Vec<u8>>, private: bool) -> Self {
        Self { wire, end_point, private, guard: None }
    }

    /// Whether TLS is on.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    /// Whether pauses between reads can pay: not on a Unix socket, which holds some 40 KiB.
    pub(super) fn likes_pauses(&self) -> bool {
        !matches!(self.wire, Wire::Unix(_))
    }

    /// Whether a password may be sent as it is: TLS, a Unix socket or this machine.
    pub(super) fn is_private(&self) -> bool {
        self.private
    }

    /// tls-server-end-point, for SCRAM's channel binding.
    pub(super) fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Fails the first read that asks for a password in clear or as MD5 on a wire that others may
    /// listen to: tokio-postgres itself would send it.
    pub(super) fn guarded(mut self) -> Self {
        self.guard = (!self.private).then(Vec::new);
        self
    }

    fn check(&mut self, came: &[u8]) -> io::Result<()> {
        let Some(first) = &mut self.guard else { return Ok(()) };
        first.extend(came.iter().take(9 - first.len().min(9)));
        let Some(first) = first.first_chunk::<9>() else { return Ok(()) };
        let asks = matches!(first, [b'R', _, _, _, _, 0, 0, 0, 3 | 5]);
        self.guard = None;
        if asks { Err(io::Error::new(io::ErrorKind::PermissionDenied, IN_CLEAR)) } else { Ok(()) }
    }
}

/// Why a password is not sent.
pub(super) const IN_CLEAR: &str =
    "Postgres asks for a password in clear or as MD5 on a connection without TLS";

async fn unix(folder: &Path, port: u16) -> io::Result<UnixStream> {
    UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match tcp_at(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp_at(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// Agrees on TLS as far as the mode asks for it.
async fn secure(source: &Source, host: &str, mut stream: TcpStream) -> Result<Socket> {
    let local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    if source.ssl_mode == SslMode::Disable {
        return Ok(Socket::new(Wire::Tcp(stream), None, local));
    }
    // SSLRequest; one byte answers.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.map_err(lost)?;
    match (stream.read_u8().await.map_err(lost)?, source.ssl_mode) {
        (b'S', _) => {}
        (_, SslMode::Prefer) => return Ok(Socket::new(Wire::Tcp(stream), None, local)),
        _ => {
            return Err(Error::config("TLS", "the server has no TLS").with_cure(
                "set ssl = on at the server, or accept the risk with sslmode=disable in the DSN",
            ));
        }
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|e| {
        Error::config("TLS", format!("`{host}` cannot be a server's name")).with_source(e)
    })?;
    let connector = TlsConnector::from(Arc::new(tls::client_config(source)?));
    let stream = connector.connect(name, stream).await.map_err(handshake)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let end_point = certificates.and_then(|certs| certs.first()).and_then(tls::end_point);
    Ok(Socket::new(Wire::Tls(Box::new(stream)), end_point, true))
}

/// A certificate that does not hold will not hold next time; a broken connection may.
fn handshake(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::config("TLS", "the server's certificate was refused")
            .with_source(error)
            .with_cure(
                "give the authority that signed it by sslrootcert=FILE; verify-full also needs the \
                 DSN's host name in the certificate",
            ),
        _ => lost(error),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = match &mut this.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        match polled {
            Poll::Ready(Ok(())) if this.guard.is_some() => {
                Poll::Ready(this.check(buf.filled().get(before..).unwrap_or_default()))
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn first_read(private: bool, sent: &[u8]) -> io::Result<usize> {
        let (ours, mut server) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(Wire::Unix(ours), None, private).guarded();
        server.write_all(sent).await.unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        while bytes.len() < sent.len() {
            // In pieces, so that the request arrives over several reads.
            let mut piece = [0; 4];
            let got = socket.read(&mut piece).await?;
            bytes.extend_from_slice(&piece[..got]);
        }
        Ok(bytes.len())
    }

    #[tokio::test]
    async fn a_password_is_not_asked_for_in_clear() {
        let (clear, md5) = (b"R\0\0\0\x08\0\0\0\x03", b"R\0\0\0\x0c\0\0\0\x05salt");
        let refused = io::ErrorKind::PermissionDenied;
        assert_eq!(first_read(false, clear).await.unwrap_err().kind(), refused);
        assert_eq!(first_read(false, md5).await.unwrap_err().kind(), refused);
        assert_eq!(first_read(true, clear).await.unwrap(), 9);
        assert_eq!(first_read(false, b"R\0\0\0\x17\0\0\0\x0aSCRAM").await.unwrap(), 14);
    }
}
