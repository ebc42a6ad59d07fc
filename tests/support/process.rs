//! Child processes that never outlive the test process, however that ends.
//!
//! Each child asks the kernel for a signal at its parent's death (`prctl(2)`, PR_SET_PDEATHSIG,
//! set by `setpriv`). That signal is bound to the *thread* that forked, so one thread that lives as
//! long as the process forks them all.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

type Job = (Command, Sender<std::io::Result<Child>>);

/// Starts `command` from the one thread that lives as long as the test process.
pub fn spawn(command: Command) -> Child {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let name = format!("{command:?}");
    let (answer, result) = channel();
    spawner.lock().unwrap().send((command, answer)).unwrap();
    result.recv().unwrap().unwrap_or_else(|e| panic!("cannot start {name}: {e}"))
}

/// A command that gets `signal` when the test process dies.
pub fn bound_to_us(signal: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--", program]);
    command
}

/// Sends `signal` (`TERM`, `KILL`, `INT`, ...) to a process of ours; one that is gone is fine.
pub fn signal(pid: u32, signal: &str) {
    let _ = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).output();
}

/// Runs to its end and gives its stdout; panics with its stderr when it fails.
pub fn output_of(command: &mut Command) -> String {
    let name = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed ({}): {stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks `ready` every 20 ms until it gives something; `None` when `deadline` has passed.
pub fn poll<T>(deadline: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port on 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The path that one of our scripts prints, `minio-binary` for instance; it may fetch or build.
pub fn path_from_script(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    PathBuf::from(output_of(&mut Command::new(script)).trim())
}

/// A temporary folder for a server that lives as long as the test process.
pub fn folder_removed_after_us(prefix: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().unwrap().keep();
    remove_after_us(&folder);
    folder
}

/// A shell that sees our end by the end of its input removes `folder`: a static is never dropped.
pub fn remove_after_us(folder: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", "cat >/dev/null; sleep 1; rm -rf -- \"$1\"", "sh"]).arg(folder);
    // Its own process group: the Ctrl-C that ends us must not end it first.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    std::mem::forget(command.spawn().unwrap());
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
