//! A private PostgreSQL server per test: own folder, own free port on 127.0.0.1, gone on drop.

mod standby;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::process::{free_port, output_of, poll, remove_after_us, signal, spawn, tail};
use super::servers;

pub use standby::STANDBY_SLOT;

const START_DEADLINE: Duration = Duration::from_secs(60);

/// One result row as text, NULL as `None`.
pub type TextRow = Vec<Option<String>>;

/// How a server is made.
#[derive(Default, Clone)]
pub struct PostgresOptions {
    settings: Vec<(String, String)>,
    bin_dir: Option<PathBuf>,
}

impl PostgresOptions {
    /// Adds a line to postgresql.conf; a later one wins over the defaults of [`Postgres::start`].
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Uses the server binaries in `bin_dir` in place of those of [`servers::bin_dir`].
    #[must_use]
    pub fn bin_dir(mut self, bin_dir: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(bin_dir.into());
        self
    }
}

/// A running server (or one that was stopped or killed, until [`Postgres::restart`]).
pub struct Postgres {
    bin_dir: PathBuf,
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// The one server of this test process, for tests that keep to a database of their own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        let start = async || {
            let postgres = Self::start(PostgresOptions::default().set("max_connections", "200"));
            let postgres = postgres.await;
            remove_after_us(postgres.folder.path());
            postgres
        };
        SHARED.get_or_init(start).await
    }

    /// A new database; its name.
    pub async fn database(&self) -> String {
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        self.sql(&format!("CREATE DATABASE {name}")).await;
        name
    }

    /// Starts a server with `wal_level=logical` and waits until it answers.
    pub async fn start(options: PostgresOptions) -> Self {
        let bin_dir = options.bin_dir.clone().unwrap_or_else(|| servers::bin_dir().to_owned());
        let folder = tempfile::Builder::new().prefix("frazil-pg-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        output_of(Command::new("cp").arg("-a").arg(template(&bin_dir)).arg(&data));
        let port = free_port();
        let mut postgres = Self { bin_dir, folder, port, server: None };
        append(&data.join("postgresql.conf"), &configuration(port, &options.settings));
        postgres.restart().await;
        postgres
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`, superuser, no password.
    pub fn dsn(&self) -> String {
        self.dsn_of("postgres")
    }

    /// The same for another database.
    pub fn dsn_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1; it stays over a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder of this server's binaries (`initdb`, ...).
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// A new connection; its driver task ends with it.
    pub async fn client(&self) -> Client {
        self.try_client().await.unwrap()
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.dsn(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs `sql` (several statements are one implicit transaction) on a new connection; all rows.
    pub async fn sql(&self, sql: &str) -> Vec<TextRow> {
        query(&self.client().await, sql).await
    }

    /// The one value of a one-row query; panics on NULL or no row.
    pub async fn value(&self, sql: &str) -> String {
        let rows = self.sql(sql).await;
        rows.into_iter().next().and_then(|r| r.into_iter().next().flatten()).expect("one value")
    }

    /// `kill -9` of the postmaster; returns when it and all its children are gone.
    pub fn kill9(&mut self) {
        self.end("KILL");
    }

    /// Fast shutdown (`pg_ctl stop -m fast`); returns when it is down.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Starts a stopped or killed server on the same port (a running one is stopped first).
    pub async fn restart(&mut self) {
        self.stop();
        self.server = Some(self.spawn());
        let end = std::time::Instant::now() + START_DEADLINE;
        while self.try_client().await.is_err() {
            let server = self.server.as_mut().unwrap();
            if let Ok(Some(status)) = server.try_wait() {
                panic!("Postgres ended ({status}):\n{}", tail(&self.log(), 30));
            }
            assert!(std::time::Instant::now() < end, "no start:\n{}", tail(&self.log(), 30));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn spawn(&self) -> Child {
        let open = || fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let mut command = as_postgres(&self.bin_dir.join("postgres"), Some("QUIT"));
        command.arg("-D").arg(self.data_dir()).stdin(Stdio::null());
        command.stdout(open().unwrap()).stderr(open().unwrap());
        spawn(command)
    }

    fn end(&mut self, with: &str) {
        let Some(mut server) = self.server.take() else { return };
        let children = children_of(server.id());
        signal(server.id(), with);
        if poll(START_DEADLINE, || server.try_wait().unwrap()).is_none() {
            let _ = server.kill();
            let _ = server.wait();
        }
        // Backends notice the postmaster's death by themselves; a restart needs them gone.
        for child in children {
            let gone = poll(Duration::from_secs(10), || (!is_alive(child)).then_some(()));
            if gone.is_none() {
                signal(child, "KILL");
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("QUIT");
        if std::thread::panicking() {
            eprintln!("--- tail of the Postgres log ---\n{}", tail(&self.log(), 40));
        }
    }
}

/// Runs `sql` on `client` by the simple protocol; all rows as text.
pub async fn query(client: &Client, sql: &str) -> Vec<TextRow> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| {
        let detail = e.as_db_error().map_or_else(|| e.to_string(), ToString::to_string);
        panic!("{detail}\nin: {}", sql.chars().take(2_000).collect::<String>())
    });
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect())
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// A fresh cluster made once per machine and server version, to be copied.
fn template(bin_dir: &Path) -> PathBuf {
    let version = servers::version_of(bin_dir);
    let user = fs::metadata("/proc/self").unwrap().uid();
    let ready = std::env::temp_dir().join(format!("frazil-template-{user}-{version}"));
    if !ready.exists() {
        let making = tempfile::Builder::new().prefix("frazil-initdb-").tempdir().unwrap();
        fs::set_permissions(making.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let data = making.path().join("data");
        let mut initdb = as_postgres(&bin_dir.join("initdb"), None);
        initdb.args(["-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync"]);
        output_of(initdb.arg("-D").arg(&data));
        // Another test process may have been first; then its template is as good.
        let _ = fs::rename(&data, &ready);
    }
    ready
}

/// `program` as the user that Postgres agrees to run as: `postgres` when we are root.
fn as_postgres(program: &Path, death_signal: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    }
    if let Some(signal) = death_signal {
        // setpriv asks for it after the change of user, which would clear it.
        command.args(["--pdeathsig", signal]);
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

fn configuration(port: u16, settings: &[(String, String)]) -> String {
    let defaults = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("wal_level", "logical"),
        ("max_replication_slots", "20"),
        ("max_wal_senders", "20"),
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("shared_buffers", "128MB"),
        ("max_wal_size", "4GB"),
        ("jit", "off"),
        ("log_min_messages", "warning"),
    ];
    let mut text = format!("\nport = {port}\n");
    let given = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in defaults.into_iter().chain(given) {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    text
}

fn append(path: &Path, text: &str) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn children_of(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|c| c.parse().ok()).collect()
}

/// Whether a process exists and is more than an entry that waits to be reaped.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_what_it_had() {
        let mut postgres = Postgres::start(PostgresOptions::default().set("work_mem", "7MB")).await;
        assert_eq!(postgres.value("SHOW work_mem").await, "7MB");
        assert_eq!(postgres.value("SHOW wal_level").await, "logical");
        postgres.sql("CREATE TABLE t(a int); INSERT INTO t VALUES (1); CHECKPOINT").await;
        let first = postgres.server.as_ref().unwrap().id();
        postgres.kill9();
        assert!(tokio_postgres::connect(&postgres.dsn(), NoTls).await.is_err());
        postgres.restart().await;
        assert_ne!(postgres.server.as_ref().unwrap().id(), first);
        assert_eq!(postgres.value("SELECT count(*) FROM t").await, "1");
        let folder = postgres.data_dir();
        drop(postgres);
        assert!(!folder.exists());
    }
}
