//! The rule `clamp`: the nearest value that a column can hold.
//!
//! Dates and timestamps come to stand within the years 1 to 9999, which every reader knows.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_schema::DataType;

use super::array::ArrayText;
use super::relation::PgType;

/// Days since 1970 of 0001-01-01 and 9999-12-31.
const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;
/// Microseconds since 1970 of their first and last microsecond.
const MICROS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The Postgres text of the value nearest to the one in `text`, which a column of type `t` can't
/// hold. `None`, where there is no such value.
pub(crate) fn nearest(t: &PgType, text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?;
    let negative = text.starts_with('-');
    let pick = |low: &str, high: &str| Some(if negative { low } else { high }.as_bytes().to_vec());
    match t {
        PgType::Date => pick("0001-01-01", "9999-12-31"),
        PgType::Timestamp => pick("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"),
        PgType::TimestampTz => pick("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
        PgType::Time => pick("00:00:00", "23:59:59.999999"),
        // All parts at their largest would be infinity.
        PgType::Interval => pick(
            "-178956970 years -8 mons -2147483648 days -2562047788:00:54.775807",
            "178956970 years 7 mons 2147483647 days 2562047788:00:54.775806",
        ),
        &PgType::Numeric { precision, scale } => decimal(text, precision.into(), scale),
        PgType::Array(element) => list(element, text.as_bytes()),
        _ => None,
    }
}

/// How many of the dates or timestamps in `array` are outside of the years 1 to 9999.
pub(crate) fn outside(array: &ArrayRef) -> u64 {
    let count = match array.data_type() {
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>().values();
            values.iter().filter(|days| !DAYS.contains(days)).count()
        }
        DataType::Timestamp(..) => {
            let values = array.as_primitive::<TimestampMicrosecondType>().values();
            values.iter().filter(|micros| !MICROS.contains(micros)).count()
        }
        _ => 0,
    };
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The same dates or timestamps, those outside of the years 1 to 9999 moved there.
pub(crate) fn inside(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            Arc::new(days.unary::<_, Date32Type>(|days| days.clamp(*DAYS.start(), *DAYS.end())))
        }
        DataType::Timestamp(..) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>();
            let clamped = micros.unary::<_, TimestampMicrosecondType>(|micros| {
                micros.clamp(*MICROS.start(), *MICROS.end())
            });
            Arc::new(clamped.with_data_type(array.data_type().clone()))
        }
        _ => Arc::clone(array),
    }
}

/// Rounded half away from zero to `scale` places, then to the largest of `precision` digits.
fn decimal(text: &str, precision: usize, scale: i8) -> Option<Vec<u8>> {
    let scale = usize::try_from(scale).unwrap_or(0);
    let (sign, magnitude) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let largest = "9".repeat(precision);
    let digits = match magnitude {
        "NaN" => return None,
        "Infinity" => largest,
        _ => {
            let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
            let kept = fraction.get(..scale.min(fraction.len()))?;
            let mut digits = format!("{whole}{kept:0<scale$}").into_bytes();
            if fraction.as_bytes().get(scale).is_some_and(|next| *next >= b'5') {
                increment(&mut digits);
            }
            let digits = String::from_utf8(digits).ok()?;
            let digits = digits.trim_start_matches('0');
            if digits.len() > precision { largest } else { digits.to_owned() }
        }
    };
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at_checked(digits.len() - scale)?;
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}").into_bytes())
}

/// Adds one to decimal digits.
fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

/// A list whose elements are clamped, those that need it.
fn list(element: &PgType, text: &[u8]) -> Option<Vec<u8>> {
    let array = ArrayText::read(text, element.delimiter()).ok()?;
    array.shape(1)?;
    let mut out = vec![b'{'];
    for (n, value) in array.elements.iter().enumerate() {
        if n > 0 {
            out.push(element.delimiter());
        }
        let Some(value) = value else {
            out.extend_from_slice(b"NULL");
            continue;
        };
        let fits = fits(element, value);
        let value = if fits { value.clone() } else { nearest(element, value)? };
        out.push(b'"');
        out.extend_from_slice(&value);
        out.push(b'"');
    }
    out.push(b'}');
    Some(out)
}

/// Whether a column of type `t` can hold the value.
fn fits(t: &PgType, text: &[u8]) -> bool {
    use super::store::{AnyStore, Store};
    AnyStore::new(t).text(text).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clamped(t: &PgType, text: &str) -> Option<String> {
        nearest(t, text.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn numbers_go_to_the_nearest() {
        let t = PgType::Numeric { precision: 5, scale: 2 };
        let cases = [
            ("1.005", "1.01"),
            ("-1.005", "-1.01"),
            ("0.004", "0.00"),
            ("999.994", "999.99"),
            ("999.995", "999.99"),
            ("-1234.5", "-999.99"),
            ("Infinity", "999.99"),
            ("-Infinity", "-999.99"),
            ("9.999", "10.00"),
        ];
        for (text, expected) in cases {
            assert_eq!(clamped(&t, text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(clamped(&t, "NaN"), None);
        let whole = PgType::Numeric { precision: 2, scale: 0 };
        assert_eq!(clamped(&whole, "98.5").as_deref(), Some("99"));
        let small = PgType::Numeric { precision: 2, scale: 2 };
        assert_eq!(clamped(&small, "0.018").as_deref(), Some("0.02"));
        assert_eq!(clamped(&small, "1").as_deref(), Some("0.99"));
    }

    #[test]
    fn lists_keep_what_fits() {
        let t = PgType::Array(Box::new(PgType::Date));
        let list = clamped(&t, "{2000-01-01,NULL,-infinity}");
        assert_eq!(list.as_deref(), Some(r#"{"2000-01-01",NULL,"0001-01-01"}"#));
        assert_eq!(clamped(&t, "[0:0]={infinity}"), None);
        assert_eq!(clamped(&PgType::Int4, "1"), None);
    }
}
