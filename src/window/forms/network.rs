//! Addresses: network.c, port/inet_net_ntop.c, mac.c, mac8.c.

use crate::error::Result;
use crate::window::reader::Reader;
use crate::window::scalar::bad_value;

/// `PGSQL_AF_INET` and the number after it, whatever the server's own AF_INET6 is.
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 3;

/// `inet`, `cidr`: family, bits of the mask, is cidr, bytes, address. The mask is shown where it is
/// not the whole address, and always for `cidr`.
pub(super) fn network(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "inet");
    let (family, bits, cidr, length) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let address = reader.rest();
    if address.len() != usize::from(length) {
        return Err(bad_value("inet"));
    }
    let whole = match (family, address) {
        (FAMILY_V4, &[a, b, c, d]) => {
            out.extend_from_slice(format!("{a}.{b}.{c}.{d}").as_bytes());
            32
        }
        (FAMILY_V6, address) if address.len() == 16 => {
            push_v6(address, out);
            128
        }
        _ => return Err(bad_value("inet")),
    };
    if cidr == 1 || bits != whole {
        out.extend_from_slice(format!("/{bits}").as_bytes());
    }
    Ok(())
}

/// The longest run of two or more zero words as `::`; the first of several. What looks like an
/// embedded IPv4 address is written as one.
fn push_v6(address: &[u8], out: &mut Vec<u8>) {
    let (pairs, _) = address.as_chunks::<2>();
    let words: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    let word = |n: usize| words.get(n).copied().unwrap_or_default();
    let (start, length) = longest_zeros(&words);
    let v4 = start == 0 && (length == 6 || (length == 7 && word(7) != 1))
        || start == 0 && length == 5 && word(5) == 0xffff;
    for n in 0..8 {
        if length > 0 && (start..start + length).contains(&n) {
            if n == start {
                out.push(b':');
            }
            continue;
        }
        if n > 0 {
            out.push(b':');
        }
        if n == 6 && v4 {
            let tail = address.get(12..).unwrap_or_default();
            let parts: Vec<String> = tail.iter().map(u8::to_string).collect();
            return out.extend_from_slice(parts.join(".").as_bytes());
        }
        out.extend_from_slice(format!("{:x}", word(n)).as_bytes());
    }
    if length > 0 && start + length == 8 {
        out.push(b':');
    }
}

/// Where the longest run of zeros begins, and its length; (0, 0) where none is longer than one.
fn longest_zeros(words: &[u16]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut run = 0;
    for (n, word) in words.iter().enumerate() {
        run = if *word == 0 { run + 1 } else { 0 };
        if run > best.1 && run > 1 {
            best = (n + 1 - run, run);
        }
    }
    best
}

/// `macaddr`, `macaddr8`: two digits of each byte.
pub(super) fn mac(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    if v.len() != 6 && v.len() != 8 {
        return Err(bad_value("macaddr"));
    }
    let parts: Vec<String> = v.iter().map(|byte| format!("{byte:02x}")).collect();
    out.extend_from_slice(parts.join(":").as_bytes());
    Ok(())
}
