//! What a message that is too large to be taken belongs to, as far as it has arrived (case 44).

use crate::window::wire::{Framing, WalTuple, be16, be32};

/// Bytes before the pgoutput message: CopyData and its length, XLogData with two positions and a
/// time (Postgres manual, Streaming Replication Protocol).
const HEADER_BYTES: usize = 5 + 25;

/// Of the message whose frame begins at `frame_at`: the oid of its table, and the index of the
/// column that has not arrived whole.
pub(super) fn value_of(buf: &[u8], frame_at: usize) -> Option<(u32, Option<usize>)> {
    let at = frame_at + HEADER_BYTES;
    let is_change = buf.get(at).is_some_and(|tag| b"IUD".contains(tag));
    let oid = be32(buf, at + 1).ok().filter(|_| is_change)?;
    Some((oid, column_of(buf, at + 5)))
}

/// An old tuple may come before the new one; each has a kind and a count of columns.
fn column_of(buf: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..2 {
        let count = be16(buf, at + 1).ok()?;
        let mut cursor = u32::try_from(at + 3).ok()?;
        for column in 0..usize::from(count) {
            if WalTuple::next(buf, &mut cursor).is_err() {
                return Some(column);
            }
        }
        at = usize::try_from(cursor).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[7; 9], &[0; HEADER_BYTES][..], message].concat()
    }

    #[test]
    fn the_column_that_is_not_complete_is_found() {
        let insert = b"I\0\0\0\x05N\0\x03n\x74\0\0\0\x01xt\0\x10\0\0abc";
        assert_eq!(value_of(&frame(insert), 9), Some((5, Some(2))));
        let update = b"U\0\0\0\x05K\0\x02t\0\0\0\x01xnN\0\x02t\0\0\0\x01xt\x10\0\0\0abc";
        assert_eq!(value_of(&frame(update), 9), Some((5, Some(1))));
        assert_eq!(value_of(&frame(b"I\0\0\0\x05"), 9), Some((5, None)));
        assert_eq!(value_of(&frame(b"I\0\0"), 9), None);
        assert_eq!(value_of(&frame(b"M\x01\0\0\0\0"), 9), None);
    }
}
