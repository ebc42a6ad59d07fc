//! Intervals: to months, days and microseconds, and to Postgres's text with IntervalStyle postgres.
//!
//! Source: postgres/src/backend/utils/adt/{timestamp,datetime}.c. The extremes of all three parts
//! together are infinities since Postgres 17; before, they were one finite value each, which
//! pg_upgrade turns into infinity as well. They are taken as infinities from any server.

use super::datetime::{MICROS_PER_HOUR, MICROS_PER_MINUTE, is_infinite, push_time, scan_minutes};
use super::scalar::{bad_value, exact};
use super::scan::Scan;
use crate::error::Result;

/// The three parts that Postgres keeps apart, because a month has no fixed days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

impl Interval {
    /// All parts at their largest is infinite, from Postgres 17 on.
    const INFINITY: Self = Self { months: i32::MAX, days: i32::MAX, micros: i64::MAX };
    const NEGATIVE_INFINITY: Self = Self { months: i32::MIN, days: i32::MIN, micros: i64::MIN };

    /// A binary `interval`: microseconds, days, months.
    fn read(v: &[u8]) -> Result<Self> {
        let (micros, rest) = v.split_at_checked(8).ok_or_else(|| bad_value("interval"))?;
        let (days, months) = rest.split_at_checked(4).ok_or_else(|| bad_value("interval"))?;
        Ok(Self {
            months: i32::from_be_bytes(exact(months, "interval")?),
            days: i32::from_be_bytes(exact(days, "interval")?),
            micros: i64::from_be_bytes(exact(micros, "interval")?),
        })
    }

    fn is_infinite(self) -> bool {
        self == Self::INFINITY || self == Self::NEGATIVE_INFINITY
    }
}

/// A binary `interval`; None: infinite.
#[inline(always)]
pub(crate) fn interval(v: &[u8]) -> Result<Option<Interval>> {
    Ok(Some(Interval::read(v)?).filter(|i| !i.is_infinite()))
}

/// An `interval` in text, as [`interval`]: `1 year -2 mons +3 days -04:05:06.7`.
pub(crate) fn interval_of_text(text: &str) -> Result<Option<Interval>> {
    if is_infinite(text) {
        return Ok(None);
    }
    let bad = || bad_value("interval");
    let (mut months, mut days, mut micros) = (0_i128, 0_i128, 0_i128);
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            micros = interval_time(word)?;
            continue;
        }
        let count = i128::from(word.parse::<i32>().map_err(|_| bad())?);
        match words.next().unwrap_or_default().trim_end_matches('s') {
            "year" => months += count * 12,
            "mon" => months += count,
            "day" => days += count,
            _ => return Err(bad()),
        }
    }
    let part = |n: i128| i32::try_from(n).map_err(|_| bad());
    let micros = i64::try_from(micros).map_err(|_| bad())?;
    Ok(Some(Interval { months: part(months)?, days: part(days)?, micros }))
}

/// `[+-]HH:MM:SS[.ffffff]`, with as many hours as 64 bits of microseconds have.
fn interval_time(word: &str) -> Result<i128> {
    let mut scan = Scan::new(word, "interval");
    let negative = scan.eat(b'-');
    scan.eat(b'+');
    let hours = i128::from(scan.number(2, 10)?);
    let micros = hours * i128::from(MICROS_PER_HOUR) + i128::from(scan_minutes(&mut scan)?);
    scan.end()?;
    Ok(if negative { -micros } else { micros })
}

/// Appends the text of a binary `interval` (datetime.c, `EncodeInterval`).
pub(crate) fn render_interval(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let interval = Interval::read(v)?;
    match interval {
        Interval::INFINITY => out.extend_from_slice(b"infinity"),
        Interval::NEGATIVE_INFINITY => out.extend_from_slice(b"-infinity"),
        _ => push_interval(out, interval),
    }
    Ok(())
}

/// Appends a binary `interval` as IntervalStyle iso_8601 has it: `P1Y-2M3DT-4H-5M-6.7S`.
pub(crate) fn iso_8601(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let interval = Interval::read(v)?;
    match interval {
        Interval::INFINITY => out.extend_from_slice(b"infinity"),
        Interval::NEGATIVE_INFINITY => out.extend_from_slice(b"-infinity"),
        _ => push_iso_8601(out, interval),
    }
    Ok(())
}

/// As [`iso_8601`], from the text form.
pub(crate) fn iso_8601_of_text(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let text = str::from_utf8(text).map_err(|_| bad_value("interval"))?;
    match interval_of_text(text)? {
        Some(interval) => push_iso_8601(out, interval),
        None => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

fn push_iso_8601(out: &mut Vec<u8>, interval: Interval) {
    let Interval { months, days, micros } = interval;
    if (months, days, micros) == (0, 0, 0) {
        return out.extend_from_slice(b"PT0S");
    }
    let part = |out: &mut Vec<u8>, count: i64, unit: char| {
        if count != 0 {
            out.extend_from_slice(format!("{count}{unit}").as_bytes());
        }
    };
    out.push(b'P');
    part(out, i64::from(months / 12), 'Y');
    part(out, i64::from(months % 12), 'M');
    part(out, i64::from(days), 'D');
    if micros == 0 {
        return;
    }
    out.push(b'T');
    part(out, micros / MICROS_PER_HOUR, 'H');
    let rest = micros % MICROS_PER_HOUR;
    part(out, rest / MICROS_PER_MINUTE, 'M');
    let rest = rest % MICROS_PER_MINUTE;
    if rest != 0 {
        let sign = if rest < 0 { "-" } else { "" };
        let rest = rest.unsigned_abs();
        let text = format!("{sign}{}.{:06}", rest / 1_000_000, rest % 1_000_000);
        out.extend_from_slice(text.trim_end_matches('0').trim_end_matches('.').as_bytes());
        out.push(b'S');
    }
}

fn push_interval(out: &mut Vec<u8>, interval: Interval) {
    let Interval { months, days, micros } = interval;
    // A positive part after a negative one needs its sign, or it would be read as negative.
    let (mut first, mut after_negative) = (true, false);
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count == 0 {
            continue;
        }
        let space = if first { "" } else { " " };
        let plus = if after_negative && count > 0 { "+" } else { "" };
        let plural = if count == 1 { "" } else { "s" };
        out.extend_from_slice(format!("{space}{plus}{count} {unit}{plural}").as_bytes());
        (first, after_negative) = (false, count < 0);
    }
    if first || micros != 0 {
        out.extend_from_slice(if first { b"" } else { b" " });
        match (micros < 0, after_negative) {
            (true, _) => out.push(b'-'),
            (_, true) => out.push(b'+'),
            _ => {}
        }
        push_time(out, micros.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_intervals_are_not_numbers() {
        let mut v = Vec::from(i64::MIN.to_be_bytes());
        v.extend_from_slice(&i32::MIN.to_be_bytes());
        v.extend_from_slice(&i32::MIN.to_be_bytes());
        assert_eq!(interval(&v).unwrap(), None);
        let mut out = Vec::new();
        render_interval(&v, &mut out).unwrap();
        assert_eq!(out, b"-infinity");
        assert_eq!(interval_of_text("-infinity").unwrap(), None);
    }

    #[test]
    fn malformed_texts_are_refused() {
        for bad in ["", "1", "1 week", "year", "1 year 00:00", "99999999999 days"] {
            assert!(interval_of_text(bad).is_err(), "{bad}");
        }
    }
}
