//! PostGIS: the text of a geometry is its EWKB in hexadecimal; the lake has ISO WKB where the
//! column fixes the SRID.
//!
//! EWKB (PostGIS manual, `ST_AsEWKB`) flags Z, M and an SRID in the type's high bits; ISO WKB (OGC
//! Simple Features, part 1) adds 1000 for Z, 2000 for M, and has no SRID.

use crate::verify::render::hex;

const HAS_Z: u32 = 1 << 31;
const HAS_M: u32 = 1 << 30;
const HAS_SRID: u32 = 1 << 29;
/// Geometries within geometries, at most.
const DEPTH_MAX: usize = 64;

/// Appends the hexadecimal text of the ISO WKB; `None` where the text is no EWKB.
pub(super) fn iso_from_ewkb(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let bytes: Vec<u8> = text.chunks(2).map(byte_of).collect::<Option<_>>()?;
    let mut iso = Vec::with_capacity(bytes.len());
    let rest = geometry(&bytes, &mut iso, DEPTH_MAX)?;
    hex(&iso, into);
    rest.is_empty().then_some(())
}

fn byte_of(pair: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()
}

/// Copies one geometry; gives what follows it.
fn geometry<'a>(bytes: &'a [u8], iso: &mut Vec<u8>, depth: usize) -> Option<&'a [u8]> {
    let (&order, rest) = bytes.split_first()?;
    let is_little = order == 1;
    let (word, mut rest) = number(rest, is_little)?;
    if word & HAS_SRID != 0 {
        rest = rest.get(4..)?;
    }
    let kind = word & !(HAS_Z | HAS_M | HAS_SRID);
    let (has_z, has_m) = (word & HAS_Z != 0, word & HAS_M != 0);
    let point_bytes = 8 * (2 + usize::from(has_z) + usize::from(has_m));
    iso.push(order);
    write(kind + 1000 * u32::from(has_z) + 2000 * u32::from(has_m), is_little, iso);
    match kind {
        1 => copy(rest, point_bytes, iso),
        // Line string, circular string.
        2 | 8 => points(rest, is_little, point_bytes, iso),
        // Polygon, triangle: rings.
        3 | 17 => {
            let (count, mut rest) = counted(rest, is_little, iso)?;
            for _ in 0..count {
                rest = points(rest, is_little, point_bytes, iso)?;
            }
            Some(rest)
        }
        // All others are made of geometries.
        4..=16 => {
            let (count, mut rest) = counted(rest, is_little, iso)?;
            for _ in 0..count {
                rest = geometry(rest, iso, depth.checked_sub(1)?)?;
            }
            Some(rest)
        }
        _ => None,
    }
}

fn points<'a>(
    bytes: &'a [u8],
    is_little: bool,
    point_bytes: usize,
    iso: &mut Vec<u8>,
) -> Option<&'a [u8]> {
    let (count, rest) = counted(bytes, is_little, iso)?;
    copy(rest, usize::try_from(count).ok()?.checked_mul(point_bytes)?, iso)
}

fn counted<'a>(bytes: &'a [u8], is_little: bool, iso: &mut Vec<u8>) -> Option<(u32, &'a [u8])> {
    let (count, rest) = number(bytes, is_little)?;
    write(count, is_little, iso);
    Some((count, rest))
}

fn copy<'a>(bytes: &'a [u8], count: usize, iso: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (copied, rest) = bytes.split_at_checked(count)?;
    iso.extend_from_slice(copied);
    Some(rest)
}

fn number(bytes: &[u8], is_little: bool) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    Some((if is_little { u32::from_le_bytes(*first) } else { u32::from_be_bytes(*first) }, rest))
}

fn write(number: u32, is_little: bool, iso: &mut Vec<u8>) {
    iso.extend(if is_little { number.to_le_bytes() } else { number.to_be_bytes() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_srid_goes_and_z_is_a_number() {
        let text = b"01010000A0E6100000000000000000F03F00000000000000400000000000000840";
        let mut into = Vec::new();
        iso_from_ewkb(text, &mut into).unwrap();
        let want = "01e9030000000000000000f03f00000000000000400000000000000840";
        assert_eq!(String::from_utf8(into).unwrap(), want);
        for cut in (0..text.len()).step_by(2) {
            assert!(iso_from_ewkb(&text[..cut], &mut Vec::new()).is_none(), "{cut}");
        }
    }
}
