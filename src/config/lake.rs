//! Where the lake is: a folder, or a catalog with its storage.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::error::{Error, Result};
use crate::iceberg::committer::rest::{Login, RestSettings};
use crate::iceberg::storage::StorageSettings;

use super::raw::{Headers, RawCatalog, RawLake, RawStorage, Scalar};
use super::{duration, invalid, missing, set, yes_or_no};

/// Where the lake is.
#[derive(Debug, Clone)]
pub enum LakeSettings {
    /// The embedded default: a SQLite catalog and the files in a folder.
    Folder(PathBuf),
    /// A REST catalog, and what is known of the storage behind it.
    Rest(Box<RestSettings>, StorageSettings),
    /// A SQL catalog in a Postgres database.
    Postgres {
        /// Connection string, password and all.
        dsn: SecretString,
        /// Where the files go: `s3://bucket/path`, or a folder.
        warehouse: String,
        /// What is known of that storage.
        storage: StorageSettings,
    },
}

impl LakeSettings {
    /// Resolves what was typed.
    pub(super) fn resolve(lake: RawLake, catalog: RawCatalog, storage: RawStorage) -> Result<Self> {
        let (into, url) = (set(lake.into), set(catalog.url.clone()));
        let torn = yes_or_no("lake.allow_torn_commits", lake.allow_torn_commits)?;
        match (into, url) {
            (Some(_), Some(_)) => {
                Err(Error::config("BAD_SETTING", "lake.into and catalog.url are both set")
                    .with_cure("a lake is in a folder (--into) or in a catalog (--catalog)"))
            }
            (None, None) => Err(missing(
                "lake.into",
                "say where: --into ./lake, or --catalog nessie+http://host:19120/iceberg",
            )),
            (Some(into), None) => Ok(Self::Folder(into.into())),
            (None, Some(url)) => of_url(&url, catalog, storage_settings(storage)?, torn),
        }
    }

    /// Whether the catalog was said to be a Nessie.
    pub fn is_nessie(&self) -> bool {
        matches!(self, Self::Rest(rest, _) if rest.is_nessie)
    }
}

impl fmt::Display for LakeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Rest(rest, _) => match &rest.reference {
                Some(reference) => write!(f, "{} (branch {reference})", rest.uri),
                None => f.write_str(&rest.uri),
            },
            Self::Postgres { warehouse, .. } => {
                write!(f, "{warehouse}, with a catalog in Postgres")
            }
        }
    }
}

fn of_url(
    url: &str,
    catalog: RawCatalog,
    storage: StorageSettings,
    torn: Option<bool>,
) -> Result<LakeSettings> {
    let http = |rest: &str| rest.starts_with("http://") || rest.starts_with("https://");
    let (scheme, rest) = url.split_once('+').unwrap_or(("", url));
    match scheme {
        "nessie" | "rest" if http(rest) => {
            let is_nessie = scheme == "nessie";
            let rest = rest_settings(rest, is_nessie, catalog, torn.unwrap_or(false))?;
            Ok(LakeSettings::Rest(Box::new(rest), storage))
        }
        "" if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            let warehouse = set(catalog.warehouse).ok_or_else(|| {
                let cure = "say where files go: --warehouse s3://bucket/path, or a folder";
                missing("catalog.warehouse", cure)
            })?;
            Ok(LakeSettings::Postgres { dsn: url.into(), warehouse, storage })
        }
        _ => {
            let shown = url.split("://").next().unwrap_or(url);
            Err(invalid("catalog.url", &format!("{shown}://..."), "is no catalog that is known")
                .with_cure(
                    "use nessie+http://host:19120/iceberg, rest+https://host/path, or \
                     postgres://user@host/db",
                ))
        }
    }
}

fn rest_settings(
    uri: &str,
    is_nessie: bool,
    catalog: RawCatalog,
    allow_torn_commits: bool,
) -> Result<RestSettings> {
    let login = login(&catalog)?;
    let reference = set(catalog.r#ref);
    if let Some(reference) = reference.as_deref().filter(|_| !is_nessie) {
        return Err(invalid("catalog.ref", reference, "only Nessie has branches")
            .with_cure("say that it is one: --catalog nessie+http://..."));
    }
    let vended = set(catalog.vended_credentials).filter(|text| text != "auto");
    Ok(RestSettings {
        uri: uri.to_owned(),
        is_nessie,
        reference,
        branch_from: None,
        warehouse: set(catalog.warehouse),
        login,
        headers: headers(catalog.headers)?,
        ca_file: set(catalog.ca_file).map(PathBuf::from),
        proxy: set(catalog.proxy),
        connect_timeout: duration("catalog.connect_timeout", catalog.connect_timeout, "10s")?,
        request_timeout: duration("catalog.request_timeout", catalog.request_timeout, "60s")?,
        vended_credentials: yes_or_no("catalog.vended_credentials", vended.map(Scalar))?,
        allow_torn_commits,
    })
}

fn login(catalog: &RawCatalog) -> Result<Login> {
    let token = set(catalog.token.clone());
    let (file, credential) = (set(catalog.token_file.clone()), set(catalog.credential.clone()));
    match (token, file, credential) {
        (None, None, None) => Ok(Login::None),
        (Some(token), None, None) => Ok(Login::Token(token.into())),
        (None, Some(file), None) => Ok(Login::TokenFile(file.into())),
        (None, None, Some(credential)) => {
            let (client_id, client_secret) = match credential.split_once(':') {
                Some((id, secret)) => (Some(id.to_owned()), secret.to_owned()),
                None => (None, credential),
            };
            Ok(Login::OAuth2 {
                client_id,
                client_secret: client_secret.into(),
                server_uri: set(catalog.oauth2_server_uri.clone()),
                scope: set(catalog.oauth2_scope.clone()).unwrap_or_else(|| "catalog".to_owned()),
            })
        }
        _ => Err(Error::config("BAD_SETTING", "catalog: there are several ways to log in")
            .with_cure("set one of token, token_file and credential")),
    }
}

fn headers(typed: Option<Headers>) -> Result<BTreeMap<String, String>> {
    let text = match typed {
        None => return Ok(BTreeMap::new()),
        Some(Headers::Map(map)) => {
            return Ok(map.into_iter().map(|(name, value)| (name, value.0)).collect());
        }
        Some(Headers::Text(text)) => text,
    };
    let header = |part: &str| match part.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err(invalid("catalog.headers", part, "is no header")
            .with_cure("write `Name: value; Name: value`")),
    };
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(header).collect()
}

fn storage_settings(raw: RawStorage) -> Result<StorageSettings> {
    Ok(StorageSettings {
        endpoint: set(raw.endpoint),
        region: set(raw.region),
        access_key_id: set(raw.access_key_id),
        secret_access_key: set(raw.secret_access_key).map(Into::into),
        session_token: set(raw.session_token).map(Into::into),
        path_style: yes_or_no("storage.path_style", raw.path_style)?,
        sse: set(raw.sse),
        sse_kms_key_id: set(raw.sse_kms_key_id),
        ..StorageSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn resolve(yaml: &str) -> Result<LakeSettings> {
        let raw = RawConfig::parse(yaml, "test").unwrap();
        LakeSettings::resolve(raw.lake, raw.catalog, raw.storage)
    }

    fn rest(yaml: &str) -> RestSettings {
        match resolve(yaml) {
            Ok(LakeSettings::Rest(rest, _)) => *rest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_catalog_is_known_by_its_url() {
        let nessie = rest("catalog: {url: nessie+http://h:1/iceberg, ref: ingest}");
        assert_eq!((nessie.uri.as_str(), nessie.is_nessie), ("http://h:1/iceberg", true));
        assert_eq!(nessie.reference.as_deref(), Some("ingest"));
        assert!(!rest("catalog: {url: rest+https://h/, warehouse: lake}").is_nessie);
        let postgres = resolve("catalog: {url: postgres://u:p@h/d, warehouse: s3://b/w}").unwrap();
        assert_eq!(postgres.to_string(), "s3://b/w, with a catalog in Postgres");
        assert!(!format!("{postgres:?}").contains("u:p"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (yaml, code) in [
            ("", "MISSING_SETTING"),
            ("catalog: {url: postgres://h/d}", "MISSING_SETTING"),
            ("lake: {into: x}\ncatalog: {url: rest+http://h}", "BAD_SETTING"),
            ("catalog: {url: http://h}", "BAD_SETTING"),
            ("catalog: {url: rest+http://h, ref: main}", "BAD_SETTING"),
            ("catalog: {url: rest+http://h, token: a, credential: b}", "BAD_SETTING"),
            ("catalog: {url: rest+http://h, headers: nonsense}", "BAD_SETTING"),
            ("catalog: {url: rest+http://h}\nstorage: {path_style: perhaps}", "BAD_SETTING"),
        ] {
            assert_eq!(resolve(yaml).unwrap_err().code(), code, "{yaml}");
        }
    }

    #[test]
    fn logins_and_headers_are_read() {
        let oauth = rest("catalog: {url: rest+http://h, credential: 'me:se:cret'}");
        assert!(matches!(oauth.login, Login::OAuth2 { client_id: Some(id), .. } if id == "me"));
        let headers = rest("catalog: {url: rest+http://h, headers: 'A: b; C: d:e'}").headers;
        assert_eq!(
            headers,
            BTreeMap::from([("A", "b"), ("C", "d:e")].map(|(a, b)| (a.into(), b.into())))
        );
        let headers = rest("catalog: {url: rest+http://h, headers: {A: 1}}").headers;
        assert_eq!(headers.get("A").map(String::as_str), Some("1"));
    }
}
