//! A private Postgres: its own folder, its own port on 127.0.0.1, gone with the demo.
//!
//! Postgres refuses to run as root; then it runs as the user `postgres`.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::error::{Error, Result};

/// A running server. Dropping it stops the server, unless it is kept.
#[derive(Debug)]
pub(super) struct PrivatePostgres {
    programs: Programs,
    data: PathBuf,
    port: u16,
    keep: bool,
}

/// Where the server's programs are, and as whom they run.
#[derive(Debug, Clone)]
struct Programs {
    folder: PathBuf,
    /// User to become; `None`: stay who we are.
    user: Option<&'static str>,
}

impl PrivatePostgres {
    /// Makes and starts a server in `folder`, which must exist. Blocks for a few seconds.
    pub(super) fn start(folder: &Path, keep: bool) -> Result<Self> {
        let programs = Programs::find()?;
        let home = folder.join("postgres");
        std::fs::create_dir(&home).map_err(|e| io_error("cannot make its folder", e))?;
        programs.hand_over(&home)?;
        let data = home.join("data");
        let arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        let initdb = programs.command("initdb").arg("-D").arg(&data).args(arguments).output();
        succeeded("initdb", initdb)?;
        let port = free_port()?;
        // Nothing is to be kept over a power loss, so it need not sync.
        let options = format!(
            "-p {port} -k '' -c listen_addresses=127.0.0.1 -c wal_level=logical -c fsync=off \
             -c max_wal_size=4GB"
        );
        // From here on dropping it stops it, also where the start only half succeeds.
        let mut server = Self { programs, data, port, keep: false };
        let mut pg_ctl = server.programs.command("pg_ctl");
        pg_ctl.arg("start").arg("-w").arg("-D").arg(&server.data).arg("-l").arg(home.join("log"));
        succeeded("pg_ctl start", pg_ctl.arg("-o").arg(options).output())?;
        server.keep = keep;
        Ok(server)
    }

    /// How to reach it.
    pub(super) fn dsn(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The command that stops it.
    pub(super) fn how_to_stop(&self) -> String {
        let become_user = match self.programs.user {
            Some(user) => format!("setpriv --reuid={user} --regid={user} --init-groups "),
            None => String::new(),
        };
        let pg_ctl = self.programs.folder.join("pg_ctl");
        format!("{become_user}{} stop -D {}", pg_ctl.display(), self.data.display())
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if self.keep || !self.data.join("postmaster.pid").exists() {
            return;
        }
        let mut pg_ctl = self.programs.command("pg_ctl");
        pg_ctl.arg("stop").arg("-w").arg("-m").arg("immediate").arg("-D").arg(&self.data);
        if let Err(error) = succeeded("pg_ctl stop", pg_ctl.output()) {
            tracing::warn!(%error, "the demo's Postgres may still run: {}", self.how_to_stop());
        }
    }
}

impl Programs {
    /// The newest server that is installed.
    fn find() -> Result<Self> {
        let folder = candidates().into_iter().find(|folder| {
            ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file())
        });
        let folder = folder.ok_or_else(|| {
            Error::config("NO_POSTGRES", "the demo needs a PostgreSQL server, and found none")
                .with_cure("install one: apt-get install postgresql (it need not be started)")
        })?;
        let user = (number_of(&["-u"])? == 0).then_some("postgres");
        if user.is_some() {
            number_of(&["-u", "postgres"]).map_err(|e| {
                e.with_cure(
                    "Postgres does not run as root: run the demo as another user, or make the \
                     user `postgres`",
                )
            })?;
        }
        Ok(Self { folder, user })
    }

    fn command(&self, program: &str) -> Command {
        let program = self.folder.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
                command.arg("--init-groups").arg(program);
                command
            }
            None => Command::new(program),
        };
        // Settings of the person's own servers must not reach this one.
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGDATABASE", "PGOPTIONS"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").current_dir("/");
        command
    }

    /// Gives `folder` to the user that the server runs as.
    fn hand_over(&self, folder: &Path) -> Result<()> {
        let Some(user) = self.user else { return Ok(()) };
        let (uid, gid) = (number_of(&["-u", user])?, number_of(&["-g", user])?);
        chown(folder, Some(uid), Some(gid)).map_err(|e| io_error("cannot hand over its folder", e))
    }
}

/// Folders that may hold a server's programs, the most likely first.
fn candidates() -> Vec<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let version = entry.file_name().to_str().and_then(|name| name.parse().ok());
            (version.unwrap_or(0), entry.path().join("bin"))
        })
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut folders: Vec<PathBuf> = debian.into_iter().map(|(_, folder)| folder).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders
}

/// What `id` says.
fn number_of(arguments: &[&str]) -> Result<u32> {
    let output = succeeded("id", Command::new("id").args(arguments).output())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse()
        .map_err(|e| Error::fatal("DEMO_SERVER", format!("`id` says `{text}`")).with_source(e))
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    listener.map(|address| address.port()).map_err(|e| io_error("found no free port", e))
}

fn succeeded(what: &str, output: std::io::Result<Output>) -> Result<Output> {
    let output = output.map_err(|e| io_error(&format!("cannot run {what}"), e))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::fatal("DEMO_SERVER", format!("{what} failed ({}): {said}", output.status)))
}

fn io_error(what: &str, error: std::io::Error) -> Error {
    Error::fatal("DEMO_SERVER", format!("the demo's Postgres: {what}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_when_it_fails_is_kept() {
        let output = Command::new("sh").args(["-c", "echo no room >&2; exit 3"]).output();
        let error = succeeded("initdb", output).unwrap_err().to_string();
        assert!(error.contains("initdb failed") && error.contains("no room"), "{error}");
    }
}
