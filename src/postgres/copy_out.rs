//! `COPY ... TO STDOUT`: rows in, framing included, in large reads into the caller's memory.
//!
//! Source of the rules: Postgres manual, "COPY Operations" in "Message Flow". As with the stream
//! ([`super::stream`]) the bytes belong to the caller: [`CopyOut::read`] appends what arrived,
//! [`next_data`] says where the next CopyData lies in it, and nothing is copied or allocated for a
//! row.

use std::ops::Range;
use std::time::Duration;

use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::postgres::server_error::ServerError;
use crate::postgres::socket::{Socket, lost};
use crate::postgres::stream::{MESSAGE_BYTES_MAX, next_message};

/// About what one call of [`CopyOut::read`] brings at most.
const READ_BYTES: usize = 1 << 20;
/// The least room a read is given.
const ROOM_MIN: usize = 64 << 10;
/// A read that brings less is followed by a pause: see [`CopyOut::read`].
const SHORT_BYTES: usize = 256 << 10;
/// Short against the time in which the server fills the sockets' buffers (some MiB).
const PAUSE: Duration = Duration::from_millis(2);

/// A COPY under way. Dropped before its end, it leaves a session of no more use.
#[derive(Debug)]
pub struct CopyOut<'a> {
    socket: &'a mut Socket,
    pauses: bool,
    last: usize,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(socket: &'a mut Socket) -> Self {
        let pauses = socket.likes_pauses();
        Self { socket, pauses, last: READ_BYTES }
    }

    /// Appends what the server sent to `into`; the end of the connection is an error.
    ///
    /// The server sends 8 KiB at a time. Who takes each piece as it comes is woken for each; after
    /// a short read a pause of 2 ms lets them gather in the socket.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> Result<()> {
        if self.pauses && self.last < SHORT_BYTES {
            sleep(PAUSE).await;
        }
        make_room(into);
        let mut got = self.socket.read_buf(into).await.map_err(lost)?;
        if got == 0 {
            return Err(Error::transient("CONNECTION", "Postgres closed the connection of a COPY"));
        }
        while got < READ_BYTES {
            make_room(into);
            // An end or an error shows itself again at the next read.
            match self.socket.read_buf(into).now_or_never() {
                Some(Ok(more)) if more > 0 => got += more,
                _ => break,
            }
        }
        self.last = got;
        Ok(())
    }
}

fn make_room(into: &mut Vec<u8>) {
    if into.capacity() - into.len() < ROOM_MIN {
        into.reserve(READ_BYTES);
    }
}

/// What [`next_data`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyData {
    /// The content of a CopyData message, in the caller's bytes.
    Data(Range<usize>),
    /// The COPY is complete, and the session ready for a query.
    Complete,
}

/// The next whole CopyData in `buf` from `pos` on, or `None` where it is not complete yet. `pos`
/// goes on to what follows it. What the server reports is an error; then the session is at its end.
#[inline]
pub fn next_data(buf: &[u8], pos: &mut usize) -> Result<Option<CopyData>> {
    while let Some((tag, body)) = next_message(buf, *pos, MESSAGE_BYTES_MAX)? {
        *pos = body.end;
        match tag {
            b'd' => return Ok(Some(CopyData::Data(body))),
            b'Z' => return Ok(Some(CopyData::Complete)),
            b'E' => return Err(ServerError::parse(buf.get(body).unwrap_or_default()).into()),
            b'N' => {
                let notice = ServerError::parse(buf.get(body).unwrap_or_default());
                tracing::warn!(sqlstate = notice.sqlstate, "{}", notice.message);
            }
            // CopyDone, CommandComplete, ParameterStatus
            b'c' | b'C' | b'S' => {}
            other => {
                let message = format!("unexpected type byte 0x{other:02x} in a COPY");
                return Err(Error::fatal("BAD_MESSAGE", message));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn rows_lie_between_notices_and_end_with_ready() {
        let parts = [
            message(b'd', b"one"),
            message(b'N', b"SWARNING\0Mx\0\0"),
            message(b'd', b""),
            message(b'c', b""),
            message(b'C', b"COPY 2\0"),
            message(b'Z', b"T"),
        ];
        let bytes = parts.concat();
        let mut pos = 0;
        let mut next = || next_data(&bytes, &mut pos).unwrap();
        assert_eq!(next(), Some(CopyData::Data(5..8)));
        assert!(matches!(next(), Some(CopyData::Data(empty)) if empty.is_empty()));
        assert_eq!(next(), Some(CopyData::Complete));
        for cut in 0..bytes.len() {
            let mut pos = 0;
            let mut found = Vec::new();
            while let Some(data) = next_data(&bytes[..cut], &mut pos).unwrap() {
                found.push(data);
            }
            assert!(pos <= cut && !found.contains(&CopyData::Complete), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_row_is_an_error() {
        let code = |bytes: &[u8]| next_data(bytes, &mut 0).unwrap_err().code();
        assert_eq!(code(&message(b'E', b"C57P01\0Mx\0\0")), "UNAVAILABLE");
        assert_eq!(code(&message(b'T', b"")), "BAD_MESSAGE");
        assert_eq!(code(b"d\x7f\0\0\0"), "VALUE_TOO_LARGE");
    }
}
