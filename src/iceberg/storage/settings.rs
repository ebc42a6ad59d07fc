//! What a person may say about storage.

use std::collections::HashMap;

use secrecy::SecretString;

/// How to reach the lake's files. What is not set here is taken from the standard `AWS_*` variables
/// (for Google and Azure: `GOOGLE_*`, `AZURE_*`), then from the catalog, then from the default
/// credential chain (web identity, container, instance).
#[derive(Debug, Clone, Default)]
pub struct StorageSettings {
    /// S3 endpoint, `http://127.0.0.1:9000`; with one, buckets are addressed by path.
    pub endpoint: Option<String>,
    /// S3 region.
    pub region: Option<String>,
    /// Access key.
    pub access_key_id: Option<String>,
    /// Secret of that key.
    pub secret_access_key: Option<SecretString>,
    /// Token that goes with temporary keys.
    pub session_token: Option<SecretString>,
    /// Address buckets by path (`true`) or by host name.
    pub path_style: Option<bool>,
    /// Server-side encryption: `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub sse: Option<String>,
    /// The key for `aws:kms`.
    pub sse_kms_key_id: Option<String>,
    /// What the catalog says, by the names of Iceberg's `s3.*` properties.
    pub from_catalog: HashMap<String, String>,
}

impl StorageSettings {
    /// Whether a person gave keys, here or in `AWS_ACCESS_KEY_ID`.
    pub fn has_keys(&self) -> bool {
        let variable = std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|key| !key.is_empty());
        self.access_key_id.is_some() || variable
    }
}

/// A setting by Iceberg's names (Iceberg docs, AWS: `S3FileIO` properties).
pub fn s3_setting<'a>(properties: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    properties.get(name).map(String::as_str).filter(|value| !value.is_empty())
}
