//! PostGIS: from EWKB, its binary form, to ISO WKB, which carries no SRID and puts Z and M into the
//! type's number (1000 and 2000 more) instead of into flag bits.
//!
//! Source: postgis/liblwgeom/lwin_wkb.c, lwout_wkb.c. Only headers differ; coordinates are copied.

use super::scalar::bad_value;
use crate::error::Result;

const Z: u32 = 0x8000_0000;
const M: u32 = 0x4000_0000;
const SRID: u32 = 0x2000_0000;
/// Bytes of a header: byte order and type.
const HEADER_BYTES: usize = 5;

/// What follows a header.
#[derive(Clone, Copy)]
enum Body {
    /// One point.
    Point,
    /// A count, then points.
    Points,
    /// A count, then counts with points.
    Rings,
    /// A count, then geometries with headers of their own.
    Parts,
}

fn body(kind: u32) -> Result<Body> {
    Ok(match kind {
        1 => Body::Point,
        2 | 8 | 13 => Body::Points,
        3 | 17 => Body::Rings,
        4..=7 | 9..=12 | 15 | 16 => Body::Parts,
        _ => return Err(bad_value("geometry")),
    })
}

/// Appends the ISO WKB of an EWKB.
pub(crate) fn iso_wkb(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut walk = Walk { rest: v, out };
    // Geometries whose headers are still to come; nesting needs no stack.
    let mut open: usize = 1;
    while open > 0 {
        open -= 1;
        let (body, little, width) = walk.header()?;
        match body {
            Body::Point => walk.copy(width)?,
            Body::Points => walk.points(little, width)?,
            Body::Rings => {
                for _ in 0..walk.count(little)? {
                    walk.points(little, width)?;
                }
            }
            Body::Parts => open += walk.count(little)?,
        }
    }
    if walk.rest.is_empty() { Ok(()) } else { Err(bad_value("geometry")) }
}

struct Walk<'a, 'b> {
    rest: &'a [u8],
    out: &'b mut Vec<u8>,
}

impl<'a> Walk<'a, '_> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let split = self.rest.split_at_checked(count);
        let (taken, rest) = split.ok_or_else(|| bad_value("geometry"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn copy(&mut self, count: usize) -> Result<()> {
        let bytes = self.take(count)?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Rewrites a header. Gives what follows, whether it is little endian, the bytes of a point.
    fn header(&mut self) -> Result<(Body, bool, usize)> {
        let bad = || bad_value("geometry");
        let header = self.take(HEADER_BYTES)?;
        let (&order, number) = header.split_first().ok_or_else(bad)?;
        let little = order == 1;
        let number: [u8; 4] = number.try_into().map_err(|_| bad())?;
        let number = if little { u32::from_le_bytes(number) } else { u32::from_be_bytes(number) };
        if number & SRID != 0 {
            self.take(4)?;
        }
        let (z, m) = (number & Z != 0, number & M != 0);
        let kind = number & !(Z | M | SRID);
        let body = body(kind)?;
        let iso = kind + 1000 * u32::from(z) + 2000 * u32::from(m);
        self.out.push(order);
        self.out.extend(if little { iso.to_le_bytes() } else { iso.to_be_bytes() });
        Ok((body, little, 8 * (2 + usize::from(z) + usize::from(m))))
    }

    fn count(&mut self, little: bool) -> Result<usize> {
        let bytes = self.take(4)?;
        self.out.extend_from_slice(bytes);
        let bytes = bytes.try_into().map_err(|_| bad_value("geometry"))?;
        let count = if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count <= self.rest.len() { Ok(count) } else { Err(bad_value("geometry")) }
    }

    fn points(&mut self, little: bool, width: usize) -> Result<()> {
        let count = self.count(little)?;
        self.copy(count.saturating_mul(width))
    }
}
