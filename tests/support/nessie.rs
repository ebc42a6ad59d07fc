//! A real Nessie (Iceberg REST catalog with branches) whose warehouse is in the shared MinIO.
//!
//! One server is shared by all tests of the process, which a branch per test keeps apart; a test
//! that kills it, or wants other settings, starts its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::minio::{BUCKET, Minio};
use super::process::{
    bound_to_us, folder_removed_after_us, free_port, path_from_script, signal, spawn, tail,
};

/// The first start on a busy machine took a minute.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// Servers that lost a port to another process before we give up.
const STARTS_MAX: usize = 3;
/// Log entries per page; small, so that tests see that pages are followed.
const PAGE_ENTRIES: &str = "20";

/// How a private server is made.
#[derive(Default, Clone)]
pub struct NessieOptions {
    settings: Vec<(String, String)>,
    s3_endpoint: Option<String>,
}

impl NessieOptions {
    /// Adds or replaces a setting, `nessie.catalog...` or `quarkus...`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Reaches S3 (and sends clients to it) by another address than MinIO's own: a proxy.
    #[must_use]
    pub fn s3_endpoint(mut self, endpoint: &str) -> Self {
        self.s3_endpoint = Some(endpoint.into());
        self
    }

    /// Gives clients that ask for `vended-credentials` short-lived keys from MinIO's STS.
    #[must_use]
    pub fn vended_credentials(self, minio: &Minio) -> Self {
        const S3: &str = "nessie.catalog.service.s3.default-options";
        self.set(&format!("{S3}.sts-endpoint"), &minio.endpoint())
            .set(&format!("{S3}.client-iam.enabled"), "true")
            // MinIO reads neither the role nor its account; they must only look right.
            .set(&format!("{S3}.client-iam.assume-role"), "arn:aws:iam::123456789012:role/frazil")
    }
}

/// A running server (or one that was killed, until [`Nessie::restart`]).
pub struct Nessie {
    port: u16,
    management_port: u16,
    folder: PathBuf,
    options: NessieOptions,
    server: Option<Child>,
}

impl Nessie {
    /// The one server of this test process, started by whoever asks first.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Nessie> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(NessieOptions::default())).await
    }

    /// A server of the test's own, killed when dropped. It keeps its state (RocksDB) and its
    /// ports over [`Nessie::kill9`] and [`Nessie::restart`].
    pub async fn start(options: NessieOptions) -> Self {
        let folder = folder_removed_after_us("frazil-nessie-");
        let mut nessie = Self { port: 0, management_port: 0, folder, options, server: None };
        for _ in 0..STARTS_MAX {
            (nessie.port, nessie.management_port) = (free_port(), free_port());
            if nessie.try_start().await {
                return nessie;
            }
        }
        panic!("Nessie does not start:\n{}", tail(&nessie.log(), 40));
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill9(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let _ = server.kill();
        let _ = server.wait();
    }

    /// Stops the process without ending it: it accepts connections and answers none.
    pub fn freeze(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal(self.pid(), "CONT");
    }

    /// Starts a killed server (a running one is killed first) with what it had stored.
    pub async fn restart(&mut self) {
        self.restart_with(self.options.clone()).await;
    }

    /// The same with other settings.
    pub async fn restart_with(&mut self, options: NessieOptions) {
        self.kill9();
        self.options = options;
        assert!(self.try_start().await, "no restart:\n{}", tail(&self.log(), 40));
    }

    /// The Iceberg REST catalog: `http://127.0.0.1:PORT/iceberg`.
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}/iceberg", self.port)
    }

    /// Nessie's own API: `http://127.0.0.1:PORT/api/v2`.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}/api/v2", self.port)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("Nessie runs").id()
    }

    /// All the server has logged, over restarts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// A new branch without tables or commits.
    pub async fn branch(&self) -> Branch {
        let http = http_client();
        let config = answer(http.get(format!("{}/config", self.api()))).await;
        let empty = config["noAncestorHash"].as_str().unwrap();
        let name = format!("t-{}", uuid::Uuid::new_v4().simple());
        let url = format!("{}/trees?name={name}&type=BRANCH", self.api());
        let from = json!({ "type": "BRANCH", "name": "main", "hash": empty });
        answer(http.post(url).json(&from)).await;
        self.branch_named(&name)
    }

    /// A branch that is there, `main` for instance.
    pub fn branch_named(&self, name: &str) -> Branch {
        Branch { name: name.into(), uri: self.uri(), api: self.api(), http: http_client() }
    }

    /// Whether the server got ready; false when it ended before.
    async fn try_start(&mut self) -> bool {
        let minio = Minio::shared().await;
        self.server = Some(self.spawn(minio));
        let http = http_client();
        let end = Instant::now() + START_DEADLINE;
        let ready = format!("http://127.0.0.1:{}/q/health/ready", self.management_port);
        let config = format!("{}/config", self.api());
        while !(is_ok(&http, &ready).await && is_ok(&http, &config).await) {
            if self.server.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.server = None;
                return false;
            }
            assert!(Instant::now() < end, "Nessie is not ready:\n{}", tail(&self.log(), 40));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    fn spawn(&self, minio: &Minio) -> Child {
        let java = path_from_script("java21");
        let jar = path_from_script("nessie-jar");
        let mut command = bound_to_us("KILL", java.to_str().unwrap());
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg(format!("-Djava.io.tmpdir={}", self.folder.display()));
        for (name, value) in self.settings(minio) {
            command.arg(format!("-D{name}={value}"));
        }
        command.arg("-jar").arg(jar).current_dir(&self.folder).stdin(Stdio::null());
        let log = self.folder.join("server.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        spawn(command)
    }

    /// An unknown name below `nessie.` ends the start, so the secret has a name of its own.
    fn settings(&self, minio: &Minio) -> Vec<(String, String)> {
        const S3: &str = "nessie.catalog.service.s3.default-options";
        let set = |name: &str, value: &str| (name.to_string(), value.to_string());
        let endpoint = self.options.s3_endpoint.clone().unwrap_or_else(|| minio.endpoint());
        let rocks = self.folder.join("rocks");
        let mut settings = vec![
            set("quarkus.http.host", "127.0.0.1"),
            set("quarkus.http.port", &self.port.to_string()),
            set("quarkus.management.host", "127.0.0.1"),
            set("quarkus.management.port", &self.management_port.to_string()),
            set("quarkus.otel.sdk.disabled", "true"),
            set("nessie.version.store.type", "ROCKSDB"),
            set("nessie.version.store.persist.rocks.database-path", rocks.to_str().unwrap()),
            set("nessie.catalog.default-warehouse", "warehouse"),
            set("nessie.catalog.warehouses.warehouse.location", &format!("s3://{BUCKET}/wh")),
            set(&format!("{S3}.endpoint"), &endpoint),
            set(&format!("{S3}.path-style-access"), "true"),
            set(&format!("{S3}.region"), minio.region()),
            set(&format!("{S3}.access-key"), "urn:nessie-secret:quarkus:lake-s3-secret"),
            set("lake-s3-secret.name", minio.access_key()),
            set("lake-s3-secret.secret", minio.secret_key()),
        ];
        settings.extend(self.options.settings.iter().cloned());
        settings
    }
}

impl Drop for Nessie {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- tail of the Nessie log ---\n{}", tail(&self.log(), 40));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A branch and a connection to it.
#[derive(Clone)]
pub struct Branch {
    name: String,
    uri: String,
    api: String,
    http: reqwest::Client,
}

/// One commit of a branch: for us, one lake commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NessieCommit {
    /// The state after it.
    pub hash: String,
    /// The message, which the client or Nessie made.
    pub message: String,
    /// Who made it; Nessie gives one empty name when the client gave none.
    pub authors: Vec<String>,
    /// The first value of each property that the client gave; keys are lower case.
    pub properties: std::collections::BTreeMap<String, String>,
    /// The tables and namespaces it put, `namespace.name`, in its order.
    pub puts: Vec<String>,
    /// All its operations, puts and deletes.
    pub operations: usize,
}

impl Branch {
    /// Its name, which is also the prefix of its REST paths: `{uri}/v1/{name}/namespaces/...`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Iceberg REST catalog of its server.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Nessie's own API on its server.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The same branch by another address, a proxy's: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn through(&self, address: &str) -> Self {
        let (uri, api) = (format!("{address}/iceberg"), format!("{address}/api/v2"));
        Self { uri, api, ..self.clone() }
    }

    /// The hash of its newest state.
    pub async fn head(&self) -> String {
        let found = answer(self.http.get(format!("{}/trees/{}", self.api, self.name))).await;
        found["reference"]["hash"].as_str().unwrap().to_string()
    }

    /// Its commits, newest first.
    pub async fn log(&self) -> Vec<NessieCommit> {
        let url = format!("{}/trees/{}/history", self.api, self.name);
        let mut commits = Vec::new();
        let mut page_token = String::new();
        loop {
            let mut query = vec![("fetch", "ALL"), ("max-records", PAGE_ENTRIES)];
            query.extend((!page_token.is_empty()).then_some(("page-token", page_token.as_str())));
            let page = answer(self.http.get(&url).query(&query)).await;
            commits.extend(page["logEntries"].as_array().unwrap().iter().map(commit));
            if page["hasMore"] != true {
                return commits;
            }
            page_token = page["token"].as_str().unwrap().to_string();
        }
    }

    /// `GET {uri}/v1/{name}/{path}` of the Iceberg REST catalog; panics unless it succeeds.
    pub async fn get(&self, path: &str) -> Value {
        answer(self.http.get(format!("{}/v1/{}/{path}", self.uri, self.name))).await
    }

    /// The same by POST.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        answer(self.http.post(format!("{}/v1/{}/{path}", self.uri, self.name)).json(body)).await
    }
}

fn commit(entry: &Value) -> NessieCommit {
    let meta = &entry["commitMeta"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let operations = list(&entry["operations"]);
    let puts = operations.iter().filter(|operation| operation["type"] == "PUT");
    let key = |operation: &Value| {
        let elements: Vec<_> = list(&operation["key"]["elements"]).iter().map(text).collect();
        elements.join(".")
    };
    let properties = meta["allProperties"].as_object().into_iter().flatten();
    NessieCommit {
        hash: text(&meta["hash"]),
        message: text(&meta["message"]),
        authors: list(&meta["authors"]).iter().map(text).collect(),
        properties: properties.map(|(name, values)| (name.clone(), text(&values[0]))).collect(),
        puts: puts.map(key).collect(),
        operations: operations.len(),
    }
}

/// A client of the calling test: connections belong to the runtime that made them.
pub fn http_client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false);
    builder.timeout(Duration::from_secs(30)).build().unwrap()
}

/// The JSON of an answer (null when it has no body); panics with the server's words otherwise.
pub async fn answer(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.unwrap_or_else(|e| panic!("{e:?}"));
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{url}: {status}: {text}");
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
}

async fn is_ok(http: &reqwest::Client, url: &str) -> bool {
    let response = http.get(url).timeout(Duration::from_secs(3)).send().await;
    response.is_ok_and(|response| response.status().is_success())
}
