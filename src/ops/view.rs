//! The live view of a run: a progress bar while tables are copied, then one line with rate, lag and
//! the last lake commit. Without a terminal: a log line now and then.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Stats, View, now_us};
use crate::progress::Lsn;

/// How often the figures are looked at, and the live view is drawn.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// How often a log line says how far it is, without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How many looks are remembered while the lake stands still; the oldest count.
const SAMPLES_MAX: usize = 4_096;
/// The time a rate is taken over; lake commits come every few seconds.
const RATE_OVER: Duration = Duration::from_secs(10);

const COPYING: &str =
    "{spinner} copying [{bar:24}] {human_pos} of about {human_len} rows, {wide_msg}";
const FOLLOWING: &str = "{spinner} {wide_msg}";

/// Standard error as the bar leaves it; hidden where it is no terminal.
static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Standard error for one log line: the live view makes room, and is drawn again below it.
pub fn log_writer() -> io::Stderr {
    // Only a terminal that went away can fail here, and then there is nothing to clear.
    let _ = SCREEN.clear();
    io::stderr()
}

/// Writes `text` to standard output without tearing the live view.
pub fn print(text: &str) -> io::Result<()> {
    SCREEN.suspend(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    })
}

/// The live view; it ends when this is dropped.
#[derive(Debug)]
pub struct Live {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

impl Live {
    /// Shows `stats`: drawn where `on_terminal`, else in log lines.
    pub fn start(stats: Arc<Stats>, on_terminal: bool) -> Self {
        let bar = if on_terminal {
            SCREEN.add(ProgressBar::new(0).with_style(style(FOLLOWING)))
        } else {
            ProgressBar::hidden()
        };
        let task = if on_terminal {
            tokio::spawn(draw(stats, bar.clone()))
        } else {
            tokio::spawn(log(stats))
        };
        Self { task, bar }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
        SCREEN.remove(&self.bar);
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ")
}

async fn draw(stats: Arc<Stats>, bar: ProgressBar) {
    let (mut pace, mut rate, mut lag) = (CopyPace::default(), Rate::default(), Lag::default());
    let mut copying = false;
    loop {
        let (view, now) = (stats.view(), now_us());
        let lag_us = lag.of(&view, now);
        let copied = pace.of(&view, Instant::now());
        let was_copying = std::mem::replace(&mut copying, is_first_copy(&view));
        if copying {
            bar.set_message(copied.as_text(&view));
            if !was_copying {
                bar.reset();
                bar.set_style(style(COPYING));
            }
            bar.set_length(view.rows_to_copy.max(view.rows_copied));
            bar.set_position(view.rows_copied);
        } else {
            if was_copying {
                bar.set_style(style(FOLLOWING));
            }
            let rate = rate.of(view.changes, Instant::now());
            let mut line = following(&view, rate, lag_us, now);
            if view.is_copying {
                let (rows, of) = (HumanCount(view.rows_copied), HumanCount(view.rows_to_copy));
                line.push_str(&format!(
                    " | copying {rows} of about {of} rows, {}",
                    copied.as_text(&view)
                ));
            }
            bar.set_message(line);
            bar.tick();
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

async fn log(stats: Arc<Stats>) {
    let (mut pace, mut rate, mut lag) = (CopyPace::default(), Rate::default(), Lag::default());
    let mut said = Instant::now();
    loop {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let (view, now) = (stats.view(), now_us());
        let lag_us = lag.of(&view, now);
        let copied = pace.of(&view, Instant::now());
        if said.elapsed() < line_every() {
            continue;
        }
        said = Instant::now();
        if view.is_copying {
            tracing::info!(
                rows = view.rows_copied,
                of_about = view.rows_to_copy,
                rows_per_second = copied.rows_per_second,
                bytes = %ByteSize(view.bytes_copied),
                bytes_per_second = %ByteSize(copied.bytes_per_second),
                eta = %copied.eta_text(),
                snapshot_age = view.snapshot_age,
                retained_wal = %ByteSize(view.snapshot_retained_wal_bytes),
                "copying"
            );
        }
        if view.lake_commits > 0 {
            tracing::info!(
                rows = view.changes,
                rows_per_second = rate.of(view.changes, said),
                lag = %seconds(lag_us),
                lag_bytes = view.lag_bytes(),
                lake_commits = view.lake_commits,
                position = %view.committed_lsn,
                committed_ago = %seconds(now - view.committed_at_us),
                "following"
            );
        }
    }
}

/// [`LINE_EVERY`], or the milliseconds that a test asks for by the fail point `line_every_ms`.
fn line_every() -> Duration {
    fail::fail_point!("line_every_ms", |ms| {
        ms.and_then(|ms| ms.parse().ok()).map_or(LINE_EVERY, Duration::from_millis)
    });
    LINE_EVERY
}

/// Whether nothing is in the lake yet, so that the copy is all there is to see.
fn is_first_copy(view: &View) -> bool {
    view.lake_commits == 0 && view.is_copying
}

/// How fast a copy is.
#[derive(Debug, Default)]
struct CopyPace {
    rows: Rate,
    bytes: Rate,
}

/// What there is to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CopyRate {
    rows_per_second: u64,
    bytes_per_second: u64,
    /// Until its end, at this rate; not known while it stands still.
    eta: Option<Duration>,
}

impl CopyPace {
    fn of(&mut self, view: &View, now: Instant) -> CopyRate {
        if !view.is_copying {
            *self = Self::default();
        }
        let rows_per_second = self.rows.of(view.rows_copied, now);
        let bytes_per_second = self.bytes.of(view.bytes_copied, now);
        let rows_left = view.rows_to_copy.saturating_sub(view.rows_copied);
        let eta = rows_left.checked_div(rows_per_second).map(Duration::from_secs);
        CopyRate { rows_per_second, bytes_per_second, eta }
    }
}

impl CopyRate {
    fn eta_text(&self) -> String {
        self.eta.map_or("unknown".to_owned(), |eta| humantime::format_duration(eta).to_string())
    }

    fn as_text(&self, view: &View) -> String {
        format!(
            "{} rows/s, {} at {}/s, ETA {}, holds back {} source transactions and {} of WAL",
            HumanCount(self.rows_per_second),
            ByteSize(view.bytes_copied),
            ByteSize(self.bytes_per_second),
            self.eta_text(),
            HumanCount(view.snapshot_age),
            ByteSize(view.snapshot_retained_wal_bytes),
        )
    }
}

/// The line of a run that follows the stream; what matters most comes first.
fn following(view: &View, rows_per_second: u64, lag_us: i64, now: i64) -> String {
    if view.lake_commits == 0 {
        return "connecting".to_owned();
    }
    format!(
        "{} rows/s | lag {}, {} | lake at {}, {} ago | {} rows, {} lake commits",
        HumanCount(rows_per_second),
        seconds(lag_us),
        ByteSize(view.lag_bytes()),
        view.committed_lsn,
        seconds(now - view.committed_at_us),
        HumanCount(view.changes),
        HumanCount(view.lake_commits),
    )
}

/// How old the oldest source transaction is that has arrived and is not in the lake.
#[derive(Debug, Default)]
struct Lag {
    /// What had arrived at each look, and when its newest source transaction was committed.
    waiting: VecDeque<(Lsn, i64)>,
}

impl Lag {
    /// The lag in microseconds; 0 when the lake holds all that arrived.
    fn of(&mut self, view: &View, now: i64) -> i64 {
        let is_new = self.waiting.back().is_none_or(|(lsn, _)| *lsn < view.received_lsn);
        if is_new && self.waiting.len() < SAMPLES_MAX {
            self.waiting.push_back((view.received_lsn, view.received_commit_time_us));
        }
        while self.waiting.front().is_some_and(|(lsn, _)| *lsn <= view.committed_lsn) {
            self.waiting.pop_front();
        }
        self.waiting.front().map_or(0, |(_, commit_time)| (now - commit_time).max(0))
    }
}

/// A span of microseconds for people: tenths of a second, or whole units above two minutes.
pub fn seconds(us: i64) -> String {
    let tenths = us.max(0) / 100_000;
    match tenths {
        0..1_200 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => {
            let whole = u64::try_from(tenths / 10).unwrap_or(0);
            humantime::format_duration(Duration::from_secs(whole)).to_string()
        }
    }
}

/// How fast a counter grows, over the last [`RATE_OVER`].
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// The rate per second, now that the counter shows `count`.
    fn of(&mut self, count: u64, now: Instant) -> u64 {
        self.samples.push_back((now, count));
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= RATE_OVER) {
            self.samples.pop_front();
        }
        let Some((since, from)) = self.samples.front() else { return 0 };
        let millis = u64::try_from((now - *since).as_millis()).unwrap_or(u64::MAX).max(1);
        count.saturating_sub(*from).saturating_mul(1_000) / millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        assert_eq!(seconds(-5), "0.0 s");
        assert_eq!(seconds(1_250_000), "1.2 s");
        assert_eq!(seconds(119_900_000), "119.9 s");
        assert_eq!(seconds(7_201_000_000), "2h 1s");
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_that_the_lake_lacks() {
        let mut lag = Lag::default();
        let mut view = View { received_lsn: Lsn(9), committed_lsn: Lsn(9), ..View::default() };
        assert_eq!(lag.of(&view, 5_000_000), 0);
        for (lsn, commit_time) in [(10, 3_000_000), (20, 4_000_000)] {
            view.received_lsn = Lsn(lsn);
            view.received_commit_time_us = commit_time;
            assert_eq!(lag.of(&view, 5_000_000), 2_000_000);
        }
        view.committed_lsn = Lsn(10);
        assert_eq!(lag.of(&view, 5_000_000), 1_000_000);
        view.committed_lsn = Lsn(20);
        assert_eq!(lag.of(&view, 9_000_000), 0);
    }

    #[test]
    fn a_rate_forgets_what_is_long_past() {
        let (start, mut rate) = (Instant::now(), Rate::default());
        assert_eq!(rate.of(0, start), 0);
        assert_eq!(rate.of(500, start + Duration::from_secs(5)), 100);
        assert_eq!(rate.of(500, start + Duration::from_secs(30)), 0);
    }

    #[test]
    fn a_copy_says_how_long_it_takes() {
        let (start, mut pace) = (Instant::now(), CopyPace::default());
        let mut view = View { is_copying: true, rows_to_copy: 7_000, ..View::default() };
        assert_eq!(pace.of(&view, start).eta, None);
        (view.rows_copied, view.bytes_copied) = (1_000, 50_000);
        (view.snapshot_age, view.snapshot_retained_wal_bytes) = (1_234, 5 << 20);
        let rate = pace.of(&view, start + Duration::from_secs(2));
        let text = "500 rows/s, 48.8 KiB at 24.4 KiB/s, ETA 12s, holds back 1,234 source \
                    transactions and 5.0 MiB of WAL";
        assert_eq!(rate.as_text(&view), text);
        let ended = View { is_copying: false, ..view };
        pace.of(&ended, start + Duration::from_secs(3));
        assert_eq!(pace.of(&view, start + Duration::from_secs(4)).rows_per_second, 0);
    }

    #[test]
    fn the_line_names_the_position() {
        let view = View {
            lake_commits: 3,
            changes: 12_000,
            committed_lsn: Lsn(0x1_0000_00ff),
            received_lsn: Lsn(0x1_0000_00ff),
            server_lsn: Lsn(0x1_0000_00ff),
            ..View::default()
        };
        let line = following(&view, 1_500, 0, 2_000_000);
        assert_eq!(
            line,
            "1,500 rows/s | lag 0.0 s, 0 B | lake at 1/FF, 2.0 s ago | 12,000 rows, 3 lake commits"
        );
        assert_eq!(following(&View::default(), 0, 0, 0), "connecting");
    }
}
