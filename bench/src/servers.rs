//! Nessie with its files on MinIO, both for this run alone.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{Running, free_port, output_of, wait_until};
use crate::{Context, Result};

/// MinIO's root user.
pub(crate) const KEY: &str = "benchkey";
pub(crate) const SECRET: &str = "benchsecret";

/// The first start on a busy machine took a minute.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// How long one question may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The running servers.
#[derive(Debug)]
pub(crate) struct Servers {
    _minio: Running,
    _nessie: Running,
    nessie_port: u16,
}

impl Servers {
    /// Starts both below `folder`, and waits until they answer.
    pub(crate) fn start(context: &Context, folder: &Path) -> Result<Self> {
        context.say("MinIO and Nessie start");
        let minio_port = free_port()?;
        let mut minio = start_minio(folder, minio_port)?;
        wait_until("MinIO answers", START_DEADLINE, || {
            minio.check()?;
            Ok(answers(minio_port, "/minio/health/live"))
        })?;
        let nessie_port = free_port()?;
        let mut nessie = start_nessie(folder, nessie_port, minio_port)?;
        wait_until("Nessie answers", START_DEADLINE, || {
            nessie.check()?;
            Ok(answers(nessie_port, "/api/v2/config"))
        })?;
        Ok(Self { _minio: minio, _nessie: nessie, nessie_port })
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn nessie_uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.nessie_port)
    }
}

fn start_minio(folder: &Path, port: u16) -> Result<Running> {
    let data = folder.join("minio");
    // A folder below the data folder is a bucket.
    fs::create_dir_all(data.join("lake"))?;
    let mut command = Command::new(script("minio-binary")?);
    command.arg("server").arg(&data).args(["--address", &format!("127.0.0.1:{port}")]);
    command.envs([("MINIO_ROOT_USER", KEY), ("MINIO_ROOT_PASSWORD", SECRET)]);
    command.envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")]).env("HOME", folder);
    Running::start(&command, &folder.join("minio.log"))
}

fn start_nessie(folder: &Path, port: u16, minio_port: u16) -> Result<Running> {
    const S3: &str = "nessie.catalog.service.s3.default-options";
    let management_port = free_port()?;
    let rocks = folder.join("nessie");
    let settings = [
        ("quarkus.http.host", "127.0.0.1".to_owned()),
        ("quarkus.http.port", port.to_string()),
        ("quarkus.management.host", "127.0.0.1".to_owned()),
        ("quarkus.management.port", management_port.to_string()),
        ("quarkus.otel.sdk.disabled", "true".to_owned()),
        ("nessie.version.store.type", "ROCKSDB".to_owned()),
        ("nessie.version.store.persist.rocks.database-path", rocks.display().to_string()),
        ("nessie.catalog.default-warehouse", "warehouse".to_owned()),
        ("nessie.catalog.warehouses.warehouse.location", "s3://lake/wh".to_owned()),
        (&format!("{S3}.endpoint"), format!("http://127.0.0.1:{minio_port}")),
        (&format!("{S3}.path-style-access"), "true".to_owned()),
        (&format!("{S3}.region"), "us-east-1".to_owned()),
        // An unknown name below `nessie.` ends the start, so the secret has a name of its own.
        (&format!("{S3}.access-key"), "urn:nessie-secret:quarkus:lake-s3-secret".to_owned()),
        ("lake-s3-secret.name", KEY.to_owned()),
        ("lake-s3-secret.secret", SECRET.to_owned()),
    ];
    let mut command = Command::new(script("java21")?);
    command.args(["-Xmx384m", "-XX:+UseSerialGC"]);
    command.arg(format!("-Djava.io.tmpdir={}", folder.display()));
    command.args(settings.map(|(name, value)| format!("-D{name}={value}")));
    command.arg("-jar").arg(script("nessie-jar")?).current_dir(folder);
    Running::start(&command, &folder.join("nessie.log"))
}

/// The path that one of the project's scripts prints; it may fetch or build.
fn script(name: &str) -> Result<String> {
    output_of(&mut Command::new(crate::root().join("scripts").join(name)))
}

/// Whether a GET is answered by 200.
fn answers(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    };
    ask().is_ok_and(|line| line.ends_with(" 200"))
}
