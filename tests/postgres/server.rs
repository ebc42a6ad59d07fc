//! One Postgres for these tests; it ends with the process, whichever way that ends.

use std::io::Read;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use frazil::postgres::dsn::Source;
use frazil::postgres::sql::connect_sql;
use frazil::postgres::stream::StreamOptions;
use frazil::progress::Lsn;
use tokio_postgres::Client;

use crate::support::servers;

pub(crate) const PASSWORD: &str = "geheim";

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
    /// Its end is the server's end.
    _stdin: ChildStdin,
}

/// Runs until its standard input ends, then takes the server and its folder away.
const SCRIPT: &str = r#"
set -e
bin=$3
cd "$1"
echo geheim > pw
$bin/initdb -D data -U postgres -A scram-sha-256 --pwfile=pw --no-sync -E UTF8 --locale=C >log 2>&1
printf 'host all trusted all trust\n%s\n' "$(cat data/pg_hba.conf)" > hba; cp hba data/pg_hba.conf
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout data/server.key -out server.crt >>log 2>&1
cp server.crt data/; chmod 600 data/server.key; chmod 755 .; chmod 644 server.crt
$bin/postgres -D data -p "$2" -k "$1" -c listen_addresses=localhost -c wal_level=logical -c fsync=off \
    -c ssl=on -c max_wal_senders=40 -c max_replication_slots=40 -c max_prepared_transactions=5 \
    -c logging_collector=off >>log 2>&1 &
pid=$!
cat >/dev/null
kill -QUIT $pid
wait $pid || true
rm -rf "$1"
"#;

#[expect(clippy::zombie_processes, reason = "it outlives the tests by a moment, to clean up")]
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if is_root {
            assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let mut child = command
            .args(["-c", SCRIPT, "sh"])
            .arg(&folder)
            .arg(port.to_string())
            .arg(servers::bin_dir())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let server = Server { port, folder, _stdin: child.stdin.take().unwrap() };
        server.wait();
        server
    })
}

impl Server {
    fn wait(&self) {
        let socket = self.folder.join(format!(".s.PGSQL.{}", self.port));
        let since = Instant::now();
        while !socket.exists() {
            let mut log = String::new();
            if since.elapsed() > Duration::from_secs(60) {
                let file = std::fs::File::open(self.folder.join("log"));
                file.unwrap().read_to_string(&mut log).unwrap();
                panic!("Postgres did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn dsn(&self, database: &str) -> String {
        format!(
            "host=localhost port={} user=postgres password={PASSWORD} dbname={database}",
            self.port
        )
    }
}

/// A database of the test's own, with `sql` run in it.
pub(crate) async fn database(name: &str, sql: &str) -> (Source, Client) {
    let server = server();
    let source = Source::parse(&server.dsn("postgres")).unwrap();
    let since = Instant::now();
    let admin = loop {
        match connect_sql(&source, "test").await {
            Ok(client) => break client,
            Err(error) if error.code() == "UNAVAILABLE" => {}
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let source = Source::parse(&server.dsn(name)).unwrap();
    let client = connect_sql(&source, "test").await.unwrap();
    client.batch_execute("SET search_path = public").await.unwrap();
    client.batch_execute(sql).await.unwrap();
    (source, client)
}

pub(crate) fn stream_options(slot: &str, start: Lsn, publication: &str) -> StreamOptions {
    StreamOptions {
        slot: slot.to_owned(),
        start,
        publications: vec![publication.to_owned()],
        protocol: 1,
        binary: servers::major() >= 14,
        messages: servers::major() >= 14,
        streaming: false,
        two_phase: false,
        origin: None,
    }
}
