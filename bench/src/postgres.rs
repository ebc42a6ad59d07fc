//! A private Postgres: own folder, a free port on 127.0.0.1, ended with the bench.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process::{Stat, bound_to_us, free_port, output_of, signal, tail, wait_until};
use crate::{Result, fail};

const START_DEADLINE: Duration = Duration::from_secs(60);
const DEBIAN: &str = "/usr/lib/postgresql";
/// The programs we need.
const NEEDED: [&str; 5] = ["initdb", "postgres", "psql", "pgbench", "pg_recvlogical"];

/// A running server.
#[derive(Debug)]
pub(crate) struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    server: Child,
}

impl Postgres {
    /// Makes a cluster below `folder` and starts it. `is_safe`: with fsync, as users run it.
    pub(crate) fn start(folder: &Path, is_safe: bool) -> Result<Self> {
        let bin = bin_dir()?;
        let folder = folder.join("pg");
        fs::create_dir(&folder)?;
        // The server does not run as root; its own folder in this one is for it alone.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let data = folder.join("data");
        let mut initdb = as_postgres(&bin.join("initdb"));
        initdb.args(["-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync"]);
        output_of(initdb.arg("-D").arg(&data))?;
        let port = free_port()?;
        let mut conf = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        conf.write_all(configuration(port, is_safe).as_bytes())?;
        let log = File::create(folder.join("log"))?;
        let mut command = as_postgres(&bin.join("postgres"));
        command.arg("-D").arg(&data);
        let mut command = bound_to_us("QUIT", &command);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let server = command.spawn().map_err(|e| format!("cannot start Postgres: {e}"))?;
        let mut postgres = Self { bin, folder, port, server };
        postgres.wait_for_start()?;
        Ok(postgres)
    }

    fn wait_for_start(&mut self) -> Result<()> {
        wait_until("Postgres starts", START_DEADLINE, || {
            if self.server.try_wait()?.is_some() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return fail(format!("Postgres does not start:\n{}", tail(&log, 15)));
            }
            Ok(self.sql("SELECT 1").is_ok())
        })
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`
    pub(crate) fn dsn(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// One of the server's programs, connecting to it.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        let port = self.port.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        command
    }

    /// psql without its start-up file, stopping at the first error.
    pub(crate) fn psql(&self) -> Command {
        let mut command = self.program("psql");
        command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        command
    }

    /// Runs statements one by one, each its own transaction; gives all rows, columns parted by `|`.
    pub(crate) fn sql(&self, statements: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new_in(&self.folder)?;
        fs::write(file.path(), statements)?;
        output_of(self.psql().arg("-f").arg(file.path()))
    }

    /// The first column of the first row, as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, query: &str) -> Result<T> {
        let text = self.sql(query)?;
        text.parse().or_else(|_| fail(format!("{query}: no number: {text}")))
    }

    /// CPU seconds of all the server's processes, those that have ended included.
    pub(crate) fn cpu_s(&self) -> f64 {
        let postmaster = self.server.id();
        let own = Stat::of(postmaster).map_or(0.0, |stat| stat.own_s + stat.reaped_s);
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        own + pids.filter_map(Stat::of).map(|stat| stat.own_s).sum::<f64>()
    }

    /// Leaves nothing to do from before a measurement. Also flushes WAL that no commit waits for
    /// (pages that a scan has pruned): its end would lie within a record, which no walsender
    /// reports as reached before the next record, up to 15 s later.
    pub(crate) fn settle(&self) -> Result<()> {
        self.sql("CHECKPOINT")?;
        Ok(())
    }

    /// Drops a slot that may still be read for a moment; one that is not there is fine.
    pub(crate) fn drop_slot(&self, name: &str) -> Result<()> {
        let free = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}' AND active"
        );
        wait_until("the slot is free", Duration::from_secs(30), || Ok(self.sql(&free)? == "0"))?;
        self.sql(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE slot_name = '{name}'"
        ))?;
        Ok(())
    }

    /// Makes `to` a slot that stands where `from` stands.
    pub(crate) fn copy_slot(&self, from: &str, to: &str) -> Result<()> {
        self.drop_slot(to)?;
        self.sql(&format!(
            "SELECT pg_copy_logical_replication_slot('{from}', '{to}', false, 'pgoutput')"
        ))?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody needs the data again: an immediate stop.
        signal(self.server.id(), "QUIT");
        let _ = self.server.wait();
    }
}

fn configuration(port: u16, is_safe: bool) -> String {
    let fsync = if is_safe { "on" } else { "off" };
    let shared_buffers = if is_safe { "1GB" } else { "128MB" };
    format!(
        "
port = {port}
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
fsync = {fsync}
shared_buffers = {shared_buffers}
max_wal_size = 4GB
checkpoint_timeout = 30min
autovacuum = off
synchronous_commit = off
track_commit_timestamp = on
max_locks_per_transaction = 256
jit = off
log_min_messages = warning
"
    )
}

/// `program` as a user that Postgres agrees to run as: `postgres` when we are root.
fn as_postgres(program: &Path) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        let mut command = Command::new(program);
        command.current_dir("/");
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    command.arg("--").arg(program).current_dir("/");
    command
}

/// `PostgreSQL 15.18`
pub(crate) fn version() -> Result<String> {
    let text = output_of(Command::new(bin_dir()?.join("postgres")).arg("--version"))?;
    let number = text.split_whitespace().nth(2).unwrap_or_default();
    Ok(format!("PostgreSQL {number}"))
}

/// The newest server that Debian installed with all its clients; `FRAZIL_PG_BIN` names another.
fn bin_dir() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("FRAZIL_PG_BIN") {
        return Ok(PathBuf::from(named));
    }
    let majors = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let majors = majors.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let bins = majors.map(|major| (major, Path::new(DEBIAN).join(major.to_string()).join("bin")));
    let whole = bins.filter(|(_, bin)| NEEDED.iter().all(|name| bin.join(name).exists()));
    match whole.max() {
        Some((_, bin)) => Ok(bin),
        None => fail("no PostgreSQL with all its clients found: run scripts/setup"),
    }
}
