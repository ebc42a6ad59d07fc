//! One real MinIO per test process: S3 with authentication, conditional writes, multipart uploads
//! and STS. It ends with the process, and so does its folder.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt};
use tokio::sync::OnceCell;

use super::process::{
    bound_to_us, folder_removed_after_us, free_port, path_from_script, spawn, tail,
};

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Servers that lost their port to another process before we give up.
const STARTS_MAX: usize = 3;

/// The bucket that every test shares; a test keeps to a prefix of its own.
pub const BUCKET: &str = "lake";

/// The running server.
pub struct Minio {
    port: u16,
    credential: AwsCredential,
    folder: PathBuf,
    server: Child,
}

impl Minio {
    /// The one server of this test process, started by whoever asks first.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Minio> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let binary = path_from_script("minio-binary");
        let binary = binary.to_str().unwrap();
        let folder = folder_removed_after_us("frazil-minio-");
        // A folder below the data folder is a bucket.
        fs::create_dir_all(folder.join("data").join(BUCKET)).unwrap();
        for _ in 0..STARTS_MAX {
            let port = free_port();
            let credential =
                AwsCredential { key_id: random_word(), secret_key: random_word(), token: None };
            let mut command = bound_to_us("KILL", binary);
            command.arg("server").arg(folder.join("data"));
            command.arg("--address").arg(format!("127.0.0.1:{port}"));
            command.env("MINIO_ROOT_USER", &credential.key_id);
            command.env("MINIO_ROOT_PASSWORD", &credential.secret_key);
            command.envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")]);
            // Locks and the like go to the home folder otherwise.
            command.env("HOME", &folder).current_dir(&folder);
            let log = fs::File::create(folder.join("server.log")).unwrap();
            command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
            let server = spawn(command);
            let mut minio = Self { port, credential, folder: folder.clone(), server };
            if minio.is_up().await {
                return minio;
            }
        }
        panic!("MinIO does not start:\n{}", tail(&log_of(&folder), 30));
    }

    /// Waits until the server answers a signed request; false when it ends before.
    async fn is_up(&mut self) -> bool {
        let end = std::time::Instant::now() + START_DEADLINE;
        loop {
            if let Ok(Some(_)) = self.server.try_wait() {
                return false;
            }
            let address = (std::net::Ipv4Addr::LOCALHOST, self.port);
            if tokio::net::TcpStream::connect(address).await.is_ok()
                && self.store().list(None).try_next().await.is_ok()
            {
                return true;
            }
            assert!(std::time::Instant::now() < end, "{}", tail(&log_of(&self.folder), 30));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The root user.
    pub fn access_key(&self) -> &str {
        &self.credential.key_id
    }

    /// The root user's secret.
    pub fn secret_key(&self) -> &str {
        &self.credential.secret_key
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }

    /// How another client would be made: the bucket, the endpoint and the keys are set.
    pub fn builder(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(self.endpoint())
            .with_region(self.region())
            .with_access_key_id(self.access_key())
            .with_secret_access_key(self.secret_key())
            .with_allow_http(true)
    }

    /// A client that gives up soon. Each test has its own: connections belong to its runtime.
    pub fn store(&self) -> AmazonS3 {
        let retry = object_store::RetryConfig { max_retries: 0, ..Default::default() };
        self.builder().with_retry(retry).build().unwrap()
    }

    /// All keys below `prefix` (whole folders: `wh/ns`), sorted.
    pub async fn list(&self, prefix: &str) -> Vec<String> {
        let store = self.store();
        let found = store.list(Some(&Path::from(prefix)));
        let mut keys: Vec<_> =
            found.map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }

    /// An object's bytes; `None` when there is none.
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        match self.store().get(&Path::from(key)).await {
            Ok(found) => Some(found.bytes().await.unwrap()),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("GET {key}: {error}"),
        }
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, key: &str) {
        self.store().delete(&Path::from(key)).await.unwrap();
    }

    /// The keys below `prefix` with a multipart upload that was begun and neither completed nor
    /// aborted. MinIO lists them only for the whole bucket, and only since its start.
    pub async fn incomplete_uploads(&self, prefix: &str) -> Vec<String> {
        let uri = format!("{}/{BUCKET}?uploads=", self.endpoint());
        let mut request =
            http::Request::get(uri).body(HttpRequestBody::empty()).expect("a valid request");
        AwsAuthorizer::new(&self.credential, "s3", self.region()).authorize(&mut request, None);
        let options = ClientOptions::new().with_allow_http(true);
        let client = ReqwestConnector::default().connect(&options).unwrap();
        let response = client.execute(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().bytes().await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{status}: {text}");
        // <Upload><Key>...</Key>...</Upload>; our keys need no XML escapes.
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.filter(|key| key.starts_with(prefix)).map(str::to_string).collect()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }
}

fn log_of(folder: &std::path::Path) -> String {
    fs::read_to_string(folder.join("server.log")).unwrap_or_default()
}

fn random_word() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..20].to_string()
}
