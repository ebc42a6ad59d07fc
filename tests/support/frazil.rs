//! The frazil binary as a child process: started, watched, signalled, waited for.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::minio::Minio;
use super::nessie::Branch;
use super::process::{bound_to_us, poll, signal, spawn, tail};

/// How long a run that should end by itself may take.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Arguments and environment of a run to be started.
pub struct Frazil {
    command: Command,
    name: String,
}

impl Frazil {
    /// `frazil ARGS`, with no setting inherited from the machine.
    pub fn new<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = bound_to_us("KILL", env!("CARGO_BIN_EXE_frazil"));
        let mut name = String::from("frazil");
        for arg in args {
            command.arg(arg.as_ref());
            name.push(' ');
            name.push_str(arg.as_ref());
        }
        for (key, _) in std::env::vars() {
            let ours = ["FRAZIL_", "PG", "AWS_"].iter().any(|prefix| key.starts_with(prefix));
            if ours || key == "RUST_LOG" {
                command.env_remove(key);
            }
        }
        Self { command, name }
    }

    /// `frazil run DSN --into LAKE`.
    pub fn run(dsn: &str, lake: &Path) -> Self {
        Self::new(["run", dsn, "--into", lake.to_str().unwrap()])
    }

    /// `frazil run DSN` on a branch of Nessie, with the keys of the storage behind it.
    pub fn nessie(dsn: &str, branch: &Branch, minio: &Minio) -> Self {
        let catalog = format!("nessie+{}", branch.uri());
        Self::new(["run", dsn, "--catalog", &catalog, "--ref", branch.name()]).s3_keys(minio)
    }

    /// The keys of an S3.
    #[must_use]
    pub fn s3_keys(self, minio: &Minio) -> Self {
        self.env("AWS_ACCESS_KEY_ID", minio.access_key())
            .env("AWS_SECRET_ACCESS_KEY", minio.secret_key())
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self.name.push_str(&format!(" {arg}"));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Named crash points as the crate `fail` reads them: `name=action;name=action`. They exist
    /// only in a build with `--features failpoints`.
    #[must_use]
    pub fn failpoints(self, points: &str) -> Self {
        self.env("FAILPOINTS", points)
    }

    /// Starts it.
    pub fn spawn(mut self) -> Running {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(self.command);
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let peak_rss_bytes = sample_peak_rss(child.id());
        Running { child, name: self.name, stdout, stderr, peak_rss_bytes }
    }

    /// Starts it and waits at most [`DEADLINE`] for its end.
    pub fn finish(self) -> Finished {
        self.spawn().wait(DEADLINE)
    }
}

/// A started run; killed when dropped.
pub struct Running {
    child: Child,
    name: String,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    peak_rss_bytes: Arc<Mutex<u64>>,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub name: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
    /// The highest resident set seen (`VmHWM`, sampled every 20 ms), in bytes.
    pub peak_rss_bytes: u64,
}

impl Running {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, then waits for its end.
    pub fn kill9(mut self) -> Finished {
        let _ = self.child.kill();
        self.wait(DEADLINE)
    }

    /// Sends a signal by its name, `TERM`, `INT`, `STOP`, ...
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// What stderr holds by now.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until stderr contains `text`; panics when it ends or `deadline` passes before.
    pub fn wait_for_log(&mut self, text: &str, deadline: Duration) {
        let seen = poll(deadline, || {
            let ended = self.child.try_wait().unwrap().is_some();
            let found = self.stderr().contains(text);
            (found || ended).then_some(found)
        });
        assert!(
            seen == Some(true),
            "`{}` never logged `{text}`:\n{}",
            self.name,
            tail(&self.stderr(), 40)
        );
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The highest resident set so far, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        *self.peak_rss_bytes.lock().unwrap()
    }

    /// Waits for its end; kills it and panics when `deadline` passes.
    pub fn wait(mut self, deadline: Duration) -> Finished {
        let Some(status) = poll(deadline, || self.child.try_wait().unwrap()) else {
            panic!("`{}` has not ended in {deadline:?}:\n{}", self.name, tail(&self.stderr(), 40));
        };
        // The readers end at the pipe's end, which the process's death brings.
        let _ = poll(Duration::from_secs(5), || {
            let idle = Arc::strong_count(&self.stderr) == 1 && Arc::strong_count(&self.stdout) == 1;
            idle.then_some(())
        });
        Finished {
            name: self.name.clone(),
            code: status.code(),
            stdout: self.stdout.lock().unwrap().clone(),
            stderr: self.stderr(),
            peak_rss_bytes: self.peak_rss_bytes(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- tail of `{}` ---\n{}", self.name, tail(&self.stderr(), 40));
        }
    }
}

impl Finished {
    /// Asserts the exit code.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "`{}`\nstdout: {}\nstderr: {}",
            self.name,
            tail(&self.stdout, 20),
            tail(&self.stderr, 40)
        );
        self
    }

    /// Asserts exit 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    /// Asserts that stderr names `text`, an error code for instance.
    #[track_caller]
    pub fn said(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in:\n{}", tail(&self.stderr, 40));
        self
    }
}

/// `frazil run DSN --into LAKE --until-caught-up` to its end.
pub fn until_caught_up(dsn: &str, lake: &Path) -> Finished {
    Frazil::run(dsn, lake).arg("--until-caught-up").finish().succeeded()
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let writer = text.clone();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            writer.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

fn sample_peak_rss(pid: u32) -> Arc<Mutex<u64>> {
    let peak = Arc::new(Mutex::new(0));
    let writer = peak.clone();
    std::thread::spawn(move || {
        while let Some(bytes) = peak_rss(pid) {
            *writer.lock().unwrap() = bytes;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    peak
}

/// `VmHWM` of a living process (proc(5)), in bytes; a zombie has none.
fn peak_rss(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

mod tests {
    use super::*;

    #[test]
    fn the_binary_is_run_to_its_end() {
        let ended = Frazil::new(["--version"]).finish().succeeded();
        assert_eq!(ended.name, "frazil --version");
    }

    #[test]
    fn our_own_peak_is_measured() {
        let bytes = peak_rss(std::process::id()).unwrap();
        assert!(bytes > 1 << 20, "{bytes}");
        assert_eq!(peak_rss(u32::MAX), None);
    }
}
