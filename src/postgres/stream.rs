//! The replication stream: XLogData and keepalives in, standby status updates out.
//!
//! Source of the rules: Postgres manual, "Streaming Replication Protocol" (START_REPLICATION).
//! The bytes belong to the caller: [`ReplicationStream::read`] appends what arrived, and
//! [`next_frame`] finds whole frames in it and only says where they stand. So one huge message can
//! be arriving for minutes while status updates keep going out (case 12).

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{Error, Result};
use crate::postgres::server_error::ServerError;
use crate::postgres::socket::{Socket, lost};
use crate::progress::Lsn;

/// What START_REPLICATION is asked for.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Replication slot.
    pub slot: String,
    /// Where to start: P, the `end_lsn` of the last source transaction in the lake.
    pub start: Lsn,
    /// Publications, at least one.
    pub publications: Vec<String>,
    /// pgoutput protocol, 1 to 4.
    pub protocol: u8,
    /// Values in binary form (server 14 and later).
    pub binary: bool,
    /// Logical messages too (server 14 and later).
    pub messages: bool,
    /// Source transactions before they commit (protocol 2 and later).
    pub streaming: bool,
    /// Prepared transactions at PREPARE (protocol 3 and later).
    pub two_phase: bool,
    /// `none` or `any` (server 16 and later).
    pub origin: Option<String>,
}

/// A frame of the stream. Times are microseconds since 2000-01-01 UTC, by the server's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `w`: one pgoutput message
    XLogData {
        /// Where the message's WAL starts; not an order between messages (case 3).
        wal_start: Lsn,
        /// End of WAL on the server.
        wal_end: Lsn,
        /// When it was sent.
        sent_us: i64,
        /// The pgoutput message in the caller's bytes.
        body: Range<usize>,
    },
    /// `k`
    Keepalive {
        /// End of WAL that was sent.
        wal_end: Lsn,
        /// When it was sent.
        sent_us: i64,
        /// The server wants a status update now.
        reply: bool,
    },
    /// The server ends the stream.
    CopyDone,
    /// The server is through with START_REPLICATION.
    CommandComplete,
    /// The server waits for a command.
    ReadyForQuery,
}

/// Default of the cap on one backend message: Postgres's own limit of 1 GiB per value, and a bit.
pub const MESSAGE_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// The next whole frame in `buf` from `pos` on, or `None` where it is not complete yet. `pos` goes
/// on to what follows it. Notices are logged and passed over, unless they mean that changes are
/// left out; an ErrorResponse is returned as the error it means. A message longer than `max` bytes
/// is refused from its header alone.
#[inline]
pub fn next_frame(buf: &[u8], pos: &mut usize, max: usize) -> Result<Option<Frame>> {
    while let Some((tag, body)) = next_message(buf, *pos, max)? {
        let bytes = buf.get(body.clone()).unwrap_or_default();
        *pos = body.end;
        match tag {
            b'd' => return copy_data(bytes, body).map(Some),
            b'E' => return Err(ServerError::parse(bytes).of_the_stream()),
            b'c' => return Ok(Some(Frame::CopyDone)),
            b'C' => return Ok(Some(Frame::CommandComplete)),
            b'Z' => return Ok(Some(Frame::ReadyForQuery)),
            b'N' => notice(bytes)?,
            b'S' => {}
            other => return Err(bad(&format!("unexpected type byte 0x{other:02x}"))),
        }
    }
    Ok(None)
}

/// Bytes still to come of the frame that starts at `pos`, once its length has arrived.
pub fn missing(buf: &[u8], pos: usize) -> Option<usize> {
    let length = buf.get(pos + 1..)?.first_chunk().map(|head| u32::from_be_bytes(*head))?;
    let end = pos + 1 + usize::try_from(length).ok()?;
    Some(end.saturating_sub(buf.len()))
}

/// Type byte and body of the whole message at `pos`.
#[inline]
pub(super) fn next_message(
    buf: &[u8],
    pos: usize,
    max: usize,
) -> Result<Option<(u8, Range<usize>)>> {
    let Some([tag, length @ ..]) = buf.get(pos..).and_then(|rest| rest.first_chunk::<5>()) else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length < 4 {
        return Err(bad("a length below 4"));
    }
    if length > max {
        let what = format!("a message of {length} bytes is over memory.max_value_bytes = {max}");
        return Err(Error::fatal("VALUE_TOO_LARGE", what).with_cure(
            "raise memory.max_value_bytes, or leave the wide column out of the publication",
        ));
    }
    let end = pos + 1 + length;
    Ok((end <= buf.len()).then_some((*tag, pos + 5..end)))
}

#[inline]
fn copy_data(bytes: &[u8], body: Range<usize>) -> Result<Frame> {
    match bytes.split_first() {
        Some((b'w', rest)) => {
            let (wal_start, rest) = number(rest)?;
            let (wal_end, rest) = number(rest)?;
            let (sent_us, _) = number(rest)?;
            Ok(Frame::XLogData {
                wal_start: Lsn(u64::from_be_bytes(wal_start)),
                wal_end: Lsn(u64::from_be_bytes(wal_end)),
                sent_us: i64::from_be_bytes(sent_us),
                body: body.start + 25..body.end,
            })
        }
        Some((b'k', rest)) => {
            let (wal_end, rest) = number(rest)?;
            let (sent_us, rest) = number(rest)?;
            Ok(Frame::Keepalive {
                wal_end: Lsn(u64::from_be_bytes(wal_end)),
                sent_us: i64::from_be_bytes(sent_us),
                reply: rest.first().ok_or_else(|| bad("a keepalive cut short"))? == &1,
            })
        }
        _ => Err(bad("CopyData that is neither XLogData nor keepalive")),
    }
}

#[inline]
fn number(bytes: &[u8]) -> Result<([u8; 8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| bad("a header cut short"))?;
    Ok((*head, rest))
}

fn bad(what: &str) -> Error {
    Error::fatal("BAD_MESSAGE", format!("replication stream: {what}"))
}

/// Notices say, for instance, that the stream waits for a standby (case 20).
fn notice(bytes: &[u8]) -> Result<()> {
    let notice = ServerError::parse(bytes);
    if notice.is_publication_skipped() {
        return Err(notice.into());
    }
    let (detail, hint) = (notice.detail.as_deref(), notice.hint.as_deref());
    let (sqlstate, severity) = (notice.sqlstate.as_str(), notice.severity.as_str());
    tracing::warn!(sqlstate, severity, detail, hint, "{}", notice.message);
    Ok(())
}

/// Bytes of room that [`ReplicationStream::read`] makes where less than `ROOM_MIN` is left, and
/// about what one call brings at most.
pub const ROOM: usize = 1 << 20;
const ROOM_MIN: usize = 64 << 10;

/// A running START_REPLICATION.
#[derive(Debug)]
pub struct ReplicationStream {
    socket: Socket,
    pace: Pace,
    status_interval: Duration,
    patience: Duration,
}

impl ReplicationStream {
    pub(super) fn new(socket: Socket, wal_sender_timeout: Duration) -> Self {
        let pace = Pace::new(socket.likes_pauses());
        let status_interval = interval(wal_sender_timeout);
        Self { socket, pace, status_interval, patience: patience(wal_sender_timeout) }
    }

    /// How long the server may say nothing although it was asked to: as long as it waits for us.
    /// Less would not do: while a large source transaction gives nothing to send, a walsender looks
    /// at what came from us only once half of `wal_sender_timeout` has passed.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// How often a status update is due: a third of the server's patience, 10 s at most.
    pub fn status_interval(&self) -> Duration {
        self.status_interval
    }

    /// Appends what the server sent to `into` and says how many bytes that were, at least 1; the
    /// end of the connection is an error. Takes all that has arrived, up to about [`ROOM`], since
    /// TLS hands out no more than a record at a time. Cancel-safe: what was read stands in `into`.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> Result<usize> {
        if let Some(until) = self.pace.until {
            sleep_until(until).await;
            self.pace.until = None;
        }
        make_room(into);
        let asked = Instant::now();
        let mut got = self.socket.read_buf(into).await.map_err(lost)?;
        if got == 0 {
            return Err(Error::transient("CONNECTION", "Postgres closed the replication stream"));
        }
        let waited = asked.elapsed();
        while got < ROOM {
            make_room(into);
            // An end or an error shows itself again at the next read.
            match self.socket.read_buf(into).now_or_never() {
                Some(Ok(more)) if more > 0 => got += more,
                _ => break,
            }
        }
        self.pace.note(got, waited);
        Ok(got)
    }

    /// Sends a standby status update: written = `received`, flushed and applied = `acknowledged`.
    /// With `reply` the server answers with a keepalive at once. Not cancel-safe: see it through.
    pub async fn send_status(
        &mut self,
        received: Lsn,
        acknowledged: Lsn,
        reply: bool,
    ) -> Result<()> {
        self.socket.write_all(&status(received, acknowledged, reply)).await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)
    }

    /// Ends the stream in order: CopyDone, all that was still under way, CommandComplete (case 14).
    /// The last acknowledgement must have been sent before. Gives up after `patience`.
    /// `unread`: what was read and not taken, from the beginning of a message on.
    pub async fn finish(mut self, unread: Vec<u8>, patience: Duration) -> Result<()> {
        let ended = timeout(patience, self.end(unread)).await;
        ended.map_err(|_| Error::transient("CONNECTION", "Postgres did not end the stream"))?
    }

    async fn end(&mut self, mut bytes: Vec<u8>) -> Result<()> {
        self.socket.write_all(b"c\0\0\0\x04").await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)?;
        let mut pos = 0;
        loop {
            match next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX)? {
                Some(Frame::ReadyForQuery) => break,
                Some(_) => {}
                None => {
                    bytes.drain(..pos);
                    pos = 0;
                    self.read(&mut bytes).await?;
                }
            }
        }
        // The server ends the session; that it has gone first is no error.
        let _ = self.socket.write_all(b"X\0\0\0\x04").await;
        let _ = self.socket.shutdown().await;
        Ok(())
    }
}

fn make_room(into: &mut Vec<u8>) {
    if into.capacity() - into.len() < ROOM_MIN {
        into.reserve(ROOM);
    }
}

fn status(received: Lsn, acknowledged: Lsn, reply: bool) -> [u8; 39] {
    // Type byte, length (38 after the type byte), 'r', three positions, clock, reply.
    let mut bytes = [0; 39];
    let parts = [received.0, acknowledged.0, acknowledged.0, now_us().cast_unsigned()];
    let (head, rest) = bytes.split_at_mut(6);
    head.copy_from_slice(b"d\0\0\0\x26r");
    for (slot, part) in rest.chunks_exact_mut(8).zip(parts) {
        slot.copy_from_slice(&part.to_be_bytes());
    }
    if let Some(last) = rest.last_mut() {
        *last = u8::from(reply);
    }
    bytes
}

/// Microseconds from 1970 to 2000, where Postgres starts counting.
const EPOCH_US: i64 = 946_684_800_000_000;

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_sub(EPOCH_US)
}

/// 0 means that the server waits for ever; 10 s is then what a person wants to see as lag.
fn interval(wal_sender_timeout: Duration) -> Duration {
    const MOST: Duration = Duration::from_secs(10);
    match wal_sender_timeout {
        Duration::ZERO => MOST,
        patience => (patience / 3).min(MOST),
    }
}

fn patience(wal_sender_timeout: Duration) -> Duration {
    const MOST: Duration = Duration::from_secs(60);
    match wal_sender_timeout {
        Duration::ZERO => MOST,
        patience => patience.min(MOST),
    }
}

/// When to keep away from the socket.
///
/// The walsender makes one send() per change. While the reader is quick each becomes a packet of
/// its own; while it stays away the kernel joins them, and both sides need a fraction of the CPU
/// (measured: `facts/hotpath.md`, 20 ms halves the time of the whole stream). So after a read that
/// came at once but brought less than [`ROOM`], the next one waits. A read that had to wait for its
/// bytes means that we are level with the server: no pause then, so an idle table's change is seen
/// immediately.
///
/// How long a pause pays depends on the wire (TLS brings less per pause) and on how far the kernel
/// has opened its window: a long pause too early keeps the window small, and then throttles the
/// stream. So the pause climbs: from one [`EPOCH`] to the next it grows while the rate holds, and
/// shrinks while that brings more. A Unix socket holds so little that any pause slows it down.
#[derive(Debug)]
struct Pace {
    /// Pauses pay on this wire.
    pays: bool,
    until: Option<Instant>,
    /// Index into [`PAUSES_MS`].
    step: usize,
    longer: bool,
    /// Since when we have been behind without a break, at most one epoch.
    since: Option<Instant>,
    bytes: usize,
    /// Bytes per millisecond in the last epoch.
    rate: usize,
}

/// A read that came sooner than this found its bytes waiting.
const AT_ONCE: Duration = Duration::from_millis(1);
const PAUSES_MS: [u64; 6] = [1, 2, 5, 10, 15, 20];
/// Time after which the pause is thought over.
const EPOCH: Duration = Duration::from_millis(100);

impl Pace {
    fn new(pays: bool) -> Self {
        Self { pays, until: None, step: 0, longer: true, since: None, bytes: 0, rate: 0 }
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(PAUSES_MS.get(self.step).copied().unwrap_or_default())
    }

    fn note(&mut self, got: usize, waited: Duration) {
        if !self.pays {
            return;
        }
        if waited >= AT_ONCE {
            self.since = None;
            return;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert_with(|| {
            self.bytes = 0;
            now
        });
        self.bytes += got;
        let elapsed = now - since;
        if elapsed >= EPOCH {
            let elapsed_ms = usize::try_from(elapsed.as_millis()).unwrap_or(usize::MAX);
            self.climb(self.bytes / elapsed_ms.max(1));
            self.since = None;
        }
        self.until = (got < ROOM).then(|| now + self.pause());
    }

    /// Ties go to the longer pause, which costs both sides less.
    fn climb(&mut self, rate: usize) {
        let last = std::mem::replace(&mut self.rate, rate);
        let goes_on = if self.longer { rate * 10 >= last * 9 } else { rate * 10 >= last * 11 };
        if !goes_on {
            self.longer = !self.longer;
        }
        self.step = match (self.longer, self.step) {
            (true, step) => (step + 1).min(PAUSES_MS.len() - 1),
            (false, 0) => {
                self.longer = true;
                0
            }
            (false, step) => step - 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn xlog(body: &[u8]) -> Vec<u8> {
        let head = [&[b'w'][..], &[0, 0, 0, 1, 0, 0, 0, 2], &[0; 7], &[9], &[0; 7], &[5]].concat();
        message(b'd', &[&head, body].concat())
    }

    #[test]
    fn a_frame_is_found_only_when_whole() {
        let bytes = xlog(b"hello");
        for cut in 0..bytes.len() {
            let mut pos = 0;
            assert_eq!(next_frame(&bytes[..cut], &mut pos, 1 << 20).unwrap(), None);
            assert_eq!(pos, 0);
        }
        let mut pos = 0;
        let frame = next_frame(&bytes, &mut pos, 1 << 20).unwrap().unwrap();
        let Frame::XLogData { wal_start, wal_end, sent_us, body } = frame else { panic!() };
        assert_eq!((wal_start, wal_end, sent_us), (Lsn(1 << 32 | 2), Lsn(9), 5));
        assert_eq!(&bytes[body], b"hello");
        assert_eq!(pos, bytes.len());
    }

    #[test]
    fn a_keepalive_between_notices() {
        let keepalive = [&[b'k'][..], &[0; 7], &[7], &[0; 8], &[1]].concat();
        let bytes = [message(b'N', b"MX\0\0"), message(b'd', &keepalive)].concat();
        let frame = next_frame(&bytes, &mut 0, 1 << 20).unwrap().unwrap();
        assert_eq!(frame, Frame::Keepalive { wal_end: Lsn(7), sent_us: 0, reply: true });
    }

    #[test]
    fn refusals_have_codes() {
        let code = |bytes: &[u8]| next_frame(bytes, &mut 0, 1_000).unwrap_err().code();
        assert_eq!(code(b"d\x40\0\0\0"), "VALUE_TOO_LARGE");
        assert_eq!(code(b"d\0\0\0\x03"), "BAD_MESSAGE");
        assert_eq!(code(&message(b'd', b"w123")), "BAD_MESSAGE");
        assert_eq!(code(&message(b'd', b"")), "BAD_MESSAGE");
        assert_eq!(code(&message(b'?', b"")), "BAD_MESSAGE");
        assert_eq!(code(&message(b'E', b"C57P01\0Mx\0\0")), "UNAVAILABLE");
    }

    #[test]
    fn missing_counts_down() {
        let bytes = message(b'd', b"0123456789");
        assert_eq!(missing(&bytes[..4], 0), None);
        assert_eq!(missing(&bytes[..5], 0), Some(10));
        assert_eq!(missing(&bytes, 0), Some(0));
    }

    // cases: 9 holds
    #[test]
    fn a_status_update_is_laid_out_as_documented() {
        let bytes = status(Lsn(3), Lsn(2), true);
        assert_eq!(bytes[..6], *b"d\0\0\0\x26r");
        assert_eq!(bytes[13], 3);
        assert_eq!((bytes[21], bytes[29], bytes[38]), (2, 2, 1));
    }

    #[test]
    fn intervals() {
        assert_eq!(interval(Duration::ZERO), Duration::from_secs(10));
        assert_eq!(interval(Duration::from_secs(60)), Duration::from_secs(10));
        assert_eq!(interval(Duration::from_secs(3)), Duration::from_secs(1));
    }

    #[test]
    fn the_pace_rests_only_while_behind() {
        let mut pace = Pace::new(true);
        pace.note(100, Duration::from_millis(50));
        assert!(pace.until.is_none(), "an idle stream's first short read");
        pace.note(ROOM, Duration::ZERO);
        assert!(pace.until.is_none(), "a full read");
        pace.note(100, Duration::ZERO);
        assert!(pace.until.is_some());
        let mut never = Pace::new(false);
        never.note(100, Duration::ZERO);
        assert!(never.until.is_none());
    }

    #[test]
    fn the_pause_grows_while_the_rate_holds() {
        let mut pace = Pace::new(true);
        for _ in 0..10 {
            pace.climb(1_000);
        }
        assert_eq!(pace.pause(), Duration::from_millis(20));
        pace.climb(500);
        assert_eq!(pace.pause(), Duration::from_millis(15), "the rate fell");
        pace.climb(800);
        assert_eq!(pace.pause(), Duration::from_millis(10), "shorter was better");
        pace.climb(800);
        assert_eq!(pace.pause(), Duration::from_millis(15), "no better: longer again");
    }
}
