//! What Nessie has beyond the Iceberg REST protocol: branches, tags, and a log in which each lake
//! commit is one entry (Nessie REST API v2). The entry carries the ledger's record as properties,
//! so that the log reads as the history of the source, and an LSN leads to a commit hash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::TableIdent;
use iceberg::table::Table;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::iceberg::committer::PastCommit;
use crate::iceberg::committer::staging::build_table;
use crate::iceberg::ledger::{LedgerRecord, PIPELINE_KEY, ROWS_KEY};

use super::catalog::Catalog;
use super::http::{Answer, Http, segment};

/// Entries of a page of a listing or of the log.
const PAGE: usize = 250;
/// Entries of the log that are looked at, at most.
const LOG_MAX: usize = 1_000_000;
/// Longest value of a header that is sent; longer row counts are left out.
const HEADER_MAX: usize = 4096;

/// A branch or a tag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reference {
    /// Branch or tag.
    #[serde(rename = "type")]
    pub kind: ReferenceKind,
    /// Its name.
    pub name: String,
    /// The commit it points to.
    #[serde(default)]
    pub hash: String,
}

/// Kinds of references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReferenceKind {
    /// Moves with each commit.
    Branch,
    /// Stays.
    Tag,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its hash.
    pub hash: String,
    /// First line and the rest.
    pub message: String,
    /// Who.
    pub author: String,
    /// When, RFC 3339.
    pub time: String,
    /// What stands beside the message.
    pub properties: HashMap<String, String>,
}

/// How a table differs between two states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `namespace.name`.
    pub key: String,
    /// Its metadata file in the first state; `None` where it is not there.
    pub from: Option<String>,
    /// Its metadata file in the second state.
    pub to: Option<String>,
}

/// Nessie's own side of a catalog.
pub struct Nessie {
    catalog: Arc<Catalog>,
    /// `http://host:19120/api/v2`.
    api: String,
    reference: String,
}

impl Nessie {
    /// Nessie's side of `catalog`, if it says it is one.
    ///
    /// # Errors
    /// `CATALOG_REF` (config) where the branch is not there; `CATALOG_DOWN` (transient).
    pub(super) async fn of(catalog: &Arc<Catalog>) -> Result<Option<Self>> {
        let property = |key: &str| catalog.properties.get(key);
        if !catalog.is_nessie() {
            return Ok(None);
        }
        let uri = catalog.settings.uri.trim_end_matches('/');
        let root = uri.strip_suffix("/iceberg").unwrap_or(uri);
        let api = match property("nessie.core-base-uri") {
            Some(core) => format!("{}/v2", core.trim_end_matches('/')),
            None => format!("{root}/api/v2"),
        };
        let standard = property("nessie.default-branch.name").or(property("prefix"));
        let standard = standard.and_then(|name| name.split('|').next()).unwrap_or("main");
        let reference = catalog.settings.reference.clone();
        let reference = reference.unwrap_or_else(|| standard.to_owned());
        let nessie = Self { catalog: Arc::clone(catalog), api, reference };
        let mut found = nessie.find(&nessie.reference).await?;
        if let (None, Some(from)) = (&found, &catalog.settings.branch_from) {
            let from =
                nessie.find(from).await?.ok_or_else(|| bad_reference(from, "does not exist"))?;
            nessie.make(ReferenceKind::Branch, &nessie.reference, &from).await?;
            tracing::info!(branch = nessie.reference, from = from.name, "the branch is made");
            found = nessie.find(&nessie.reference).await?;
        }
        match found {
            Some(found) if found.kind == ReferenceKind::Branch => Ok(Some(nessie)),
            Some(_) => {
                Err(bad_reference(&nessie.reference, "is a tag: nothing can be written there"))
            }
            None => Err(bad_reference(&nessie.reference, "does not exist")),
        }
    }

    /// The branch that is written to.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    fn http(&self) -> &Http {
        &self.catalog.http
    }

    async fn get(&self, path: &str) -> Result<Option<Value>> {
        self.http().get(&format!("{}/{path}", self.api), &HeaderMap::new()).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let url = format!("{}/{path}", self.api);
        let answer = self.http().send(method, &url, &HeaderMap::new(), body).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(answer.error(&url)),
        }
    }

    /// All items below `key` of a listing, page by page, until `most`.
    async fn pages(&self, path: &str, key: &str, most: usize) -> Result<Option<Vec<Value>>> {
        let (mut items, mut page) = (Vec::new(), String::new());
        let join = if path.contains('?') { '&' } else { '?' };
        while items.len() < most {
            let records = PAGE.min(most - items.len());
            let path = format!("{path}{join}max-records={records}{page}");
            let Some(mut answer) = self.get(&path).await? else { return Ok(None) };
            match answer.get_mut(key).map(Value::take) {
                Some(Value::Array(more)) if !more.is_empty() => items.extend(more),
                _ => break,
            }
            match answer.get("token").and_then(Value::as_str) {
                Some(token) if answer.get("hasMore") == Some(&Value::Bool(true)) => {
                    page = format!("&page-token={}", segment(token));
                }
                _ => break,
            }
        }
        Ok(Some(items))
    }

    /// A branch or tag.
    ///
    /// # Errors
    /// `CATALOG_DOWN` (transient).
    pub async fn find(&self, name: &str) -> Result<Option<Reference>> {
        let Some(answer) = self.get(&format!("trees/{}", segment(name))).await? else {
            return Ok(None);
        };
        read(answer.get("reference").cloned().unwrap_or_default()).map(Some)
    }

    /// All branches and tags.
    ///
    /// # Errors
    /// `CATALOG_DOWN` (transient).
    pub async fn references(&self) -> Result<Vec<Reference>> {
        let found = self.pages("trees", "references", LOG_MAX).await?.unwrap_or_default();
        found.into_iter().map(read).collect()
    }

    /// The log of a branch, tag or `name@hash`, newest first, `most` entries at most.
    ///
    /// # Errors
    /// `CATALOG_REF` (config) where it does not exist; `CATALOG_DOWN` (transient).
    pub async fn log(&self, reference: &str, most: usize) -> Result<Vec<LogEntry>> {
        let path = format!("trees/{}/history", reference_path(reference));
        let found = self.pages(&path, "logEntries", most).await?;
        let found = found.ok_or_else(|| bad_reference(reference, "does not exist"))?;
        Ok(found.iter().filter_map(|entry| entry.get("commitMeta")).map(log_entry).collect())
    }

    /// The lake commits of `pipeline` on a branch or tag, newest first. The log is read page by
    /// page, as far as it takes to find `most`.
    ///
    /// # Errors
    /// As [`Nessie::log`].
    pub async fn lake_commits(
        &self,
        reference: &str,
        pipeline: &str,
        most: usize,
    ) -> Result<Vec<PastCommit>> {
        let mut found = Vec::new();
        self.each_lake_commit(reference, pipeline, |past| {
            found.push(past);
            found.len() < most
        })
        .await?;
        found.truncate(most);
        Ok(found)
    }

    /// The newest lake commit of `pipeline` that `is_wanted`.
    ///
    /// # Errors
    /// As [`Nessie::log`].
    pub async fn find_lake_commit(
        &self,
        reference: &str,
        pipeline: &str,
        is_wanted: impl Fn(&PastCommit) -> bool,
    ) -> Result<Option<PastCommit>> {
        let mut found = None;
        self.each_lake_commit(reference, pipeline, |past| {
            if is_wanted(&past) {
                found = Some(past);
            }
            found.is_none()
        })
        .await?;
        Ok(found)
    }

    async fn each_lake_commit(
        &self,
        reference: &str,
        pipeline: &str,
        mut more: impl FnMut(PastCommit) -> bool,
    ) -> Result<()> {
        let mut at = reference.to_owned();
        let mut seen: Option<String> = None;
        loop {
            let entries = self.log(&at, PAGE).await?;
            let is_whole = entries.len() < PAGE;
            for entry in entries {
                // The first of a further page is the last of the one before.
                if seen.as_ref() == Some(&entry.hash) {
                    continue;
                }
                seen = Some(entry.hash.clone());
                let Some(past) = past_commit(&entry, pipeline) else { continue };
                if !more(past) {
                    return Ok(());
                }
            }
            match &seen {
                Some(last) if !is_whole => {
                    let name = reference.split('@').next().unwrap_or(reference);
                    at = format!("{name}@{last}");
                }
                _ => return Ok(()),
            }
        }
    }

    /// Makes a branch or tag at a commit of another reference.
    ///
    /// # Errors
    /// `CATALOG_REF` (config) where the name is taken or no name; `CATALOG_DOWN` (transient).
    pub async fn make(&self, kind: ReferenceKind, name: &str, from: &Reference) -> Result<()> {
        let kind = match kind {
            ReferenceKind::Branch => "BRANCH",
            ReferenceKind::Tag => "TAG",
        };
        let path = format!("trees?name={}&type={kind}", segment(name));
        let body = json!({"type": "BRANCH", "name": from.name, "hash": from.hash});
        let made = self.send(Method::POST, &path, Some(&body)).await;
        made.map(|_| ()).map_err(|error| match error.code() {
            "LAKE_CONFLICT" => bad_reference(name, "exists already"),
            "CATALOG_REFUSED" => bad_reference(name, "is no name for a branch or tag")
                .with_cure("use letters, digits, and . _ - / in between")
                .with_source(error),
            _ => error,
        })
    }

    /// Merges all that `from` holds into the branch `into`; false if it has all of it already.
    ///
    /// # Errors
    /// `PUBLISH_CONFLICT` (conflict) where `into` was changed by others; `CATALOG_REF` (config);
    /// `CATALOG_DOWN` (transient).
    pub async fn merge(
        &self,
        from: &Reference,
        into: &str,
        (message, properties): (&str, &BTreeMap<String, String>),
    ) -> Result<bool> {
        let target = self.find(into).await?;
        let target = target.ok_or_else(|| bad_reference(into, "does not exist"))?;
        if self.log(into, 1).await?.is_empty() {
            return self.move_branch(&target, from).await.map(|()| true);
        }
        let path = format!("trees/{}/history/merge", reference_at(&target));
        let all: BTreeMap<&String, [&String; 1]> =
            properties.iter().map(|(key, value)| (key, [value])).collect();
        let body = json!({
            "fromRefName": from.name,
            "fromHash": from.hash,
            "commitMeta": {"message": message, "authors": ["frazil"], "allProperties": all},
        });
        let merged = self.send(Method::POST, &path, Some(&body)).await;
        let answer = merged.map_err(|error| match error.code() {
            "LAKE_CONFLICT" => {
                let what = format!("{} cannot be merged into {into}", from.name);
                Error::conflict("PUBLISH_CONFLICT", what)
                    .with_cure("only frazil may write these tables there; see `frazil lake diff`")
                    .with_source(error)
            }
            _ => error,
        })?;
        Ok(answer.json()?.get("wasApplied") == Some(&Value::Bool(true)))
    }

    /// Lets an empty branch begin where `to` stands: there is nothing to merge with.
    async fn move_branch(&self, branch: &Reference, to: &Reference) -> Result<()> {
        let body = json!({"type": "BRANCH", "name": to.name, "hash": to.hash});
        let path = format!("trees/{}?type=BRANCH", reference_at(branch));
        self.send(Method::PUT, &path, Some(&body)).await.map(|_| ())
    }

    /// A table as it stands at a commit.
    ///
    /// # Errors
    /// `CATALOG_DOWN` (transient).
    pub async fn table_at(&self, at: &Reference, ident: &TableIdent) -> Result<Option<Table>> {
        let reference = format!("{}@{}", at.name, at.hash);
        let Some(loaded) = self.catalog.load_at(&reference, ident).await? else { return Ok(None) };
        let location = Some(loaded.metadata_location);
        build_table(&self.catalog.storage, ident.clone(), location, loaded.metadata).map(Some)
    }

    /// The tables that differ between two states, each a branch, tag or `name@hash`.
    ///
    /// # Errors
    /// `CATALOG_REF` (config) where one does not exist; `CATALOG_DOWN` (transient).
    pub async fn diff(&self, from: &str, to: &str) -> Result<Vec<Difference>> {
        let path = format!("trees/{}/diff/{}", reference_path(from), reference_path(to));
        let found = self.pages(&path, "diffs", LOG_MAX).await?;
        let found =
            found.ok_or_else(|| bad_reference(&format!("{from} or {to}"), "does not exist"))?;
        let location = |side: &Value, name: &str| {
            let found = side.pointer(&format!("/{name}/metadataLocation"));
            found.and_then(Value::as_str).map(str::to_owned)
        };
        let difference = |one: &Value| {
            let parts = one.pointer("/key/elements").and_then(Value::as_array);
            let parts = parts.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
            let (from, to) = (location(one, "from"), location(one, "to"));
            // Namespaces have no metadata file.
            (from.is_some() || to.is_some()).then(|| Difference { key: parts.join("."), from, to })
        };
        Ok(found.iter().filter_map(difference).collect())
    }
}

impl std::fmt::Debug for Nessie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nessie").field("api", &self.api).finish_non_exhaustive()
    }
}

/// Message, author and properties of the commit, as request headers (Nessie, Iceberg REST).
///
/// # Errors
/// `CATALOG_SETTING` (config) where a value cannot stand in a header.
pub(super) fn commit_headers(record: &LedgerRecord) -> Result<HeaderMap> {
    let mut named = BTreeMap::from([
        ("nessie-commit-message".to_owned(), message(record)),
        ("nessie-commit-authors".to_owned(), format!("frazil {}", record.pipeline_id)),
    ]);
    for (key, value) in record.to_properties() {
        let value = if key == ROWS_KEY { ascii_json(&value) } else { value };
        if value.len() <= HEADER_MAX && !value.is_empty() {
            named.insert(format!("nessie-commit-property-{key}"), value);
        }
    }
    super::http::header_map(&named)
}

/// What a person reads in the log.
fn message(record: &LedgerRecord) -> String {
    let rows: u64 = record.rows.values().sum();
    format!(
        "{}: {} source transactions, {rows} rows in {} tables",
        record.committed_lsn,
        record.source_transactions,
        record.rows.len()
    )
}

/// JSON with everything beyond ASCII escaped (RFC 8259, section 7): headers are ASCII.
fn ascii_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for unit in json.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() && byte >= b' ' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

/// A lake commit of `pipeline`, if the entry is one.
fn past_commit(entry: &LogEntry, pipeline: &str) -> Option<PastCommit> {
    let mut properties = entry.properties.clone();
    if properties.get(PIPELINE_KEY).map(String::as_str) != Some(pipeline) {
        return None;
    }
    properties.entry(ROWS_KEY.to_owned()).or_insert_with(|| "{}".to_owned());
    let record = LedgerRecord::from_properties(&properties).ok()?;
    let time = humantime::parse_rfc3339_weak(&entry.time).ok()?;
    let time_ms = time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    let time_ms = i64::try_from(time_ms).ok()?;
    Some(PastCommit { time_ms, record, hash: Some(entry.hash.clone()) })
}

fn log_entry(meta: &Value) -> LogEntry {
    let text = |key: &str| meta.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let first = |list: &Value| list.get(0).and_then(Value::as_str).map(str::to_owned);
    let properties = meta.get("allProperties").and_then(Value::as_object);
    let properties = properties.into_iter().flatten();
    LogEntry {
        hash: text("hash"),
        message: text("message"),
        author: meta.get("authors").and_then(first).unwrap_or_default(),
        time: text("commitTime"),
        properties: properties.filter_map(|(k, v)| Some((k.clone(), first(v)?))).collect(),
    }
}

fn read(value: Value) -> Result<Reference> {
    serde_json::from_value(value).map_err(|e| {
        Error::fatal("CATALOG_ANSWER", "Nessie's answer names no branch or tag").with_source(e)
    })
}

/// `name` or `name@hash` as one segment of a path.
fn reference_path(reference: &str) -> String {
    match reference.split_once('@') {
        Some((name, hash)) => format!("{}@{hash}", segment(name)),
        None => segment(reference),
    }
}

fn reference_at(reference: &Reference) -> String {
    format!("{}@{}", segment(&reference.name), reference.hash)
}

fn bad_reference(name: &str, what: &str) -> Error {
    Error::config("CATALOG_REF", format!("the branch or tag {name} {what}")).with_cure(
        "see what there is with `frazil lake refs`; a branch is made by `frazil lake branch`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_header_is_ascii() {
        let text = ascii_json("{\"app.żółw𝄞\":1}");
        assert!(text.is_ascii());
        let back: BTreeMap<String, u64> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, BTreeMap::from([("app.żółw𝄞".to_owned(), 1)]));
    }

    #[test]
    fn references_stand_in_paths() {
        assert_eq!(reference_path("feature/x@abc"), "feature%2Fx@abc");
        assert_eq!(reference_path("main"), "main");
    }
}
