//! Postgres `numeric`: base-10000 digits on the wire, to a decimal or to its canonical text.
//!
//! Source: postgres/src/backend/utils/adt/numeric.c (`numeric_send`, `get_str_from_var`). On the
//! wire: count of digits, weight (power of 10000 of the first digit), sign, display scale, digits;
//! all 16 bits.

use super::scalar::{bad_value, exact};
use crate::error::Result;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// `NUMERIC_DSCALE_MAX`: the most digits Postgres shows after the point.
const DISPLAY_SCALE_MAX: u16 = 0x3FFF;
/// Base-10000 digits that a decimal of 38 digits can touch: 37 digits and one on each side.
const DIGITS_MAX: usize = 11;

/// 10^0 to 10^38.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const POWERS_OF_TEN: [u128; 39] = {
    let mut powers = [1; 39];
    let mut n = 1;
    while n < 39 {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

/// The binary form, checked for its length.
struct Numeric<'a> {
    weight: i16,
    sign: u16,
    display_scale: u16,
    digits: &'a [[u8; 2]],
}

impl<'a> Numeric<'a> {
    #[inline(always)]
    fn read(v: &'a [u8]) -> Result<Self> {
        let Some((&[c0, c1, w0, w1, s0, s1, d0, d1], rest)) = v.split_first_chunk() else {
            return Err(bad_value("numeric"));
        };
        let (digits, rest) = rest.as_chunks();
        let (weight, sign) = (i16::from_be_bytes([w0, w1]), u16::from_be_bytes([s0, s1]));
        let display_scale = u16::from_be_bytes([d0, d1]);
        let signs = [0, NEGATIVE, NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY];
        let counted = digits.len() == usize::from(u16::from_be_bytes([c0, c1])) && rest.is_empty();
        if !counted || !signs.contains(&sign) || display_scale > DISPLAY_SCALE_MAX {
            return Err(bad_value("numeric"));
        }
        Ok(Self { weight, sign, display_scale, digits })
    }
}

#[inline(always)]
fn digit(bytes: [u8; 2]) -> Result<u16> {
    match u16::from_be_bytes(bytes) {
        digit @ 0..10_000 => Ok(digit),
        _ => Err(bad_value("numeric")),
    }
}

/// The decimal(`precision`,`scale`) of a binary `numeric`, times 10^`scale`. None where it has
/// none: NaN, infinities, more digits than it holds on either side of the point.
#[inline(always)]
pub(crate) fn decimal(v: &[u8], precision: u8, scale: i8) -> Result<Option<i128>> {
    let numeric = Numeric::read(v)?;
    let magnitude = match numeric.digits.len() {
        _ if numeric.sign >= NAN => return Ok(None),
        0..=4 => short_magnitude(&numeric, scale)?,
        _ => long_magnitude(&numeric, scale)?,
    };
    Ok(magnitude.and_then(|m| signed(m, numeric.sign == NEGATIVE, precision)))
}

/// `magnitude` with its sign, if it has at most `precision` digits.
#[inline(always)]
fn signed(magnitude: u128, negative: bool, precision: u8) -> Option<i128> {
    let limit = POWERS_OF_TEN.get(usize::from(precision))?;
    let value = i128::try_from(magnitude).ok().filter(|_| magnitude < *limit)?;
    Some(if negative { -value } else { value })
}

/// At most 16 decimal digits, so that all but the last multiplication is in 64 bits.
#[inline(always)]
fn short_magnitude(numeric: &Numeric<'_>, scale: i8) -> Result<Option<u128>> {
    let mut sum = 0_u64;
    for &d in numeric.digits {
        sum = sum * 10_000 + u64::from(digit(d)?);
    }
    let shift = shift(numeric.weight, numeric.digits.len(), scale);
    let power = |n: i32| usize::try_from(n).ok().and_then(|n| POWERS_OF_TEN.get(n)).copied();
    Ok(match power(shift) {
        _ if sum == 0 => Some(0),
        Some(power) => u128::from(sum).checked_mul(power),
        None => {
            let divisor = power(-shift).and_then(|p| u64::try_from(p).ok());
            divisor.filter(|d| sum.is_multiple_of(*d)).map(|d| u128::from(sum / d))
        }
    })
}

/// Powers of ten between the last digit and the last place of the decimal.
#[inline(always)]
fn shift(weight: i16, digits: usize, scale: i8) -> i32 {
    let digits = i32::try_from(digits).unwrap_or(i32::MAX / 8);
    4 * (i32::from(weight) - digits + 1) + i32::from(scale)
}

#[cold]
fn long_magnitude(numeric: &Numeric<'_>, scale: i8) -> Result<Option<u128>> {
    for &d in numeric.digits {
        digit(d)?;
    }
    let mut digits = numeric.digits;
    let mut weight = numeric.weight;
    while let Some(([0, 0], rest)) = digits.split_first() {
        digits = rest;
        weight = weight.saturating_sub(1);
    }
    while let Some(([0, 0], rest)) = digits.split_last() {
        digits = rest;
    }
    if digits.len() > DIGITS_MAX {
        return Ok(None);
    }
    Ok(sum(digits, shift(weight, digits.len(), scale)))
}

/// `digits` times 10^`shift`. The last digit is shifted by itself, so that what is summed is never
/// larger than the result.
fn sum(digits: &[[u8; 2]], shift: i32) -> Option<u128> {
    let Some((last, head)) = digits.split_last() else { return Some(0) };
    let power = |n: i32| usize::try_from(n).ok().and_then(|n| POWERS_OF_TEN.get(n)).copied();
    let number = |d: &[u8; 2]| u128::from(u16::from_be_bytes(*d));
    let last = match power(shift) {
        Some(power) => number(last).checked_mul(power)?,
        None => power(-shift).filter(|p| number(last) % p == 0).map(|p| number(last) / p)?,
    };
    let head =
        head.iter().try_fold(0_u128, |sum, d| sum.checked_mul(10_000)?.checked_add(number(d)))?;
    head.checked_mul(if head == 0 { 1 } else { power(shift + 4)? })?.checked_add(last)
}

/// The decimal of a text form, as [`decimal`].
pub(crate) fn decimal_of_text(text: &str, precision: u8, scale: i8) -> Result<Option<i128>> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Ok(None);
    }
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return Err(bad_value("numeric"));
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let fraction = fraction.trim_end_matches('0');
    let Some(missing) = scale.checked_sub(fraction.len()) else { return Ok(None) };
    let places = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', missing));
    let magnitude = places
        .map(|b| u128::from(b - b'0'))
        .try_fold(0_u128, |sum, place| sum.checked_mul(10)?.checked_add(place));
    Ok(magnitude.and_then(|m| signed(m, negative, precision)))
}

/// Appends the canonical text of a binary `numeric`: display scale and trailing zeros kept.
pub(crate) fn render(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let numeric = Numeric::read(v)?;
    match numeric.sign {
        NAN => out.extend_from_slice(b"NaN"),
        POSITIVE_INFINITY => out.extend_from_slice(b"Infinity"),
        NEGATIVE_INFINITY => out.extend_from_slice(b"-Infinity"),
        _ => render_finite(&numeric, out)?,
    }
    Ok(())
}

fn render_finite(numeric: &Numeric<'_>, out: &mut Vec<u8>) -> Result<()> {
    let weight = i32::from(numeric.weight);
    // The digit that counts 10000^(weight - n); zero where none was sent.
    let nth = |n: i32| match usize::try_from(n).ok().and_then(|n| numeric.digits.get(n)) {
        Some(&bytes) => digit(bytes),
        None => Ok(0),
    };
    if numeric.sign == NEGATIVE {
        out.push(b'-');
    }
    if weight < 0 {
        out.push(b'0');
    } else {
        push_leading(out, nth(0)?);
    }
    for n in 1..=weight {
        out.extend_from_slice(&places(nth(n)?));
    }
    if numeric.display_scale > 0 {
        out.push(b'.');
        let end = out.len() + usize::from(numeric.display_scale);
        for n in (weight + 1).. {
            if out.len() >= end {
                break;
            }
            out.extend_from_slice(&places(nth(n)?));
        }
        out.truncate(end);
    }
    Ok(())
}

/// A base-10000 digit without leading zeros.
fn push_leading(out: &mut Vec<u8>, digit: u16) {
    let places = places(digit);
    let zeros = places.iter().take(3).take_while(|&&b| b == b'0').count();
    out.extend_from_slice(places.get(zeros..).unwrap_or_default());
}

/// The four decimal places of a base-10000 digit.
fn places(digit: u16) -> [u8; 4] {
    [1000, 100, 10, 1].map(|power| u8::try_from(digit / power % 10).map_or(b'?', |d| b'0' + d))
}

/// The units of a `money` in text, under `lc_monetary = C`: `-$1,234.56`. Whatever the units count
/// elsewhere, two places stand behind this locale's point.
pub(crate) fn money_of_text(text: &str) -> Result<i64> {
    let bad = || bad_value("money");
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, cents) = rest.strip_prefix('$').and_then(|t| t.split_once('.')).ok_or_else(bad)?;
    if cents.len() != 2 {
        return Err(bad());
    }
    let digits = format!("{sign}{}{cents}", whole.replace(',', ""));
    digits.parse().map_err(|_| bad())
}

/// Appends the text of a binary `money` under `lc_monetary = C` (cash.c).
pub(crate) fn render_money(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let units = i64::from_be_bytes(exact(v, "money")?);
    out.extend_from_slice(if units < 0 { b"-$" } else { b"$" });
    let whole = (units.unsigned_abs() / 100).to_string();
    for (at, digit) in whole.bytes().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(b',');
        }
        out.push(digit);
    }
    out.extend_from_slice(format!(".{:02}", units.unsigned_abs() % 100).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(weight: i16, sign: u16, display_scale: u16, digits: &[u16]) -> Vec<u8> {
        let count = u16::try_from(digits.len()).unwrap();
        let head = [count, weight.cast_unsigned(), sign, display_scale];
        head.iter().chain(digits).flat_map(|n| n.to_be_bytes()).collect()
    }

    #[test]
    fn fits_exactly_or_not_at_all() {
        let v = binary(1, NEGATIVE, 2, &[1, 2345, 6700]);
        assert_eq!(decimal(&v, 7, 2).unwrap(), Some(-1_234_567));
        assert_eq!(decimal(&v, 6, 2).unwrap(), None, "too many digits before the point");
        assert_eq!(decimal(&v, 9, 1).unwrap(), None, "too many digits after the point");
        assert_eq!(decimal(&binary(0, 0, 0, &[]), 1, 0).unwrap(), Some(0));
        assert_eq!(decimal(&binary(0, 0, 0, &[999]), 3, 0).unwrap(), Some(999));
        assert_eq!(decimal(&binary(0, 0, 0, &[1000]), 3, 0).unwrap(), None);
        assert_eq!(decimal(&binary(-2, 0, 5, &[1000]), 5, 5).unwrap(), Some(1));
    }

    #[test]
    fn the_last_of_38_digits_is_kept() {
        let nines =
            binary(9, 0, 1, &[9, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9000]);
        assert_eq!(decimal(&nines, 38, 1).unwrap(), Some(10_i128.pow(38) - 1));
        let over = binary(9, 0, 1, &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9000]);
        assert_eq!(decimal(&over, 38, 1).unwrap(), None);
    }

    #[test]
    fn text_and_binary_agree() {
        assert_eq!(decimal_of_text("-12345.6700", 7, 2).unwrap(), Some(-1_234_567));
        assert_eq!(decimal_of_text("12345.678", 9, 2).unwrap(), None);
        assert_eq!(decimal_of_text("NaN", 9, 2).unwrap(), None);
        assert!(decimal_of_text("1e5", 9, 2).is_err());
        assert!(decimal_of_text("", 9, 2).is_err());
    }

    #[test]
    fn malformed_is_refused() {
        let bad = [
            binary(0, 0, 0, &[10_000]),
            binary(0, 1, 0, &[1]),
            binary(0, 0, 0x4000, &[1]),
            binary(9, 0, 0, &[1, 1, 1, 1, 1, 10_000]),
            vec![0, 9, 0, 0, 0, 0, 0, 0],
            vec![0],
        ];
        for v in bad {
            assert!(decimal(&v, 38, 0).is_err(), "{v:?}");
            assert!(render(&v, &mut Vec::new()).is_err(), "{v:?}");
        }
    }
}
