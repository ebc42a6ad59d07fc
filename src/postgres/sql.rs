//! SQL connections: tokio-postgres over our own socket, so that TLS and login follow one rule.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Config, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, NoTls};

use crate::error::{Error, Result};
use crate::postgres::dsn::Source;
use crate::postgres::hosts;
use crate::postgres::server_error::from_sql;
use crate::postgres::session::{NO_IDLE_TIMEOUT, PIN_MONETARY, PINNED};
use crate::postgres::socket::Socket;

/// Opens a SQL connection with the pinned settings and runs it in a task of its own, which ends
/// with the client. `application_name` is `frazil/<purpose>`.
pub async fn connect_sql(source: &Source, purpose: &str) -> Result<Client> {
    hosts::connect(source, purpose).await
}

/// The same where the host is decided.
pub(super) async fn connect_at(source: &Source, purpose: &str) -> Result<Client> {
    let config = config(source, purpose);
    let connecting = async {
        let socket = Socket::open(source).await?;
        let tls = socket.is_tls();
        let client =
            if tls { open_tls(config, socket).await } else { open_plain(config, socket).await }?;
        let pins = format!("{NO_IDLE_TIMEOUT}; {PIN_MONETARY}");
        client.batch_execute(&pins).await.map_err(from_sql)?;
        Ok(client)
    };
    let patience = source.connect_timeout.saturating_mul(2);
    tokio::time::timeout(patience, connecting)
        .await
        .map_err(|_| Error::transient("CONNECTION", "Postgres did not finish the login in time"))?
}

async fn open_plain(mut config: Config, socket: Socket) -> Result<Client> {
    config.ssl_mode(SslMode::Disable);
    let (client, connection) =
        config.connect_raw(socket.guarded(), NoTls).await.map_err(from_sql)?;
    tokio::spawn(async move { ended(connection.await) });
    Ok(client)
}

async fn open_tls(mut config: Config, socket: Socket) -> Result<Client> {
    // "Direct" means that tokio-postgres asks for nothing and hands the socket to Agreed.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let (client, connection) = config.connect_raw(socket, Agreed).await.map_err(from_sql)?;
    tokio::spawn(async move { ended(connection.await) });
    Ok(client)
}

/// The next call on the client fails with the same error; this line says when it happened.
fn ended(result: Result<(), tokio_postgres::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a SQL connection ended");
    }
}

fn config(source: &Source, purpose: &str) -> Config {
    let mut config = Config::new();
    config
        .user(&source.user)
        .dbname(&source.database)
        .application_name(format!("frazil/{purpose}"))
        .channel_binding(source.channel_binding)
        .options(options(source));
    if let Some(password) = source.password() {
        config.password(password);
    }
    config
}

/// tokio-postgres sends client_encoding itself, [`PIN_MONETARY`] comes later; the rest goes as
/// command-line options.
fn options(source: &Source) -> String {
    let mut all = source.options.clone().unwrap_or_default();
    let later = ["client_encoding", "lc_monetary"];
    for (name, value) in PINNED.iter().filter(|(name, _)| !later.contains(name)) {
        all.push_str(&format!(" -c {name}={value}"));
    }
    all
}

/// TLS is on already: hands the socket back as the stream.
struct Agreed;

impl TlsConnect<Socket> for Agreed {
    type Stream = AgreedStream;
    type Error = Infallible;
    type Future = Ready<Result<AgreedStream, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(AgreedStream(socket)))
    }
}

struct AgreedStream(Socket);

impl TlsStream for AgreedStream {
    fn channel_binding(&self) -> ChannelBinding {
        let end_point = self.0.end_point();
        end_point.map_or_else(ChannelBinding::none, |hash| {
            ChannelBinding::tls_server_end_point(hash.to_vec())
        })
    }
}

impl AsyncRead for AgreedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for AgreedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
