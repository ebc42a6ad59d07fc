//! The calls of the Iceberg REST protocol that frazil needs.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use iceberg::spec::TableMetadata;
use iceberg::{NamespaceIdent, TableIdent};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::iceberg::committer::{Birthplace, LakeCommit, NewTable};
use crate::iceberg::storage::LakeStorage;

use super::http::{Http, segment};
use super::settings::RestSettings;
use super::{torn, vended};

/// Pages of a listing that are followed, at most.
const PAGES_MAX: usize = 10_000;

const TRANSACTIONS: &str = "POST /v1/{prefix}/transactions/commit";

/// A catalog that has told its configuration.
pub(super) struct Catalog {
    pub(super) http: Http,
    pub(super) settings: RestSettings,
    uri: String,
    /// `<uri>/v1/<prefix>`.
    base: String,
    /// Defaults, then overrides.
    pub(super) properties: HashMap<String, String>,
    pub(super) is_torn: bool,
    pub(super) storage: LakeStorage,
    /// Sent when a table is loaded.
    delegation: HeaderMap,
    /// Places that were promised to tables that are not there yet.
    promised: tokio::sync::Mutex<HashMap<TableIdent, Birthplace>>,
    namespaces: Mutex<HashSet<NamespaceIdent>>,
}

/// `GET /v1/config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigAnswer {
    defaults: HashMap<String, String>,
    overrides: HashMap<String, String>,
    endpoints: Option<Vec<String>>,
}

/// A table as the catalog serves it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Loaded {
    pub(super) metadata_location: String,
    pub(super) metadata: TableMetadata,
    #[serde(flatten)]
    access: vended::Access,
}

/// A table that is staged and not made. Only what is needed of it: the metadata has no snapshot yet
/// and may lack what the crate asks for.
#[derive(Debug, Deserialize)]
struct StagedTable {
    metadata: StagedMetadata,
    #[serde(flatten)]
    access: vended::Access,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StagedMetadata {
    table_uuid: uuid::Uuid,
    location: String,
}

impl Catalog {
    /// Asks for the configuration (Iceberg REST spec, `getConfig`).
    pub(super) async fn connect(settings: RestSettings) -> Result<Self> {
        let http = Http::new(&settings)?;
        let uri = settings.uri.trim_end_matches('/').to_owned();
        let mut url = match &settings.reference {
            Some(reference) => format!("{uri}/{}/v1/config", segment(reference)),
            None => format!("{uri}/v1/config"),
        };
        if let Some(warehouse) = &settings.warehouse {
            url.push_str(&format!("?warehouse={}", segment(warehouse)));
        }
        let answer = http.get(&url, &HeaderMap::new()).await.map_err(refused_login)?;
        let answer = answer.ok_or_else(|| not_found(&url))?;
        let answer: ConfigAnswer = serde_json::from_value(answer).map_err(|e| {
            Error::fatal("CATALOG_ANSWER", format!("{url} is no catalog's configuration"))
                .with_source(e)
        })?;
        let can = |list: Vec<String>| list.iter().any(|endpoint| endpoint == TRANSACTIONS);
        let is_torn = !answer.endpoints.is_none_or(can);
        if is_torn && !settings.allow_torn_commits {
            return Err(torn());
        }
        let mut properties = answer.defaults;
        properties.extend(answer.overrides);
        let uri = properties.get("uri").map_or(uri, |u| u.trim_end_matches('/').to_owned());
        let base = match properties.get("prefix").filter(|prefix| !prefix.is_empty()) {
            Some(prefix) => format!("{uri}/v1/{}", prefix_path(prefix, settings.is_nessie)),
            None => format!("{uri}/v1"),
        };
        let delegation = delegation(&settings);
        Ok(Self {
            http,
            settings,
            uri,
            base,
            properties,
            is_torn,
            storage: LakeStorage::of_catalog(Default::default()),
            delegation,
            promised: tokio::sync::Mutex::default(),
            namespaces: Mutex::default(),
        })
    }

    /// Keys that the catalog vends go to `storage`.
    pub(super) fn with_storage(mut self, storage: LakeStorage) -> Self {
        self.storage = storage;
        self
    }

    pub(super) fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// What the catalog says of the storage.
    pub(super) fn storage_properties(&self) -> HashMap<String, String> {
        let of_storage = |key: &str| key.starts_with("s3.") || key.starts_with("client.");
        let found = self.properties.iter().filter(|(key, _)| of_storage(key));
        found.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// `loadTable`, with the current iceberg_snapshot and what refers to it only.
    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<Loaded>> {
        self.load_from(&self.base, ident).await
    }

    /// As [`Catalog::load`], in the state of another branch, tag or commit (Nessie): a prefix of
    /// its own.
    pub(super) async fn load_at(&self, at: &str, ident: &TableIdent) -> Result<Option<Loaded>> {
        let prefix = self.properties.get("prefix").map_or("", String::as_str);
        let prefix = match prefix.split_once('|') {
            Some((_, warehouse)) => format!("{at}|{warehouse}"),
            None => at.to_owned(),
        };
        let base = format!("{}/v1/{}", self.uri, prefix_path(&prefix, true));
        self.load_from(&base, ident).await
    }

    async fn load_from(&self, base: &str, ident: &TableIdent) -> Result<Option<Loaded>> {
        let table = table_url(base, ident);
        let url = format!("{table}?snapshots=refs");
        let answer = self.http.get(&url, &self.delegation).await;
        let Some(answer) = answer.map_err(|e| e.with_table(ident))? else { return Ok(None) };
        let loaded: Loaded = serde_json::from_value(answer).map_err(|e| {
            Error::fatal("LAKE_METADATA", "the catalog's answer is no table that frazil can read")
                .with_table(ident)
                .with_source(e)
        })?;
        self.take_keys(table, loaded.metadata.location(), &loaded.access)?;
        Ok(Some(loaded))
    }

    /// All tables of all namespaces at the top, in which frazil's are.
    pub(super) async fn tables(&self) -> Result<Vec<TableIdent>> {
        let mut found = Vec::new();
        for namespace in self.pages("namespaces", "namespaces").await? {
            let parts: Vec<String> = serde_json::from_value(namespace).unwrap_or_default();
            let Ok(namespace) = NamespaceIdent::from_vec(parts) else { continue };
            let path = format!("namespaces/{}/tables", namespace_path(&namespace));
            for ident in self.pages(&path, "identifiers").await? {
                if let Some(name) = ident.get("name").and_then(Value::as_str) {
                    found.push(TableIdent::new(namespace.clone(), name.to_owned()));
                }
            }
        }
        found.sort_by_key(|ident| (ident.namespace().join("."), ident.name().to_owned()));
        Ok(found)
    }

    /// All items of a listing, page by page; none of a thing that is not there.
    async fn pages(&self, path: &str, key: &str) -> Result<Vec<Value>> {
        let (mut items, mut page) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let url = format!("{}?pageToken={page}", self.url(path));
            let Some(mut answer) = self.http.get(&url, &HeaderMap::new()).await? else { break };
            if let Some(Value::Array(more)) = answer.get_mut(key).map(Value::take) {
                items.extend(more);
            }
            match answer.get("next-page-token").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => page = segment(next),
                _ => break,
            }
        }
        Ok(items)
    }

    /// Stages a table (`createTable` with `stage-create`): the catalog says where its files go.
    pub(super) async fn birthplace(
        &self,
        ident: &TableIdent,
        new: &NewTable,
    ) -> Result<Birthplace> {
        let mut promised = self.promised.lock().await;
        if let Some(place) = promised.get(ident) {
            return Ok(place.clone());
        }
        self.make_namespace(ident.namespace()).await?;
        let url = self.url(&format!("namespaces/{}/tables", namespace_path(ident.namespace())));
        let body = json!({
            "name": ident.name(),
            "schema": new.schema,
            "stage-create": true,
            "properties": {"format-version": "2"},
        });
        let answer = self.http.send(Method::POST, &url, &self.delegation, Some(&body)).await?;
        if !answer.status.is_success() {
            return Err(answer.error(&url).with_table(ident));
        }
        let staged: StagedTable = serde_json::from_value(answer.json()?).map_err(|e| {
            Error::fatal("CATALOG_ANSWER", "the catalog did not say where a new table goes")
                .with_table(ident)
                .with_source(e)
        })?;
        let StagedMetadata { table_uuid: uuid, location } = staged.metadata;
        let place = Birthplace { location: location.trim_end_matches('/').to_owned(), uuid };
        self.take_keys(table_url(&self.base, ident), &place.location, &staged.access)?;
        promised.insert(ident.clone(), place.clone());
        Ok(place)
    }

    /// The places of tables that are there now need not be remembered.
    pub(super) async fn born(&self, lake_commit: &LakeCommit) {
        for change in lake_commit.changes.iter().filter(|c| c.create.is_some()) {
            self.promised.lock().await.remove(&change.ident);
        }
    }

    async fn make_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        if self.namespaces().contains(namespace) {
            return Ok(());
        }
        let url = self.url(&format!("namespaces/{}", namespace_path(namespace)));
        if self.http.get(&url, &HeaderMap::new()).await?.is_none() {
            let body = json!({"namespace": namespace, "properties": {}});
            let url = self.url("namespaces");
            let answer = self.http.send(Method::POST, &url, &HeaderMap::new(), Some(&body)).await?;
            // Another one may have been first.
            if !answer.status.is_success() && answer.status != StatusCode::CONFLICT {
                return Err(answer.error(&url));
            }
        }
        self.namespaces().insert(namespace.clone());
        Ok(())
    }

    fn namespaces(&self) -> std::sync::MutexGuard<'_, HashSet<NamespaceIdent>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the keys that came with a table to the storage.
    fn take_keys(&self, table_url: String, location: &str, access: &vended::Access) -> Result<()> {
        if self.settings.vended_credentials == Some(false) || self.storage.has_vended(location) {
            return Ok(());
        }
        let Some(keys) = access.keys(location) else { return Ok(()) };
        let refresh = vended::refresh(
            self.settings.clone(),
            table_url,
            (location.to_owned(), self.delegation.clone()),
        );
        self.storage.vend(location, keys, refresh)
    }
}

/// What is asked of the catalog with each table. Keys of our own make remote signing, which a
/// catalog may think of by default, unnecessary.
fn delegation(settings: &RestSettings) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if settings.vended_credentials != Some(false) {
        let name = HeaderName::from_static("x-iceberg-access-delegation");
        headers.insert(name, HeaderValue::from_static("vended-credentials"));
    }
    headers
}

fn table_url(base: &str, ident: &TableIdent) -> String {
    let namespace = namespace_path(ident.namespace());
    format!("{base}/namespaces/{namespace}/tables/{}", segment(ident.name()))
}

/// Levels of a namespace are separated by the unit separator (Iceberg REST spec).
fn namespace_path(namespace: &NamespaceIdent) -> String {
    segment(&namespace.as_ref().join("\u{1f}"))
}

/// The prefix as part of a path. Nessie's is one segment, `branch|warehouse`, and a branch's name
/// may hold a slash; elsewhere a prefix may be several segments.
fn prefix_path(prefix: &str, is_nessie: bool) -> String {
    match is_nessie {
        true => segment(prefix),
        false => prefix.split('/').map(segment).collect::<Vec<_>>().join("/"),
    }
}

/// At the very start a refused login is a setting that is wrong; later it may pass.
fn refused_login(error: Error) -> Error {
    match error.code() {
        "CATALOG_AUTH" => {
            let cure = error.cure().unwrap_or_default().to_owned();
            Error::config("CATALOG_AUTH", "the catalog refuses the login")
                .with_cure(cure)
                .with_source(error)
        }
        _ => error,
    }
}

fn not_found(url: &str) -> Error {
    Error::config("CATALOG_NOT_FOUND", format!("there is no catalog at {url}")).with_cure(
        "are the URL, --ref and --warehouse right? Nessie's is http://host:19120/iceberg",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_one_segment_or_several() {
        assert_eq!(prefix_path("feature/x|wh", true), "feature%2Fx%7Cwh");
        assert_eq!(prefix_path("catalogs/a b", false), "catalogs/a%20b");
    }

    #[test]
    fn levels_of_a_namespace_are_separated() {
        let namespace = NamespaceIdent::from_vec(vec!["a".into(), "b.c".into()]).unwrap();
        assert_eq!(namespace_path(&namespace), "a%1Fb.c");
    }
}
