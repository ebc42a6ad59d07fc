//! What is measured, and how it is held against what it should be.

use crate::process::Used;

const MIB: f64 = 1_048_576.0;

/// What one side of a scenario needed for its rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// From start to end of the process, in seconds.
    pub(crate) wall_s: f64,
    /// CPU seconds of the client.
    pub(crate) cpu_s: f64,
    /// CPU seconds of all processes of the server.
    pub(crate) server_cpu_s: f64,
    pub(crate) peak_rss_bytes: u64,
}

impl Measured {
    pub(crate) fn new(used: Used, server_cpu_s: f64) -> Self {
        let Used { wall_s, cpu_s, peak_rss_bytes } = used;
        Self { wall_s, cpu_s, server_cpu_s, peak_rss_bytes }
    }

    /// Rows per second.
    pub(crate) fn rate(&self, rows: u64) -> f64 {
        count(rows) / self.wall_s.max(1e-3)
    }

    /// CPU seconds of the client per million rows.
    pub(crate) fn cpu_per_million(&self, rows: u64) -> f64 {
        self.cpu_s * 1e6 / count(rows).max(1.0)
    }

    /// CPU seconds of the server per million rows.
    pub(crate) fn server_cpu_per_million(&self, rows: u64) -> f64 {
        self.server_cpu_s * 1e6 / count(rows).max(1.0)
    }
}

/// One row of the results.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// Names the row, for instance `snapshot, 2 workers`.
    pub(crate) scenario: String,
    /// Rows or changes.
    pub(crate) rows: u64,
    /// The baseline before and after, and frazil.
    pub(crate) before: Option<Measured>,
    pub(crate) frazil: Option<Measured>,
    pub(crate) after: Option<Measured>,
    pub(crate) bytes_per_row: Option<f64>,
    /// Seconds from the source's commit to the lake commit: p50 and p99.
    pub(crate) latency_s: Option<(f64, f64)>,
    pub(crate) lake_commits: Option<usize>,
    /// What must hold and what is aimed at.
    pub(crate) limits: Vec<Limit>,
    /// Figures that no column has.
    pub(crate) note: String,
}

impl Row {
    /// frazil's rate by the mean rate of the baselines.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (before, after) = (self.before?, self.after?);
        let base = f64::midpoint(before.rate(self.rows), after.rate(self.rows));
        Some(self.frazil?.rate(self.rows) / base)
    }

    /// Adds limits on the ratio: what must hold, and the aim.
    pub(crate) fn ratio_at_least(mut self, must: f64, aim: f64) -> Self {
        let ratio = self.ratio().unwrap_or(0.0);
        self.limits.insert(0, Limit::at_least("ratio", ratio, must, aim));
        self
    }

    /// Adds limits on frazil's CPU seconds per million rows.
    pub(crate) fn cpu_at_most(mut self, must: f64, aim: f64) -> Self {
        let cpu = self.frazil.map_or(f64::MAX, |frazil| frazil.cpu_per_million(self.rows));
        self.limits.push(Limit::at_most("CPU s/M", cpu, must, aim));
        self
    }

    /// Adds limits on frazil's peak resident set, in MiB.
    pub(crate) fn rss_at_most(mut self, must: f64, aim: f64) -> Self {
        let rss = self.frazil.map_or(f64::MAX, |frazil| mib(frazil.peak_rss_bytes));
        self.limits.push(Limit::at_most("RSS MiB", rss, must, aim));
        self
    }

    /// `aim`, `holds` or `misses`: the worst of its limits.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.limits.iter().map(Limit::reached).min() {
            None => "",
            Some(0) => "misses",
            Some(1) => "holds",
            Some(_) => "aim",
        }
    }
}

/// A figure with what it must be and what it should be.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) sign: &'static str,
}

impl Limit {
    pub(crate) fn at_least(what: &'static str, value: f64, must: f64, aim: f64) -> Self {
        Self { what, value, must, aim, sign: ">=" }
    }

    pub(crate) fn at_most(what: &'static str, value: f64, must: f64, aim: f64) -> Self {
        Self { what, value, must, aim, sign: "<=" }
    }

    /// 2: the aim, 1: what must hold, 0: neither.
    fn reached(&self) -> u8 {
        let is_within = |bound: f64| match self.sign {
            ">=" => self.value >= bound,
            _ => self.value <= bound,
        };
        u8::from(is_within(self.must)) + u8::from(is_within(self.must) && is_within(self.aim))
    }
}

/// The value below which `percent` of `values` lie; 0 where there are none.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0.0)
}

/// p50 and p99, where there are values.
pub(crate) fn p50_p99(values: &[f64]) -> Option<(f64, f64)> {
    (!values.is_empty()).then(|| (percentile(values, 50), percentile(values, 99)))
}

/// A count as a number to calculate with; exact below 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "spans are far below 2^53 microseconds")]
pub(crate) fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    count(bytes) / MIB
}

/// `1,234,567`
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_one_of_rates() {
        let took = |wall_s| Some(Measured { wall_s, ..Measured::default() });
        let row = Row {
            rows: 100,
            before: took(2.0),
            frazil: took(1.0),
            after: took(2.0),
            ..Row::default()
        };
        assert_eq!(row.ratio(), Some(2.0));
        assert_eq!(row.clone().ratio_at_least(1.25, 1.7).verdict(), "aim");
        assert_eq!(row.clone().ratio_at_least(1.25, 2.5).verdict(), "holds");
        assert_eq!(row.clone().ratio_at_least(2.1, 2.5).verdict(), "misses");
        assert_eq!(row.ratio_at_least(1.0, 1.0).rss_at_most(-1.0, -1.0).verdict(), "misses");
    }

    #[test]
    fn percentiles_and_thousands() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(p50_p99(&values), Some((51.0, 100.0)));
        assert_eq!(p50_p99(&[]), None);
        assert_eq!(
            ["999", "1,000", "1,234,567"],
            [999.0, 1000.0, 1_234_567.0].map(thousands).each_ref().map(String::as_str)
        );
    }
}
