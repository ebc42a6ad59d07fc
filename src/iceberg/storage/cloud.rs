//! Buckets: S3 and what speaks its protocol, Google Cloud Storage, Azure.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::future::BoxFuture;
use object_store::aws::{
    AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider, Checksum,
};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::CredentialProvider;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::limit::LimitStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::error::{Error, Result};

use super::settings::{StorageSettings, s3_setting};

/// Requests to one bucket at the same time.
const REQUESTS_MAX: usize = 32;
/// Longest time for one request; a part has 5 MiB.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request is tried again (500, 503 SlowDown, resets) before the lake commit fails.
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);
const RETRIES_MAX: usize = 12;
/// Vended keys are renewed when they have less than this left.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// A location taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket<'a> {
    kind: Kind,
    /// Scheme and authority: `s3://lake`.
    pub(super) name: &'a str,
    authority: &'a str,
    /// The rest, as it stands.
    pub(super) key: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Google,
    Azure,
}

/// Takes a location apart.
///
/// # Errors
/// `STORAGE_URL` (config).
pub(super) fn bucket(location: &str) -> Result<Bucket<'_>> {
    let bad = || {
        Error::config("STORAGE_URL", format!("`{location}` is no place for a lake"))
            .with_cure("use s3://bucket/path, gs://bucket/path, abfss://..., file:///path")
    };
    let (scheme, rest) = location.split_once("://").ok_or_else(bad)?;
    let kind = match scheme {
        "s3" | "s3a" | "s3n" => Kind::S3,
        "gs" | "gcs" => Kind::Google,
        "abfs" | "abfss" | "wasb" | "wasbs" | "az" | "azure" => Kind::Azure,
        _ => return Err(bad()),
    };
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() {
        return Err(bad());
    }
    let name = location.get(..scheme.len() + 3 + authority.len()).unwrap_or(location);
    Ok(Bucket { kind, name, authority, key })
}

/// Opens a bucket with what the settings, the environment and the catalog say.
pub(super) fn open(
    bucket: &Bucket<'_>,
    settings: &StorageSettings,
) -> Result<Arc<dyn ObjectStore>> {
    let url = bucket.name;
    match bucket.kind {
        Kind::S3 => s3(bucket, settings, None),
        Kind::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retries());
            builder.build().map(limited).map_err(|e| bad_setting(url, e))
        }
        Kind::Azure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retries());
            builder.build().map(limited).map_err(|e| bad_setting(url, e))
        }
    }
}

/// Opens a bucket with keys from the catalog.
pub(super) fn s3_with(
    bucket: &Bucket<'_>,
    settings: &StorageSettings,
    keys: S3Keys,
    refresh: Refresh,
) -> Result<Arc<dyn ObjectStore>> {
    s3(bucket, settings, Some(Arc::new(Vended { keys: Mutex::new(keys), refresh })))
}

fn s3(
    bucket: &Bucket<'_>,
    settings: &StorageSettings,
    credentials: Option<AwsCredentialProvider>,
) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = s3_builder(settings)?;
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() && endpoint.is_none() {
        let what = format!("the region of {} is not known", bucket.name);
        return Err(Error::config("STORAGE_REGION", what)
            .with_cure("set AWS_REGION (or storage.region), for instance eu-central-1"));
    }
    let http = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let host_style = AmazonS3ConfigKey::VirtualHostedStyleRequest;
    if endpoint.is_none() && builder.get_config_value(&host_style).is_none() {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    if let Some(credentials) = credentials {
        builder = builder.with_credentials(credentials);
    }
    builder
        .with_bucket_name(bucket.authority)
        .with_client_options(
            ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_allow_http(http),
        )
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(retries())
        .build()
        .map(limited)
        .map_err(|e| bad_setting(bucket.name, e))
}

/// What the catalog says, under what the environment says, under what the settings say.
fn s3_builder(settings: &StorageSettings) -> Result<AmazonS3Builder> {
    let mut builder = from_catalog(AmazonS3Builder::new(), settings);
    for (key, value) in std::env::vars().filter(|(_, value)| !value.is_empty()) {
        let known = key.starts_with("AWS_").then(|| key.to_ascii_lowercase());
        let known = known.and_then(|key| AmazonS3ConfigKey::from_str(&key).ok());
        builder = known.into_iter().fold(builder, |b, key| b.with_config(key, &value));
    }
    from_settings(builder, settings)
}

/// Where S3 is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Place {
    /// `http://127.0.0.1:9000`; none for Amazon's own.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
}

pub(super) fn s3_place(settings: &StorageSettings) -> S3Place {
    let Ok(builder) = s3_builder(settings) else { return S3Place::default() };
    S3Place {
        endpoint: builder.get_config_value(&AmazonS3ConfigKey::Endpoint),
        region: builder.get_config_value(&AmazonS3ConfigKey::Region),
    }
}

fn from_catalog(mut builder: AmazonS3Builder, settings: &StorageSettings) -> AmazonS3Builder {
    let catalog = |name| s3_setting(&settings.from_catalog, name);
    let mut set = |key, value: Option<&str>| {
        if let Some(value) = value {
            builder = std::mem::take(&mut builder).with_config(key, value);
        }
    };
    set(AmazonS3ConfigKey::Endpoint, catalog("s3.endpoint"));
    set(AmazonS3ConfigKey::Region, catalog("client.region").or(catalog("s3.region")));
    set(AmazonS3ConfigKey::AccessKeyId, catalog("s3.access-key-id"));
    set(AmazonS3ConfigKey::SecretAccessKey, catalog("s3.secret-access-key"));
    set(AmazonS3ConfigKey::Token, catalog("s3.session-token"));
    match catalog("s3.path-style-access") {
        Some(path_style) => builder.with_virtual_hosted_style_request(path_style == "false"),
        None => builder,
    }
}

fn from_settings(
    mut builder: AmazonS3Builder,
    settings: &StorageSettings,
) -> Result<AmazonS3Builder> {
    let secret =
        |value: &Option<SecretString>| value.as_ref().map(|v| v.expose_secret().to_owned());
    for (key, value) in [
        (AmazonS3ConfigKey::Endpoint, settings.endpoint.clone()),
        (AmazonS3ConfigKey::Region, settings.region.clone()),
        (AmazonS3ConfigKey::AccessKeyId, settings.access_key_id.clone()),
        (AmazonS3ConfigKey::SecretAccessKey, secret(&settings.secret_access_key)),
        (AmazonS3ConfigKey::Token, secret(&settings.session_token)),
    ] {
        builder = value.into_iter().fold(builder, |b, value| b.with_config(key, value));
    }
    if let Some(path_style) = settings.path_style {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    let key = settings.sse_kms_key_id.clone().unwrap_or_default();
    match settings.sse.as_deref() {
        None => Ok(builder),
        Some("AES256") => Ok(builder.with_config(encryption()?, "AES256")),
        Some("aws:kms") => Ok(builder.with_sse_kms_encryption(key)),
        Some("aws:kms:dsse") => Ok(builder.with_dsse_kms_encryption(key)),
        Some(other) => {
            Err(Error::config("STORAGE_SETTING", format!("storage.sse: `{other}` is not known"))
                .with_cure("use AES256, aws:kms or aws:kms:dsse"))
        }
    }
}

fn encryption() -> Result<AmazonS3ConfigKey> {
    AmazonS3ConfigKey::from_str("aws_server_side_encryption")
        .map_err(|e| bad_setting("storage.sse", e))
}

fn bad_setting(what: &str, error: object_store::Error) -> Error {
    Error::config("STORAGE_SETTING", format!("{what} cannot be opened like this"))
        .with_cure("see `storage:` in docs/frazil.yaml and the AWS_*, GOOGLE_*, AZURE_* variables")
        .with_source(error)
}

fn limited(store: impl ObjectStore) -> Arc<dyn ObjectStore> {
    Arc::new(LimitStore::new(store, REQUESTS_MAX))
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

/// Temporary keys for one table.
#[derive(Debug, Clone)]
pub struct S3Keys {
    /// Access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: SecretString,
    /// The token that goes with them.
    pub session_token: Option<SecretString>,
    /// When they end; `None` where the catalog does not say.
    pub expires: Option<SystemTime>,
}

/// Asks the catalog for new keys.
pub type Refresh = Arc<dyn Fn() -> BoxFuture<'static, Result<S3Keys>> + Send + Sync>;

/// Keys that the catalog vends, renewed before they end (case 177).
struct Vended {
    keys: Mutex<S3Keys>,
    refresh: Refresh,
}

impl std::fmt::Debug for Vended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vended")
    }
}

#[async_trait]
impl CredentialProvider for Vended {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut keys = self.keys.lock().await;
        if keys.expires.is_some_and(|end| end < SystemTime::now() + RENEW_BEFORE) {
            *keys = (self.refresh)().await.map_err(|e| object_store::Error::Generic {
                store: "vended credentials",
                source: e.into(),
            })?;
        }
        Ok(Arc::new(AwsCredential {
            key_id: keys.access_key_id.clone(),
            secret_key: keys.secret_access_key.expose_secret().to_owned(),
            token: keys.session_token.as_ref().map(|t| t.expose_secret().to_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_taken_apart() {
        let found = bucket("s3://lake/wh/a%20b").unwrap();
        assert_eq!((found.name, found.authority, found.key), ("s3://lake", "lake", "wh/a%20b"));
        let found = bucket("abfss://c@a.dfs.core.windows.net/x").unwrap();
        assert_eq!((found.name, found.key), ("abfss://c@a.dfs.core.windows.net", "x"));
        for bad in ["s3:///x", "hdfs://x/y", "x"] {
            assert_eq!(bucket(bad).unwrap_err().code(), "STORAGE_URL", "{bad}");
        }
    }

    #[test]
    fn google_and_azure_are_opened_by_their_url() {
        let settings = StorageSettings::default();
        let google = open(&bucket("gs://lake/x").unwrap(), &settings);
        let azure = open(&bucket("abfss://c@a.dfs.core.windows.net/x").unwrap(), &settings);
        assert!(format!("{:?}", google.unwrap()).contains("lake"));
        assert!(format!("{:?}", azure.unwrap()).contains('a'));
    }

    #[tokio::test]
    async fn keys_are_renewed_before_they_end() {
        let key = |name: &str, left| S3Keys {
            access_key_id: name.into(),
            secret_access_key: "s".into(),
            session_token: None,
            expires: Some(SystemTime::now() + left),
        };
        let renewed = key("new", RENEW_BEFORE * 2);
        let refresh: Refresh = Arc::new(move || {
            let keys = renewed.clone();
            Box::pin(async move { Ok(keys) })
        });
        let vended = Vended { keys: Mutex::new(key("old", RENEW_BEFORE / 2)), refresh };
        assert_eq!(vended.get_credential().await.unwrap().key_id, "new");
        let refresh: Refresh = Arc::new(|| Box::pin(async { Err(Error::fatal("X", "asked")) }));
        let vended = Vended { keys: Mutex::new(key("old", RENEW_BEFORE * 2)), refresh };
        assert_eq!(vended.get_credential().await.unwrap().key_id, "old");
    }
}
