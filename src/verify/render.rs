//! Lake values as Postgres writes them, by code of its own.
//!
//! Source of the rules: Postgres manual, "Data Types"; the output functions of date, timestamp and
//! interval with `DateStyle` ISO, `IntervalStyle` postgres and `TimeZone` UTC.

use std::io::Write;

const DAY_US: i64 = 86_400_000_000;

/// `2026-11-25`, `0044-03-15 BC`; days since 1970.
pub(super) fn date(days: i64, into: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    let shown = if year > 0 { year } else { 1 - year };
    put(into, format_args!("{shown:04}-{month:02}-{day:02}"));
    if year <= 0 {
        put(into, format_args!(" BC"));
    }
}

/// `2026-11-25 10:00:00.5`; microseconds since 1970. `zone` is `+00` or nothing.
pub(super) fn timestamp(us: i64, zone: &str, into: &mut Vec<u8>) {
    let (days, of_day) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let (year, month, day) = civil(days);
    let shown = if year > 0 { year } else { 1 - year };
    put(into, format_args!("{shown:04}-{month:02}-{day:02} "));
    time(of_day, into);
    put(into, format_args!("{zone}{}", if year > 0 { "" } else { " BC" }));
}

/// `10:00:00.5`; microseconds since midnight.
pub(super) fn time(us: i64, into: &mut Vec<u8>) {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    put(into, format_args!("{hour:02}:{minute:02}:{second:02}"));
    fraction_of(fraction.unsigned_abs(), into);
}

/// `1 year 2 mons -3 days +04:05:06.7`.
pub(super) fn interval(months: i32, days: i32, us: i64, into: &mut Vec<u8>) {
    let (mut is_first, mut was_negative) = (true, false);
    let parts = [(months / 12, "year"), (months % 12, "mon"), (days, "day")];
    for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
        let space = if is_first { "" } else { " " };
        let plus = if was_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        put(into, format_args!("{space}{plus}{value} {unit}{plural}"));
        (is_first, was_negative) = (false, value < 0);
    }
    if is_first || us != 0 {
        let space = if is_first { "" } else { " " };
        let sign = match (us < 0, was_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let (seconds, fraction) = (us.unsigned_abs() / 1_000_000, us.unsigned_abs() % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        put(into, format_args!("{space}{sign}{hour:02}:{minute:02}:{second:02}"));
        fraction_of(fraction, into);
    }
}

/// ISO 8601 from Postgres's own text: `P1Y2M-3DT4H5M6.7S` from `1 year 2 mons -3 days +04:05:06.7`.
/// Infinite ones stay as they are; `None` where the text is no interval.
pub(super) fn iso_interval(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(text).ok()?;
    if text.ends_with("infinity") {
        into.extend_from_slice(text.as_bytes());
        return Some(());
    }
    let (mut day_part, mut time_part) = (String::new(), String::new());
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        let unit = match word.contains(':') {
            true => {
                time_part = iso_time(word)?;
                continue;
            }
            false => words.next()?,
        };
        let letter = match unit.trim_end_matches('s') {
            "year" => 'Y',
            "mon" => 'M',
            "day" => 'D',
            _ => return None,
        };
        day_part.extend(word.trim_start_matches('+').chars().chain([letter]));
    }
    match (day_part.as_str(), time_part.as_str()) {
        ("", "") => put(into, format_args!("PT0S")),
        (days, "") => put(into, format_args!("P{days}")),
        (days, time) => put(into, format_args!("P{days}T{time}")),
    }
    Some(())
}

/// `-04:05:06.7` as `-4H-5M-6.7S`: what is zero is left out.
fn iso_time(text: &str) -> Option<String> {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let mut parts = text.trim_start_matches(['-', '+']).split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let number = |text: &str| text.parse::<u64>().ok();
    let mut iso = String::new();
    for (value, letter) in [(number(hours)?, 'H'), (number(minutes)?, 'M')] {
        if value > 0 {
            iso.push_str(&format!("{sign}{value}{letter}"));
        }
    }
    match (number(seconds)?, fraction) {
        (0, "") => {}
        (seconds, "") => iso.push_str(&format!("{sign}{seconds}S")),
        (seconds, fraction) => iso.push_str(&format!("{sign}{seconds}.{fraction}S")),
    }
    Some(iso)
}

/// A decimal without the zeros that end its fraction: see [`trim_fraction`].
pub(super) fn decimal(unscaled: i128, scale: usize, into: &mut Vec<u8>) {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    put(into, format_args!("{sign}{whole}{point}{fraction}"));
}

/// What a numeric's text is without the zeros that end its fraction: a column's scale is fixed, so
/// they say nothing.
pub(super) fn trim_fraction(text: &[u8]) -> &[u8] {
    if !text.contains(&b'.') {
        return text;
    }
    let end = text.iter().rposition(|&byte| byte != b'0').map_or(0, |last| last + 1);
    let kept = text.get(..end).unwrap_or(text);
    kept.strip_suffix(b".").unwrap_or(kept)
}

/// `\x0aff`
pub(super) fn bytea(value: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(b"\\x");
    hex(value, into);
}

/// `01234567-89ab-cdef-0123-456789abcdef`
pub(super) fn uuid(value: &[u8], into: &mut Vec<u8>) {
    let mut rest = value;
    for (nth, length) in [4, 2, 2, 2, 6].into_iter().enumerate() {
        if nth > 0 {
            into.push(b'-');
        }
        let (part, after) = rest.split_at(length.min(rest.len()));
        hex(part, into);
        rest = after;
    }
}

/// `0aff`
pub(super) fn hex(value: &[u8], into: &mut Vec<u8>) {
    into.reserve(value.len() * 2);
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    for byte in value {
        into.push(digit(byte >> 4));
        into.push(digit(byte & 15));
    }
}

fn fraction_of(us: u64, into: &mut Vec<u8>) {
    if us > 0 {
        let digits = format!("{us:06}");
        put(into, format_args!(".{}", digits.trim_end_matches('0')));
    }
}

/// Year (0 is 1 BC), month and day in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day ends a year; 400 years are 146,097 days.
    let days = days + 719_468;
    let (cycle, of_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_cycle =
        (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_cycle + cycle * 400 + i64::from(month <= 2), month, day)
}

/// Writing into memory cannot fail.
pub(super) fn put(into: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = into.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(render: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut into = Vec::new();
        render(&mut into);
        String::from_utf8(into).unwrap()
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(text(|i| date(0, i)), "1970-01-01");
        assert_eq!(text(|i| date(-719_162, i)), "0001-01-01");
        assert_eq!(text(|i| date(-719_163, i)), "0001-12-31 BC");
        assert_eq!(text(|i| timestamp(-1, "+00", i)), "1969-12-31 23:59:59.999999+00");
        assert_eq!(text(|i| time(500_000, i)), "00:00:00.5");
    }

    #[test]
    fn intervals() {
        assert_eq!(text(|i| interval(0, 0, 0, i)), "00:00:00");
        assert_eq!(text(|i| interval(14, -3, 3_600_000_000, i)), "1 year 2 mons -3 days +01:00:00");
        assert_eq!(text(|i| interval(-1, 1, -1, i)), "-1 mons +1 day -00:00:00.000001");
    }

    #[test]
    fn intervals_in_iso() {
        let iso = |of: &str| text(|i| iso_interval(of.as_bytes(), i).unwrap());
        assert_eq!(iso("1 year 2 mons -3 days +04:05:06.7"), "P1Y2M-3DT4H5M6.7S");
        assert_eq!(iso("-1 years -1 mons +1 day -00:00:00.000001"), "P-1Y-1M1DT-0.000001S");
        assert_eq!(
            (iso("00:00:00"), iso("1 day"), iso("100:00:00")),
            ("PT0S".into(), "P1D".into(), "PT100H".into())
        );
        assert!(iso_interval(b"1 week", &mut Vec::new()).is_none());
    }

    #[test]
    fn decimals() {
        assert_eq!(text(|i| decimal(-5, 2, i)), "-0.05");
        assert_eq!(text(|i| decimal(1200, 2, i)), "12");
        assert_eq!(text(|i| decimal(1200, 0, i)), "1200");
        assert_eq!(trim_fraction(b"12.00"), b"12");
        assert_eq!(trim_fraction(b"1200"), b"1200");
        assert_eq!(trim_fraction(b"-0.050"), b"-0.05");
    }
}
