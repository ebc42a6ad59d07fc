//! Child processes: measured, bounded in time, and gone when the bench is gone.
//!
//! CPU seconds come from `/proc/PID/stat` of the child after its end and before it is reaped, so
//! they are whole whoever else runs. The kernel counts them in ticks of 10 ms.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, fail};

/// Ticks per second in `/proc/PID/stat`: USER_HZ, which is 100 on every Linux we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often a child is looked at; wall times are right to this.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Every how many looks the resident set is read.
const RSS_EVERY: u32 = 7;
/// How long a process may take to end once it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// What a process needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// From start to end, in seconds.
    pub(crate) wall_s: f64,
    /// User and system time of the process, in seconds.
    pub(crate) cpu_s: f64,
    /// The largest resident set seen, in bytes.
    pub(crate) peak_rss_bytes: u64,
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    began: Instant,
    peak_rss_bytes: u64,
}

impl Running {
    /// Starts `command` with its stderr in the file `log`; it dies with us. Only the main thread
    /// may start children: the kernel binds their death to the thread that forked.
    pub(crate) fn start(command: &Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut bound = bound_to_us("KILL", command);
        let stderr = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        bound.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let began = Instant::now();
        let child = bound.spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
        Ok(Self { name, child, log: log.to_owned(), began, peak_rss_bytes: 0 })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it fails, or has not ended `deadline` after its start; with the end of its log.
    pub(crate) fn wait(mut self, deadline: Duration) -> Result<Used> {
        let (status, used) = self.until_end(deadline)?;
        if status.success() { Ok(used) } else { self.failed(&status.to_string()) }
    }

    /// Ends it by SIGTERM and waits; a process that minds the signal no better than by dying of it
    /// has ended well.
    pub(crate) fn stop(mut self) -> Result<Used> {
        signal(self.child.id(), "TERM");
        let deadline = self.began.elapsed() + STOP_DEADLINE;
        let (status, used) = self.until_end(deadline)?;
        match status.success() || status.signal().is_some() {
            true => Ok(used),
            false => self.failed(&status.to_string()),
        }
    }

    /// Whether it still runs; remembers its resident set.
    pub(crate) fn is_running(&mut self) -> bool {
        self.peak_rss_bytes = self.peak_rss_bytes.max(self.status_bytes("VmHWM:"));
        Stat::of(self.child.id()).is_some_and(|stat| !stat.is_zombie)
    }

    /// The end of its log as an error, where it has ended before it should.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.is_running() { Ok(()) } else { self.failed("ended too early") }
    }

    /// CPU seconds so far.
    pub(crate) fn cpu_s(&self) -> f64 {
        Stat::of(self.child.id()).map_or(0.0, |stat| stat.own_s)
    }

    /// The resident set now, in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn until_end(&mut self, deadline: Duration) -> Result<(ExitStatus, Used)> {
        let mut looks = 0_u32;
        loop {
            let stat = Stat::of(self.child.id());
            if let Some(stat) = stat.filter(|stat| stat.is_zombie) {
                let wall_s = self.began.elapsed().as_secs_f64();
                let status = self.child.wait()?;
                let peak_rss_bytes = self.peak_rss_bytes;
                return Ok((status, Used { wall_s, cpu_s: stat.own_s, peak_rss_bytes }));
            }
            if looks.is_multiple_of(RSS_EVERY) {
                self.peak_rss_bytes = self.peak_rss_bytes.max(self.status_bytes("VmHWM:"));
            }
            if self.began.elapsed() >= deadline {
                return self.failed(&format!("has not ended in {} s", deadline.as_secs()));
            }
            looks += 1;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn failed<T>(&self, why: &str) -> Result<T> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        fail(format!("{}: {why}\n{}", self.name, tail(&log, 15)))
    }

    /// A line of `/proc/PID/status` that is in kB.
    fn status_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended and was waited for is not ours to signal any more: `kill` knows.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `/proc/PID/stat` says (proc(5)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    is_zombie: bool,
    /// CPU seconds of the process.
    pub(crate) own_s: f64,
    /// CPU seconds of its children that have ended and were waited for.
    pub(crate) reaped_s: f64,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The fields after the command's name, which may hold anything, also spaces.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self {
            is_zombie: *fields.first()? == "Z",
            own_s: seconds(11)? + seconds(12)?,
            reaped_s: seconds(13)? + seconds(14)?,
        })
    }
}

/// The same command, which gets `signal` when we die.
pub(crate) fn bound_to_us(signal: &str, command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", signal, "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound
}

/// Sends `signal` (`TERM`, `KILL`, ...) to a process of ours; one that is gone is fine.
pub(crate) fn signal(pid: u32, signal: &str) {
    let _ = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).output();
}

/// Runs to its end and gives its stdout without the last line break.
///
/// # Errors
/// When it cannot be started or fails; with its stderr.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("cannot start {name}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    fail(format!("{name} failed ({}):\n{}\n{}", output.status, tail(&text, 15), tail(&stderr, 15)))
}

/// Asks `ready` every 20 ms until it is.
///
/// # Errors
/// After `deadline`, and what `ready` fails with.
pub(crate) fn wait_until(
    what: &str,
    deadline: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !ready()? {
        if Instant::now() >= end {
            return fail(format!("waited {} s in vain: {what}", deadline.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A port on 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A shell that sees our end by the end of its input removes `folder`, however we end.
pub(crate) fn remove_after_us(folder: &Path) -> Result<Child> {
    let mut command = Command::new("sh");
    let script = "cat >/dev/null; for i in 1 2 3 4 5; do rm -rf -- \"$1\" && exit; sleep 1; done";
    command.args(["-c", script, "sh"]).arg(folder);
    // Its own process group: the Ctrl-C that ends us must not end it first.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_matter() {
        let text = "7 (a b) c) Z 1 7 7 0 -1 4 1 2 3 4 150 50 25 75 20 0 9 0 100";
        let stat = Stat::parse(text).unwrap();
        assert!(stat.is_zombie);
        assert_eq!((stat.own_s, stat.reaped_s), (2.0, 1.0));
    }

    #[test]
    fn what_a_child_used_is_known_after_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
        let running = Running::start(&command, &folder.path().join("log")).unwrap();
        let used = running.wait(Duration::from_secs(60)).unwrap();
        assert!(used.wall_s > 0.0 && used.cpu_s > 0.0 && used.peak_rss_bytes > 0, "{used:?}");
    }

    #[test]
    fn a_failure_shows_the_log_and_a_deadline_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str, deadline| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let running = Running::start(&command, &folder.path().join("log")).unwrap();
            running.wait(deadline).unwrap_err().to_string()
        };
        let error = run("echo why >&2; exit 3", Duration::from_secs(60));
        assert!(error.contains("why"), "{error}");
        let error = run("sleep 60", Duration::from_millis(10));
        assert!(error.contains("has not ended"), "{error}");
    }
}
