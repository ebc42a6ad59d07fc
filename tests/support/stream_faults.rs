//! A proxy between frazil and Postgres that changes what the server sends in a replication stream,
//! message by message: garbles, replaces, adds.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Where the pgoutput message begins in the message that carries it: type, length, `w`, two
/// positions, a time.
const BODY: usize = 30;

/// What is sent instead of a message of the stream (type byte and length included); `None`: itself.
pub type Fault = Box<dyn FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send>;

/// A message that carries a pgoutput message.
pub struct Sent<'a>(&'a [u8]);

impl Sent<'_> {
    /// The pgoutput message; its first byte tells its kind.
    pub fn pgoutput(&self) -> &[u8] {
        &self.0[BODY..]
    }

    /// The same with another pgoutput message in it.
    pub fn with(&self, pgoutput: &[u8]) -> Vec<u8> {
        let length = u32::try_from(BODY - 1 + pgoutput.len()).unwrap();
        [&self.0[..1], &length.to_be_bytes(), &self.0[5..BODY], pgoutput].concat()
    }

    /// Another message, and then itself.
    pub fn after(&self, first: &[u8]) -> Vec<u8> {
        [first, self.0].concat()
    }
}

/// An ErrorResponse (`E`) or NoticeResponse (`N`).
pub fn response(tag: u8, severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    let body = format!("S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0");
    let length = u32::try_from(4 + body.len()).unwrap();
    [&[tag][..], &length.to_be_bytes(), body.as_bytes()].concat()
}

/// A running proxy; it ends with the test's runtime.
pub struct StreamFaults {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl StreamFaults {
    /// In front of the server at `upstream`.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::<Mutex<Option<Fault>>>::default();
        let shared = Arc::clone(&fault);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server));
                tokio::spawn(relay(from_server, to_client, Arc::clone(&shared)));
            }
        });
        Self { port, fault }
    }

    /// From now on.
    pub fn set(&self, fault: impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Passes on the server's messages, changed where they belong to a stream.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: Arc<Mutex<Option<Fault>>>) {
    let (mut held, mut streaming) = (Vec::new(), false);
    while from.read_buf(&mut held).await.is_ok_and(|n| n > 0) {
        while let Some(end) = end_of_message(&held) {
            let message: Vec<u8> = held.drain(..end).collect();
            streaming |= message[0] == b'W';
            let carries = streaming && message[0] == b'd' && message.get(5) == Some(&b'w');
            let instead = match fault.lock().unwrap().as_mut() {
                Some(fault) if carries => fault(&Sent(&message)),
                _ => None,
            };
            if to.write_all(&instead.unwrap_or(message)).await.is_err() {
                return;
            }
        }
    }
}

fn end_of_message(held: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*held.get(1..)?.first_chunk()?) as usize;
    (held.len() > length).then_some(length + 1)
}
