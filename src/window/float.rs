//! Floats as Postgres writes them with `extra_float_digits` of 1 or more: the shortest digits that
//! read back to the same bits.
//!
//! Source: postgres/src/common/{d2s,f2s}.c. It differs from Rust's shortest digits in two rules: of
//! two that are equally close, the even one is taken (3404477.25 as `float4` is 3.4044772e+06); and
//! digits that lie exactly halfway between two floats are never written, because not every reader
//! would round them back to the same one. So `1e23` comes out as 9.999999999999999e+22.

use std::fmt::LowerExp;
use std::str::FromStr;

/// More places than any float needs behind the first.
const PLACES_MAX: usize = 18;

/// Appends the text of a `float4`.
pub(crate) fn render_float4(v: f32, out: &mut Vec<u8>) {
    let bits = v.to_bits();
    let (exponent, fraction) = ((bits >> 23) & 0xff, u64::from(bits & 0x007f_ffff));
    push(v, v.is_nan(), &Neighbours::new(exponent, fraction, 23, -149), 6, out);
}

/// Appends the text of a `float8`.
pub(crate) fn render_float8(v: f64, out: &mut Vec<u8>) {
    let bits = v.to_bits();
    let exponent = u32::try_from((bits >> 52) & 0x7ff).unwrap_or_default();
    let fraction = bits & 0x000f_ffff_ffff_ffff;
    push(v, v.is_nan(), &Neighbours::new(exponent, fraction, 52, -1074), 15, out);
}

/// Appends `v`; powers of ten from 10^-4 below 10^`fixed_below` are written without an exponent.
fn push<F>(v: F, nan: bool, neighbours: &Neighbours, fixed_below: i32, out: &mut Vec<u8>)
where
    F: LowerExp + FromStr + PartialEq + Copy,
{
    let shortest = format!("{v:e}");
    let negative = shortest.starts_with('-');
    match shortest.trim_start_matches('-') {
        _ if nan => return out.extend_from_slice(b"NaN"),
        "inf" if negative => return out.extend_from_slice(b"-Infinity"),
        "inf" => return out.extend_from_slice(b"Infinity"),
        _ if negative => out.push(b'-'),
        _ => {}
    }
    decimal(v, shortest, neighbours).push(fixed_below, out);
}

/// The shortest digits that read back as `v` and nothing else. Where several are as short, the
/// closest; where two are as close, the even one, which is how Rust rounds to a given length but
/// not how it finds the shortest.
fn decimal<F>(v: F, shortest: String, neighbours: &Neighbours) -> Decimal
where
    F: LowerExp + FromStr + PartialEq,
{
    let first = Decimal::read(&shortest);
    let places = first.digits.len().saturating_sub(1);
    let rounded = |places: usize| format!("{v:.places$e}");
    let longer = (places + 1..PLACES_MAX).map(rounded);
    let mut candidates = [rounded(places), shortest].into_iter().chain(longer);
    let found = candidates.find_map(|text| {
        let decimal = Decimal::read(&text);
        let same = text.parse().is_ok_and(|read: F| read == v);
        (same && !neighbours.halfway(&decimal)).then_some(decimal)
    });
    found.unwrap_or(first)
}

/// `d.ddd` times 10^`exponent`.
struct Decimal {
    digits: Vec<u8>,
    exponent: i32,
}

impl Decimal {
    /// From Rust's scientific notation, whose sign is left out.
    fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let mut digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
        while digits.len() > 1 && digits.last() == Some(&b'0') {
            digits.pop();
        }
        Self { digits, exponent: exponent.parse().unwrap_or_default() }
    }

    fn push(&self, fixed_below: i32, out: &mut Vec<u8>) {
        let count = i32::try_from(self.digits.len()).unwrap_or(i32::MAX);
        let zeros = |n: i32| std::iter::repeat_n(b'0', usize::try_from(n).unwrap_or_default());
        let (point, exponent) = match self.exponent {
            e @ ..=-1 if e >= -4 => {
                out.extend_from_slice(b"0.");
                out.extend(zeros(-e - 1));
                return out.extend_from_slice(&self.digits);
            }
            e @ 0.. if e < fixed_below => (e + 1, None),
            e => (1, Some(e)),
        };
        let split = usize::try_from(point).unwrap_or_default().min(self.digits.len());
        let (whole, fraction) = self.digits.split_at_checked(split).unwrap_or_default();
        out.extend_from_slice(whole);
        out.extend(zeros(point - count));
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        if let Some(e) = exponent {
            let sign = if e < 0 { '-' } else { '+' };
            out.extend_from_slice(format!("e{sign}{:02}", e.unsigned_abs()).as_bytes());
        }
    }
}

/// The two numbers halfway to the floats beside one: odd integers times a power of two.
struct Neighbours([(u128, i32); 2]);

impl Neighbours {
    /// From a float's fields; `width` is the fraction's in bits, `lowest` the power of two of the
    /// smallest float.
    fn new(exponent: u32, fraction: u64, width: u32, lowest: i32) -> Self {
        let normal = exponent > 0;
        let mantissa = u128::from(fraction) + if normal { 1 << width } else { 0 };
        let power = lowest + i32::try_from(exponent.saturating_sub(1)).unwrap_or_default();
        let above = (2 * mantissa + 1, power - 1);
        // Below a power of two, floats stand twice as close.
        let below = match fraction == 0 && exponent > 1 {
            true => (4 * mantissa - 1, power - 2),
            false => ((2 * mantissa).saturating_sub(1), power - 1),
        };
        Self([below, above])
    }

    /// Whether `decimal` is exactly one of the two.
    fn halfway(&self, decimal: &Decimal) -> bool {
        let Some((integer, power_of_five)) = decimal.integer() else { return false };
        let five = 5_u128.checked_pow(power_of_five.unsigned_abs());
        let scaled = match five {
            Some(five) if power_of_five >= 0 => integer.checked_mul(five),
            Some(five) if integer % five == 0 => Some(integer / five),
            _ => None,
        };
        scaled.filter(|&n| n > 0).is_some_and(|n| {
            let twos = n.trailing_zeros();
            let power = i32::try_from(twos).map_or(i32::MAX, |twos| power_of_five + twos);
            self.0.contains(&(n >> twos, power))
        })
    }
}

impl Decimal {
    /// As an integer times a power of ten.
    fn integer(&self) -> Option<(u128, i32)> {
        let count = i32::try_from(self.digits.len()).ok()?;
        let integer = self.digits.iter().fold(0, |n, d| n * 10 + u128::from(d - b'0'));
        Some((integer, self.exponent - (count - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float8(v: f64) -> String {
        let mut out = Vec::new();
        render_float8(v, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn written_as_postgres_does() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (1e22, "1e+22"),
            (1e23, "9.999999999999999e+22"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ];
        for (v, expected) in cases {
            assert_eq!(float8(v), expected);
        }
    }
}
