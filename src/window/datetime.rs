//! Dates and times: to days and microseconds since 1970, and to Postgres's text.
//!
//! Sources: postgres/src/backend/utils/adt/{date,timestamp,datetime}.c. On the wire, dates count
//! days and timestamps microseconds from 2000-01-01, both with the extremes of their integer as
//! infinities. Text has DateStyle ISO and TimeZone UTC.

use super::scalar::{bad_value, exact};
use super::scan::Scan;
use crate::error::Result;

const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
pub(crate) const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from 0000-03-01 to 1970-01-01, in the proleptic Gregorian calendar.
const DAYS_BEFORE_1970: i64 = 719_468;
/// Days in the 400 years after which the Gregorian calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;

/// A binary `date`; None: infinite.
#[inline(always)]
pub(crate) fn date(v: &[u8]) -> Result<Option<i32>> {
    let days = i32::from_be_bytes(exact(v, "date")?);
    let finite = Some(days).filter(|&d| d != i32::MAX && d != i32::MIN);
    Ok(finite.and_then(|d| d.checked_add(EPOCH_DAYS)))
}

/// A binary `time`; None: 24:00:00.
#[inline(always)]
pub(crate) fn time(v: &[u8]) -> Result<Option<i64>> {
    match i64::from_be_bytes(exact(v, "time")?) {
        micros @ 0..MICROS_PER_DAY => Ok(Some(micros)),
        MICROS_PER_DAY => Ok(None),
        _ => Err(bad_value("time")),
    }
}

/// A binary `timestamp` or `timestamptz`; None: infinite, or after 294247-01-10 04:00:54.775807.
#[inline(always)]
pub(crate) fn timestamp(v: &[u8]) -> Result<Option<i64>> {
    let micros = i64::from_be_bytes(exact(v, "timestamp")?);
    let finite = Some(micros).filter(|&m| m != i64::MAX && m != i64::MIN);
    Ok(finite.and_then(|m| m.checked_add(EPOCH_MICROS)))
}

/// A `date` in text, as [`date`].
pub(crate) fn date_of_text(text: &str) -> Result<Option<i32>> {
    if is_infinite(text) {
        return Ok(None);
    }
    let mut scan = Scan::new(text, "date");
    let days = scan_date(&mut scan)?.resolve(&mut scan)?;
    scan.end()?;
    Ok(i32::try_from(days).ok())
}

/// A `time` in text, as [`time`].
pub(crate) fn time_of_text(text: &str) -> Result<Option<i64>> {
    let mut scan = Scan::new(text, "time");
    let micros = scan_time(&mut scan)?;
    scan.end()?;
    match micros {
        0..MICROS_PER_DAY => Ok(Some(micros)),
        MICROS_PER_DAY => Ok(None),
        _ => Err(bad_value("time")),
    }
}

/// A `timestamp` or `timestamptz` in text, as [`timestamp`]. A zone is subtracted.
pub(crate) fn timestamp_of_text(text: &str) -> Result<Option<i64>> {
    if is_infinite(text) {
        return Ok(None);
    }
    let mut scan = Scan::new(text, "timestamp");
    let date = scan_date(&mut scan)?;
    scan.expect(b' ')?;
    let time = scan_time(&mut scan)? - scan_zone(&mut scan)?;
    let days = date.resolve(&mut scan)?;
    scan.end()?;
    Ok(days.checked_mul(MICROS_PER_DAY).and_then(|m| m.checked_add(time)))
}

pub(crate) fn is_infinite(text: &str) -> bool {
    matches!(text, "infinity" | "-infinity")
}

/// A date whose era stands at the end of the text.
struct CivilDate {
    year: i64,
    month: i64,
    day: i64,
}

impl CivilDate {
    /// Days since 1970, after the era was read.
    fn resolve(&self, scan: &mut Scan<'_>) -> Result<i64> {
        let year = if scan.eat_all(b" BC") { 1 - self.year } else { self.year };
        if !(1..=12).contains(&self.month) || !(1..=31).contains(&self.day) {
            return Err(scan.bad());
        }
        Ok(days_since_1970(year, self.month, self.day))
    }
}

fn scan_date(scan: &mut Scan<'_>) -> Result<CivilDate> {
    let year = scan.number(4, 7)?;
    scan.expect(b'-')?;
    let month = scan.number(2, 2)?;
    scan.expect(b'-')?;
    Ok(CivilDate { year, month, day: scan.number(2, 2)? })
}

/// `HH:MM:SS[.ffffff]` in microseconds.
fn scan_time(scan: &mut Scan<'_>) -> Result<i64> {
    let hours = scan.number(2, 2)?;
    Ok(hours * MICROS_PER_HOUR + scan_minutes(scan)?)
}

/// `:MM:SS[.ffffff]` in microseconds.
pub(crate) fn scan_minutes(scan: &mut Scan<'_>) -> Result<i64> {
    scan.expect(b':')?;
    let minutes = scan.number(2, 2)?;
    scan.expect(b':')?;
    let seconds = scan.number(2, 2)?;
    if minutes > 59 || seconds > 59 {
        return Err(scan.bad());
    }
    let fraction = if scan.eat(b'.') { scan.fraction()? } else { 0 };
    Ok(minutes * MICROS_PER_MINUTE + seconds * MICROS_PER_SECOND + fraction)
}

/// `[+-]HH[:MM[:SS]]` in microseconds east; 0 where there is none.
fn scan_zone(scan: &mut Scan<'_>) -> Result<i64> {
    let sign = match (scan.eat(b'+'), scan.eat(b'-')) {
        (true, _) => 1,
        (_, true) => -1,
        _ => return Ok(0),
    };
    let mut micros = scan.number(2, 2)? * MICROS_PER_HOUR;
    for unit in [MICROS_PER_MINUTE, MICROS_PER_SECOND] {
        if scan.eat(b':') {
            micros += scan.number(2, 2)? * unit;
        }
    }
    Ok(sign * micros)
}

/// The civil calendar by counting from March of year 0: Howard Hinnant's "chrono-compatible
/// low-level date algorithms".
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - DAYS_BEFORE_1970
}

/// The reverse of [`days_since_1970`]: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = (from_march + 2) % 12 + 1;
    let next_year = i64::from(month <= 2);
    (year + era * 400 + next_year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

/// Appends the text of a binary `date`.
pub(crate) fn render_date(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match i32::from_be_bytes(exact(v, "date")?) {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        days => {
            let before_christ = push_date(out, i64::from(days) + i64::from(EPOCH_DAYS));
            out.extend_from_slice(if before_christ { b" BC" } else { b"" });
        }
    }
    Ok(())
}

/// Appends the text of a binary `time`.
pub(crate) fn render_time(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let micros = u64::from_be_bytes(exact(v, "time")?);
    if micros > MICROS_PER_DAY.unsigned_abs() {
        return Err(bad_value("time"));
    }
    push_time(out, micros);
    Ok(())
}

/// Appends the text of a binary `timetz`: microseconds, then the zone in seconds *west*.
pub(crate) fn render_timetz(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let (time, zone) = v.split_at_checked(8).ok_or_else(|| bad_value("timetz"))?;
    let west = i32::from_be_bytes(exact(zone, "timetz")?);
    render_time(time, out)?;
    out.push(if west <= 0 { b'+' } else { b'-' });
    let seconds = u64::from(west.unsigned_abs());
    push_number(out, seconds / 3600, 2);
    if seconds % 3600 != 0 {
        out.push(b':');
        push_number(out, seconds / 60 % 60, 2);
    }
    if seconds % 60 != 0 {
        out.push(b':');
        push_number(out, seconds % 60, 2);
    }
    Ok(())
}

/// Appends the text of a binary `timestamp`, or of a `timestamptz` with its `zone`.
pub(crate) fn render_timestamp(v: &[u8], zone: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match i64::from_be_bytes(exact(v, "timestamp")?) {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        micros => {
            let days = micros.div_euclid(MICROS_PER_DAY) + i64::from(EPOCH_DAYS);
            let before_christ = push_date(out, days);
            out.push(b' ');
            push_time(out, micros.rem_euclid(MICROS_PER_DAY).unsigned_abs());
            out.extend_from_slice(zone);
            out.extend_from_slice(if before_christ { b" BC" } else { b"" });
        }
    }
    Ok(())
}

/// Appends year, month and day; whether the year is before Christ, which stands at the very end.
fn push_date(out: &mut Vec<u8>, days: i64) -> bool {
    let (year, month, day) = civil(days);
    let before_christ = year <= 0;
    push_number(out, if before_christ { 1 - year } else { year }.unsigned_abs(), 4);
    out.push(b'-');
    push_number(out, month.unsigned_abs(), 2);
    out.push(b'-');
    push_number(out, day.unsigned_abs(), 2);
    before_christ
}

/// Appends `HH:MM:SS` and a fraction without trailing zeros.
pub(crate) fn push_time(out: &mut Vec<u8>, micros: u64) {
    let seconds = micros / 1_000_000;
    push_number(out, seconds / 3600, 2);
    out.push(b':');
    push_number(out, seconds / 60 % 60, 2);
    out.push(b':');
    push_number(out, seconds % 60, 2);
    if !micros.is_multiple_of(1_000_000) {
        out.push(b'.');
        push_number(out, micros % 1_000_000, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Appends `number` with at least `width` places.
fn push_number(out: &mut Vec<u8>, number: u64, width: usize) {
    out.extend_from_slice(format!("{number:0width$}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(render: impl Fn(&mut Vec<u8>) -> Result<()>) -> String {
        let mut out = Vec::new();
        render(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_calendar_runs_both_ways() {
        for days in (-2_500_000..2_200_000).step_by(37) {
            let (year, month, day) = civil(days);
            assert_eq!(days_since_1970(year, month, day), days);
        }
        assert_eq!(civil(0), (1970, 1, 1));
    }

    // cases: 37 holds
    #[test]
    fn timestamps_that_overflow_are_not_wrapped() {
        let last = i64::MAX - EPOCH_MICROS;
        assert_eq!(timestamp(&last.to_be_bytes()).unwrap(), Some(i64::MAX));
        assert_eq!(timestamp(&(last + 1).to_be_bytes()).unwrap(), None);
        let rendered = text(|out| render_timestamp(&(last + 1).to_be_bytes(), b"", out));
        assert_eq!(rendered, "294247-01-10 04:00:54.775808");
        assert_eq!(timestamp_of_text(&rendered).unwrap(), None);
        assert_eq!(timestamp_of_text("294247-01-10 04:00:54.775807").unwrap(), Some(i64::MAX));
    }

    #[test]
    fn zones_are_subtracted() {
        let at = |s| timestamp_of_text(s).unwrap().unwrap();
        assert_eq!(at("1970-01-01 00:00:00+00"), 0);
        assert_eq!(at("1970-01-01 05:30:15+05:30:15"), 0);
        assert_eq!(at("1969-12-31 23:00:00.5-01"), 500_000);
    }

    #[test]
    fn every_timestamp_has_a_text() {
        for micros in [i64::MIN + 1, i64::MAX - 1, -1, 0] {
            assert!(
                text(|out| render_timestamp(&micros.to_be_bytes(), b"+00", out)).contains("+00")
            );
        }
        assert!(render_time(&(MICROS_PER_DAY + 1).to_be_bytes(), &mut Vec::new()).is_err());
        assert_eq!(time(&MICROS_PER_DAY.to_be_bytes()).unwrap(), None);
    }

    #[test]
    fn malformed_texts_are_refused() {
        for bad in ["", "1", "2024-13-01", "2024-01-01x", "24-01-01", "2024-01-01 00:00:61"] {
            assert!(date_of_text(bad).is_err(), "{bad}");
            assert!(timestamp_of_text(bad).is_err(), "{bad}");
        }
        assert!(time_of_text("25:00:00").is_err());
    }
}
