//! Storage keys that come with a table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::iceberg::storage::{Refresh, S3Keys, s3_setting};

use super::http::Http;
use super::settings::RestSettings;

/// Keys without an end of their own are renewed this often.
const LIFE: Duration = Duration::from_secs(900);

/// The parts of `LoadTableResult` that grant access to its files (Iceberg REST spec).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Access {
    config: HashMap<String, String>,
    storage_credentials: Vec<StorageCredential>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StorageCredential {
    prefix: String,
    config: HashMap<String, String>,
}

impl Access {
    /// The keys for `location`: those with the longest prefix of it, else the table's own.
    pub(super) fn keys(&self, location: &str) -> Option<S3Keys> {
        let fits = self.storage_credentials.iter().filter(|c| location.starts_with(&c.prefix));
        let best = fits.max_by_key(|c| c.prefix.len()).map(|c| &c.config);
        best.into_iter().chain([&self.config]).find_map(s3_keys)
    }
}

fn s3_keys(config: &HashMap<String, String>) -> Option<S3Keys> {
    let expires = s3_setting(config, "s3.session-token-expires-at-ms");
    let expires = expires.and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let token = s3_setting(config, "s3.session-token");
    Some(S3Keys {
        access_key_id: s3_setting(config, "s3.access-key-id")?.to_owned(),
        secret_access_key: s3_setting(config, "s3.secret-access-key")?.into(),
        session_token: token.map(Into::into),
        expires: match (expires, token) {
            (Some(since), _) => Some(UNIX_EPOCH + since),
            (None, Some(_)) => Some(SystemTime::now() + LIFE),
            (None, None) => None,
        },
    })
}

/// How the keys of the table at `url` are renewed: by loading it once more.
pub(super) fn refresh(
    settings: RestSettings,
    url: String,
    (location, delegation): (String, HeaderMap),
) -> Refresh {
    Arc::new(move || {
        let (settings, url) = (settings.clone(), url.clone());
        let (location, delegation) = (location.clone(), delegation.clone());
        Box::pin(async move { ask(&settings, &url, &location, &delegation).await })
    })
}

async fn ask(
    settings: &RestSettings,
    url: &str,
    location: &str,
    delegation: &HeaderMap,
) -> Result<S3Keys> {
    let answer = Http::new(settings)?.get(url, delegation).await?.unwrap_or_default();
    let access: Access = serde_json::from_value(answer).unwrap_or_default();
    access.keys(location).ok_or_else(|| {
        Error::transient(
            "CATALOG_AUTH",
            format!("the catalog gives no keys for {location} any more"),
        )
        .with_cure("does the table still stand, and does the catalog still vend credentials?")
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_longest_prefix_wins_over_the_tables_own_keys() {
        let access: Access = serde_json::from_value(serde_json::json!({
            "config": {"s3.access-key-id": "own", "s3.secret-access-key": "s"},
            "storage-credentials": [
                {"prefix": "s3://b", "config": {"s3.access-key-id": "b",
                    "s3.secret-access-key": "s"}},
                {"prefix": "s3://b/t", "config": {"s3.access-key-id": "t",
                    "s3.secret-access-key": "x", "s3.session-token": "y",
                    "s3.session-token-expires-at-ms": "1000"}},
            ],
        }))
        .unwrap();
        let keys = access.keys("s3://b/t/data").unwrap();
        assert_eq!(
            (keys.access_key_id.as_str(), keys.secret_access_key.expose_secret()),
            ("t", "x")
        );
        assert_eq!(keys.expires, Some(UNIX_EPOCH + Duration::from_secs(1)));
        assert_eq!(access.keys("s3://b/u").unwrap().access_key_id, "b");
        assert_eq!(access.keys("s3://c").unwrap().access_key_id, "own");
        assert!(Access::default().keys("s3://b").is_none());
    }
}
