//! A private Postgres for the length of one test.

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio_postgres::{Client, NoTls};

use crate::support::servers;

/// The settings under which Postgres's text is canonical (types.md, rule 2).
const PINNED: &str = "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; \
    SET bytea_output = 'hex'; SET extra_float_digits = 3; SET lc_monetary = 'C'; \
    SET TimeZone = 'UTC';";

/// Runs `test` with a connection to a fresh server, which is stopped and removed afterwards.
pub(crate) fn with_postgres<T: Future<Output = ()>>(test: impl FnOnce(Client) -> T) {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dsn = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", server.port);
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(PINNED).await.unwrap();
        test(client).await;
    });
}

struct Server {
    dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { dir, port };
        let data = server.data();
        run(as_postgres("initdb").args(["-A", "trust", "-N", "-E", "UTF8", "--locale=C"]).args([
            "-U".as_ref(),
            "postgres".as_ref(),
            "-D".as_ref(),
            data.as_os_str(),
        ]));
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        );
        let log = data.join("log");
        run(as_postgres("pg_ctl")
            .args(["-w", "-o", &options, "-l"])
            .arg(log)
            .arg("-D")
            .arg(&data)
            .arg("start"));
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = as_postgres("pg_ctl")
            .args(["-m", "immediate", "-D"])
            .arg(self.data())
            .arg("stop")
            .stdout(Stdio::null())
            .status();
        drop(stop);
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// Postgres refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let program = servers::bin_dir().join(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
