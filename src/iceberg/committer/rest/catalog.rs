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
use crate::iceberg::ledger::PIPELINE_KEY;
use crate::iceberg::row_delta::Staged;
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

impl ConfigAnswer {
    fn read(answer: Value, url: &str) -> Result<Self> {
        let read = match answer.is_object() {
            true => serde_json::from_value(answer).map_err(|e| e.to_string()),
            false => Err("it is no object".to_owned()),
        };
        read.map_err(|e| not_found(url).with_source(e))
    }
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
        let answer = http.get(&url, &HeaderMap::new()).await;
        let answer = answer.map_err(|e| refused_at_the_start(e, &url))?;
        let answer = answer.ok_or_else(|| not_found(&url))?;
        let answer = ConfigAnswer::read(answer, &url)?;
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

    /// Whether it is a Nessie, by its own words or ours.
    pub(super) fn is_nessie(&self) -> bool {
        let says = self.properties.get("nessie.is-nessie-catalog");
        self.settings.is_nessie || says.is_some_and(|says| says == "true")
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

    /// A table that no path can name, or that Nessie would look for elsewhere.
    fn check_name(&self, ident: &TableIdent) -> Result<()> {
        let mut parts = ident.namespace().as_ref().iter().chain([&ident.name]);
        let is_no_segment = parts.any(|part| matches!(part.as_str(), "." | ".."));
        if is_no_segment || (self.is_nessie() && !nessie_takes(ident.name())) {
            let what = "the catalog can't have a table of this name";
            return Err(Error::table("TABLE_NAME", ident, what)
                .with_cure("rename it, or leave it out: --tables '!schema.table'"));
        }
        Ok(())
    }

    /// `loadTable`, with the current iceberg_snapshot and what refers to it only.
    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<Loaded>> {
        self.load_from(&self.base, ident, "refs").await
    }

    /// As [`Catalog::load`], with all iceberg_snapshots that the catalog remembers.
    pub(super) async fn load_whole(&self, ident: &TableIdent) -> Result<Option<Loaded>> {
        self.load_from(&self.base, ident, "all").await
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
        self.load_from(&base, ident, "refs").await
    }

    async fn load_from(
        &self,
        base: &str,
        ident: &TableIdent,
        snapshots: &str,
    ) -> Result<Option<Loaded>> {
        self.check_name(ident)?;
        let table = table_url(base, ident);
        let url = format!("{table}?snapshots={snapshots}");
        let answer = self.http.get(&url, &self.delegation).await;
        let Some(mut answer) = answer.map_err(|e| e.with_table(ident))? else { return Ok(None) };
        not_before_its_snapshots(&mut answer);
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
        self.check_name(ident)?;
        self.make_namespace(ident.namespace()).await?;
        let url = self.url(&format!("namespaces/{}/tables", namespace_path(ident.namespace())));
        // Nessie breaks over the key of a first schema whose field ids it changes: an array before
        // the key is enough. Only the place is wanted here.
        let schema = match self.is_nessie() {
            true => json!({ "type": "struct", "fields": [] }),
            false => json!(new.schema),
        };
        let body = json!({
            "name": ident.name(),
            "schema": schema,
            "stage-create": true,
            "properties": {"format-version": "2"},
        });
        let answer = self.http.send(Method::POST, &url, &self.delegation, Some(&body)).await?;
        if answer.status == StatusCode::CONFLICT
            && let Some(made) = self.load(ident).await?
        {
            // Made empty by a try that broke off.
            let location = made.metadata.location().trim_end_matches('/').to_owned();
            let uuid = made.metadata.uuid();
            return Ok(Birthplace { location, uuid, renumbers: false });
        }
        if !answer.status.is_success() {
            return Err(answer.error(&url).with_table(ident));
        }
        let staged: StagedTable = serde_json::from_value(answer.json()?).map_err(|e| {
            Error::fatal("CATALOG_ANSWER", "the catalog did not say where a new table goes")
                .with_table(ident)
                .with_source(e)
        })?;
        let StagedMetadata { table_uuid: uuid, location } = staged.metadata;
        let location = location.trim_end_matches('/').to_owned();
        let place = Birthplace { location, uuid, renumbers: self.is_nessie() };
        self.take_keys(table_url(&self.base, ident), &place.location, &staged.access)?;
        promised.insert(ident.clone(), place.clone());
        Ok(place)
    }

    /// Makes a table without rows, for a catalog that makes none within a transaction.
    pub(super) async fn make_empty(&self, staged: &Staged, pipeline_id: &str) -> Result<()> {
        let (ident, metadata) = (&staged.ident, staged.table.metadata());
        let namespace = namespace_path(ident.namespace());
        let url = self.url(&format!("namespaces/{namespace}/tables"));
        let mut properties = metadata.properties().clone();
        properties.insert("format-version".to_owned(), "2".to_owned());
        properties.insert(PIPELINE_KEY.to_owned(), pipeline_id.to_owned());
        let body = json!({
            "name": ident.name(),
            "location": metadata.location(),
            "schema": metadata.current_schema().as_ref(),
            "stage-create": false,
            "properties": properties,
        });
        let answer = self.http.send(Method::POST, &url, &HeaderMap::new(), Some(&body)).await?;
        match answer.status.is_success() || answer.status == StatusCode::CONFLICT {
            true => Ok(()),
            false => Err(answer.error(&url).with_table(ident)),
        }
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

/// Nessie reads `t@r` as the table `t` of the branch `r`, `t#h` as one at a hash or a time, takes
/// quotes around a name away (its `TableReference`), and makes a path of it that may not lead up.
fn nessie_takes(name: &str) -> bool {
    let is_quoted = ['`', '\''].iter().any(|q| name.starts_with(*q) && name.ends_with(*q));
    let leads_up = name.split('/').any(|part| matches!(part, "." | ".."));
    !name.contains(['@', '#']) && !is_quoted && !leads_up
}

/// A catalog may note the time of a change by its own clock, which may be behind that of whoever
/// made the iceberg_snapshot; the crate then takes the table for a broken one.
fn not_before_its_snapshots(answer: &mut Value) {
    let Some(metadata) = answer.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let lists = ["snapshots", "snapshot-log"].iter().filter_map(|key| metadata.get(*key));
    let all = lists.filter_map(Value::as_array).flatten();
    let latest = all.filter_map(|one| one.get("timestamp-ms").and_then(Value::as_i64)).max();
    let noted = metadata.get("last-updated-ms").and_then(Value::as_i64);
    if let (Some(latest), Some(noted)) = (latest, noted) {
        metadata.insert("last-updated-ms".to_owned(), latest.max(noted).into());
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

/// Levels of a namespace are separated by the unit separator (Iceberg REST spec). frazil's own have
/// one level; a catalog that wishes for another separator would take a name that holds it apart.
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

/// At the very start a refusal is a setting that is wrong; later it may pass.
fn refused_at_the_start(error: Error, url: &str) -> Error {
    let made = match error.code() {
        "CATALOG_AUTH" => Error::config("CATALOG_AUTH", "the catalog refuses the login")
            .with_cure(error.cure().unwrap_or_default()),
        "CATALOG_REFUSED" | "CATALOG_ANSWER" => not_found(url),
        _ => return error,
    };
    made.with_source(error)
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
