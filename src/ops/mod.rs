//! Running: shutdown, logging, the figures a person watches, and the crash points of the tests.

pub mod logging;
mod shutdown;
mod stats;
pub mod view;

pub use shutdown::Shutdown;
pub use stats::{Stats, View};

/// A named point at which the crash tests end the process as `kill -9` would. Compiled to nothing
/// without the feature `failpoints`. The names: `segment_written`, `files_written`,
/// `manifest_written`, `before_catalog_commit`, `after_catalog_commit`, `before_acknowledge`,
/// `after_acknowledge`, `snapshot_exported`, `range_begun`, `range_copied`, `refresh_copied`,
/// `refresh_adopted`.
#[inline]
pub fn crash_point(name: &str) {
    fail::fail_point!(name, |_| std::process::abort());
    let _ = name;
}

/// Whether a test has switched this failpoint on; never without the feature `failpoints`.
#[must_use]
pub fn is_failpoint_on(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}

/// Arms the crash points that the environment variable `FAILPOINTS` names (the crate `fail`:
/// `name=1*off->return` ends the process at the second pass), for as long as the process lives.
/// Does nothing without the feature `failpoints`.
pub fn arm_crash_points() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}

/// Microseconds since 1970-01-01 UTC: the one place wall time is read.
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// `us` microseconds since 1970-01-01 UTC as RFC 3339 with microseconds.
pub fn rfc3339(us: i64) -> String {
    let (days, of_day) = (us.div_euclid(86_400_000_000), us.rem_euclid(86_400_000_000));
    // Days to a date: the proleptic Gregorian calendar in eras of 400 years, each 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_827_696_000_001), "2000-02-29T12:34:56.000001Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
    }
}
