//! Text forms that are bytes behind an encoding: `bytea` in hex, `uuid`.

use super::scalar::bad_value;
use crate::error::Result;

/// Appends the bytes of a `bytea` in text (`bytea_output` hex).
pub(crate) fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let bad = || bad_value("bytea");
    let (pairs, odd) = text.strip_prefix(b"\\x").ok_or_else(bad)?.as_chunks();
    if !odd.is_empty() {
        return Err(bad());
    }
    out.reserve(pairs.len());
    for &[high, low] in pairs {
        let byte = nibble(high).zip(nibble(low)).map(|(high, low)| high << 4 | low);
        out.push(byte.ok_or_else(bad)?);
    }
    Ok(())
}

/// The bytes of a `uuid` in text, with its hyphens.
pub(crate) fn uuid(text: &[u8]) -> Result<[u8; 16]> {
    let parsed = Some(text).filter(|t| t.len() == uuid::fmt::Hyphenated::LENGTH);
    let parsed = parsed.and_then(|t| uuid::Uuid::try_parse_ascii(t).ok());
    parsed.map(uuid::Uuid::into_bytes).ok_or_else(|| bad_value("uuid"))
}

/// Appends the bytes of PostGIS's text form: digits alone, in capitals.
pub(crate) fn hex(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let bad = || bad_value("geometry");
    let (pairs, odd) = text.as_chunks();
    if !odd.is_empty() {
        return Err(bad());
    }
    for &[high, low] in pairs {
        let lower = [high, low].map(|digit| nibble(digit.to_ascii_lowercase()));
        let [Some(high), Some(low)] = lower else { return Err(bad()) };
        out.push(high << 4 | low);
    }
    Ok(())
}

fn nibble(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_form_is_read() {
        let mut out = Vec::new();
        bytea(b"\\x00ff7a", &mut out).unwrap();
        assert_eq!(out, [0, 255, 122]);
        for bad in [&b"\\x0"[..], b"\\x0g", b"", b"abc", b"\\000", b"\\x0A"] {
            assert!(bytea(bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
        assert!(uuid(b"00000000-0000-0000-0000-000000000001").is_ok());
        assert!(uuid(b"00000000000000000000000000000001").is_err());
        assert!(uuid(b"").is_err());
    }
}
