//! pgvector: vector.c, halfvec.c, sparsevec.c.

use crate::error::Result;
use crate::window::float::render_float4;
use crate::window::reader::Reader;
use crate::window::scalar::bad_value;

/// Calls `each` for every element of a binary `vector`, or `halfvec` where `half`.
pub(crate) fn try_each(v: &[u8], half: bool, mut each: impl FnMut(f32)) -> Result<()> {
    let mut reader = Reader::new(v, "vector");
    let (dimensions, _unused) = (reader.u16()?, reader.u16()?);
    for _ in 0..dimensions {
        each(if half { half_float(reader.u16()?) } else { reader.f32()? });
    }
    reader.end()
}

/// Calls `each` for every element of a vector in text: `[1,2.5]`.
pub(crate) fn try_each_of_text(v: &[u8], mut each: impl FnMut(f32)) -> Result<()> {
    let bad = || bad_value("vector");
    let text = str::from_utf8(v).map_err(|_| bad())?;
    let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or_else(bad)?;
    for element in inside.split(',') {
        each(element.parse().map_err(|_| bad())?);
    }
    Ok(())
}

/// Appends `[1,2.5]`.
pub(crate) fn render_vector(v: &[u8], half: bool, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'[');
    let mut first = true;
    try_each(v, half, |element| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        render_float4(element, out);
    })?;
    out.push(b']');
    Ok(())
}

/// Appends `{1:1.5,3:2}/5`: indexes from 1 (on the wire from 0), dimensions.
pub(super) fn sparse(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "sparsevec");
    let dimensions = reader.u32()?;
    let count = reader.u32()?;
    reader.u32()?;
    let indexes = reader.take(usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(4))?;
    out.push(b'{');
    for (n, index) in indexes.as_chunks().0.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let index = u64::from(u32::from_be_bytes(*index)) + 1;
        out.extend_from_slice(format!("{comma}{index}:").as_bytes());
        render_float4(reader.f32()?, out);
    }
    out.extend_from_slice(format!("}}/{dimensions}").as_bytes());
    reader.end()
}

/// IEEE 754 binary16 as the same number in 32 bits.
fn half_float(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match (exponent, fraction) {
        (0, 0) => 0,
        // Subnormal: as many places lower as it has leading zeros.
        (0, fraction) => {
            let shift = fraction.leading_zeros() - 21;
            ((113 - shift) << 23) | ((fraction << shift & 0x3ff) << 13)
        }
        (0x1f, fraction) => 0xff << 23 | fraction << 13,
        (exponent, fraction) => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats() {
        let cases = [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc500, -5.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, expected) in cases {
            assert_eq!(half_float(bits).to_bits(), f32::to_bits(expected), "{bits:04x}");
        }
    }
}
