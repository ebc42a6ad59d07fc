//! When a window closes: soon while the source is quiet, late while the lake is behind.
//!
//! Lake commits are at least `commit.interval` apart. A source transaction that comes after a
//! longer silence is committed almost at once: the lake changes no more often for it. While the
//! server sends what was committed long ago, windows grow to several intervals: fewer lake commits
//! and fewer files for the same rows. A window of [`SEGMENTS_MAX`] segments is closed in any case.

use std::time::Duration;

use tokio::time::Instant;

use super::intake::TransactionEnd;

/// How long a window stays open for what comes together with its first source transaction.
const SETTLE: Duration = Duration::from_millis(20);
/// A source transaction that is sent this many intervals after its commit means: behind.
const BEHIND: u32 = 2;
/// Intervals that a window takes then.
const BEHIND_INTERVALS: u32 = 6;
/// Segments of a window that is closed without regard to its age: 1 GiB of raw WAL.
const SEGMENTS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Rhythm {
    interval: Duration,
    /// When the window before was closed; at first the start.
    closed: Instant,
    is_behind: bool,
    is_hurried: bool,
}

impl Rhythm {
    /// At the start, with `commit.interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, closed: Instant::now(), is_behind: false, is_hurried: false }
    }

    /// For the next window: this one is closed now.
    pub(crate) fn next(&self) -> Self {
        Self { closed: Instant::now(), ..self.clone() }
    }

    /// From now on windows are due at once.
    pub(crate) fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// Takes note of how late the server sent this; both times are by its clock.
    pub(crate) fn note(&mut self, end: &TransactionEnd) {
        let late_us = end.sent_us.saturating_sub(end.commit_time_us).max(0);
        let late = Duration::from_micros(late_us.unsigned_abs());
        self.is_behind = late >= self.interval.saturating_mul(BEHIND);
    }

    /// When the window is due whose first source transaction came at `opened`.
    pub(crate) fn due_at(&self, opened: Instant, segments: usize) -> Instant {
        if self.is_hurried || segments >= SEGMENTS_MAX {
            return opened;
        }
        let intervals = if self.is_behind { BEHIND_INTERVALS } else { 1 };
        // Beyond what the clock can tell is as good as never: a day later it is asked again.
        let never = Duration::from_secs(86_400);
        let apart = self.interval.saturating_mul(intervals).min(never);
        (self.closed + apart).max(opened + SETTLE.min(self.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Lsn;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn sent(late: Duration) -> TransactionEnd {
        let sent_us = 1_000_000_000 + i64::try_from(late.as_micros()).unwrap();
        let commit_time_us = 1_000_000_000;
        TransactionEnd { end_lsn: Lsn(1), commit_time_us, sent_us, is_wanted: true }
    }

    #[test]
    fn lake_commits_are_an_interval_apart() {
        let rhythm = Rhythm::new(INTERVAL);
        let opened = rhythm.closed + Duration::from_secs(1);
        assert_eq!(rhythm.due_at(opened, 1), rhythm.closed + INTERVAL);
    }

    #[test]
    fn after_a_silence_a_change_does_not_wait() {
        let rhythm = Rhythm::new(INTERVAL);
        let opened = rhythm.closed + Duration::from_secs(60);
        assert_eq!(rhythm.due_at(opened, 1), opened + SETTLE);
    }

    #[test]
    fn windows_are_larger_while_behind_and_then_no_longer() {
        let mut rhythm = Rhythm::new(INTERVAL);
        let opened = rhythm.closed;
        rhythm.note(&sent(Duration::from_secs(60)));
        assert_eq!(rhythm.due_at(opened, 1), rhythm.closed + INTERVAL * 6);
        assert_eq!(rhythm.due_at(opened, SEGMENTS_MAX), opened);
        rhythm.note(&sent(Duration::from_secs(1)));
        assert_eq!(rhythm.due_at(opened, 1), rhythm.closed + INTERVAL);
        // A clock that was set back.
        rhythm.note(&TransactionEnd { sent_us: 0, ..sent(Duration::ZERO) });
        assert!(!rhythm.is_behind);
    }

    #[test]
    fn any_interval_is_good() {
        let mut rhythm = Rhythm::new(Duration::MAX);
        let opened = rhythm.closed;
        assert!(rhythm.due_at(opened, 1) > opened + Duration::from_secs(3600));
        rhythm.hurry();
        assert_eq!(rhythm.due_at(opened, 1), opened);
    }
}
