//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::process::output_of;

/// Machine, versions and commit of this run.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Names the run: day and commit of frazil.
    pub(crate) run: String,
    /// Processor, cores, memory, kernel.
    pub(crate) hardware: String,
    /// frazil, Postgres, the system's load when the run began.
    pub(crate) versions: String,
}

impl Machine {
    pub(crate) fn here(frazil: &Path, root: &Path) -> Result<Self> {
        let day = output_of(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let hardware = format!(
            "{}, {} cores, {} GiB, Linux {}",
            field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            std::thread::available_parallelism()?,
            memory_gib(),
            fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        );
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let versions = format!(
            "{}, {}, load {}",
            crate::frazil::Frazil::version(frazil)?,
            crate::postgres::version()?,
            load.split_whitespace().next().unwrap_or("unknown"),
        );
        Ok(Self { run: format!("{day} {}", commit(root)), hardware, versions })
    }
}

/// The commit that is checked out, with a `+` where files differ from it.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        output_of(Command::new("git").arg("-C").arg(root).args(arguments)).unwrap_or_default()
    };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock"]);
    format!(
        "{}{}",
        git(&["rev-parse", "--short=7", "HEAD"]),
        if dirty.is_empty() { "" } else { "+" }
    )
}

/// The value of the first line `name : value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gib() -> u64 {
    let kib = field("/proc/meminfo", "MemTotal");
    let kib = kib.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    (kib.unwrap_or(0) + (1 << 19)) >> 20
}
