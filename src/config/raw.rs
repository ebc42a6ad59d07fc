//! What was typed: the file, the environment and the flags, before any of it is judged.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A setting as it was typed: text, a number or a yes/no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scalar(pub String);

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Typed {
            Text(String),
            Int(i64),
            Float(f64),
            Bool(bool),
        }
        Ok(Self(match Typed::deserialize(from)? {
            Typed::Text(text) => text,
            Typed::Int(number) => number.to_string(),
            Typed::Float(number) => number.to_string(),
            Typed::Bool(flag) => flag.to_string(),
        }))
    }
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

section! {
    /// The configuration file (`--config`), `docs/frazil.yaml` is the full example.
    RawConfig {
        /// The database.
        source: RawSource,
        /// The lake.
        lake: RawLake,
        /// A catalog that serves the lake, where it is not in a folder.
        catalog: RawCatalog,
        /// Where a catalog's files are.
        storage: RawStorage,
        /// Write, audit, publish.
        publish: RawPublish,
        /// What is special about some tables.
        tables: RawTables,
        /// The copy before the stream.
        initial_snapshot: RawInitialSnapshot,
        /// Lake commits.
        commit: RawCommit,
        /// Limits.
        memory: RawMemory,
        /// Lake types of columns, by `schema.table.column`.
        types: BTreeMap<String, Scalar>,
        /// Values without a place in the lake.
        values: RawValues,
    }
}

section! {
    /// `source:`
    RawSource {
        /// Connection string.
        url: Option<Scalar>,
        /// Replication slot; default `frazil`.
        slot: Option<Scalar>,
        /// Publication; default `frazil`.
        publication: Option<Scalar>,
        /// Table patterns; default all.
        tables: Option<Scalar>,
        /// `stop` or `resync`; default `stop`.
        on_slot_loss: Option<Scalar>,
        /// `auto`, `on` or `off`; default `auto`.
        failover: Option<Scalar>,
        /// `any` or `none`; default `any`.
        origin: Option<Scalar>,
        /// Whether source transactions arrive before they commit; default `off`.
        streaming: Option<Scalar>,
    }
}

section! {
    /// `lake:`
    RawLake {
        /// The lake's folder.
        into: Option<Scalar>,
        /// How often a tag is made on Nessie; default never.
        tag_interval: Option<Scalar>,
        /// Accept a catalog that commits tables one by one.
        allow_torn_commits: Option<Scalar>,
    }
}

section! {
    /// `catalog:`
    RawCatalog {
        /// `nessie+http://...`, `rest+https://...` or `postgres://...`.
        url: Option<Scalar>,
        /// Branch to write to (Nessie).
        r#ref: Option<Scalar>,
        /// The catalog's name for the warehouse; for `postgres://` where files go.
        warehouse: Option<Scalar>,
        /// Bearer token.
        token: Option<Scalar>,
        /// File with a bearer token.
        token_file: Option<Scalar>,
        /// OAuth2 client credentials, `id:secret`.
        credential: Option<Scalar>,
        /// Where tokens are given.
        oauth2_server_uri: Option<Scalar>,
        /// Scope; default `catalog`.
        oauth2_scope: Option<Scalar>,
        /// Headers of every request.
        headers: Option<Headers>,
        /// PEM file with certificate authorities.
        ca_file: Option<Scalar>,
        /// Proxy for all requests.
        proxy: Option<Scalar>,
        /// Default `10s`.
        connect_timeout: Option<Scalar>,
        /// Default `60s`.
        request_timeout: Option<Scalar>,
        /// Whether the catalog is asked for storage keys; default `auto`.
        vended_credentials: Option<Scalar>,
    }
}

section! {
    /// `storage:`
    RawStorage {
        /// S3 endpoint.
        endpoint: Option<Scalar>,
        /// S3 region.
        region: Option<Scalar>,
        /// Access key.
        access_key_id: Option<Scalar>,
        /// Its secret.
        secret_access_key: Option<Scalar>,
        /// Token of temporary keys.
        session_token: Option<Scalar>,
        /// Buckets by path or by host name.
        path_style: Option<Scalar>,
        /// Server-side encryption.
        sse: Option<Scalar>,
        /// Key for `aws:kms`.
        sse_kms_key_id: Option<Scalar>,
    }
}

section! {
    /// `publish:`
    RawPublish {
        /// Branch that is written to.
        branch: Option<Scalar>,
        /// Branch that readers see.
        into: Option<Scalar>,
        /// How often; default `10s`.
        interval: Option<Scalar>,
        /// What must hold.
        checks: Option<Vec<RawCheck>>,
    }
}

section! {
    /// An entry of `publish.checks:`
    RawCheck {
        /// `schema.table`.
        table: Option<Scalar>,
        /// Fewest rows.
        rows_min: Option<Scalar>,
        /// Most rows.
        rows_max: Option<Scalar>,
        /// How many rows it may lose against what is published, as `10%`.
        rows_drop_max: Option<Scalar>,
    }
}

/// Headers as they were typed: a map, or `Name: value; Name: value` (from the environment).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Headers {
    /// By name.
    Map(BTreeMap<String, Scalar>),
    /// In one text.
    Text(String),
}

section! {
    /// `tables:`
    RawTables {
        /// Patterns of tables whose rows are addressed by `_pg_key`; default none.
        hidden_key: Option<Scalar>,
    }
}

section! {
    /// `initial_snapshot:`
    RawInitialSnapshot {
        /// `initial`, `never` or `only`.
        mode: Option<Scalar>,
        /// Longest wait for the slot; default `10m`.
        slot_timeout: Option<Scalar>,
        /// Connections that copy; default 2.
        workers: Option<Scalar>,
        /// Most WAL that the source may keep for a copy, or `unlimited`; default `unlimited`.
        retained_wal_max: Option<Scalar>,
    }
}

section! {
    /// `commit:`
    RawCommit {
        /// Longest wait for a lake commit; default `5s`.
        interval: Option<Scalar>,
    }
}

section! {
    /// `values:`
    RawValues {
        /// `raw`, `error` or `clamp`; default `raw`.
        on_unrepresentable: Option<Scalar>,
        /// The same for one table, by `schema.table`.
        tables: BTreeMap<String, Scalar>,
    }
}

section! {
    /// `memory:`
    RawMemory {
        /// Raw WAL in memory; default `128MiB`.
        window_bytes_max: Option<Scalar>,
        /// Largest single value; default `1GiB`.
        max_value_bytes: Option<Scalar>,
    }
}

impl RawConfig {
    /// Reads a file.
    pub fn read(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::config("CONFIG_FILE", format!("cannot read {}", path.display())).with_source(e)
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads YAML text; `name` is for the message.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|e| {
            let message = e.to_string();
            let error = Error::config("BAD_CONFIG", format!("{name}: {message}"));
            match did_you_mean(&message) {
                Some(cure) => error.with_cure(cure),
                None => error,
            }
        })
    }

    /// Takes the settings that `variables` (names and values) hold: `FRAZIL_COMMIT__INTERVAL=1s`.
    pub fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut root = Map::new();
        for (name, value) in variables {
            let Some(path) = name.strip_prefix("FRAZIL_") else { continue };
            let Some((section, key)) = path.split_once("__") else { continue };
            let section = root.entry(section.to_lowercase()).or_insert_with(|| Map::new().into());
            if let Value::Object(section) = section {
                section.insert(key.to_lowercase(), Value::String(value));
            }
        }
        serde_json::from_value(Value::Object(root)).map_err(|e| {
            let message = e.to_string();
            let error = Error::config("BAD_CONFIG", format!("environment: {message}"));
            match did_you_mean(&message) {
                Some(cure) => error.with_cure(cure),
                None => error,
            }
        })
    }

    /// `self` where it says something, `below` elsewhere.
    pub fn over(self, below: Self) -> Result<Self> {
        let broken = |e| Error::fatal("CONFIG_MERGE", "settings do not merge").with_source(e);
        let mut merged = serde_json::to_value(below).map_err(broken)?;
        lay_over(&mut merged, serde_json::to_value(self).map_err(broken)?);
        serde_json::from_value(merged).map_err(broken)
    }
}

fn lay_over(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (below, above) => *below = above,
    }
}

/// From "unknown field `x`, expected one of a, b" (with or without backticks) to "did you mean
/// `a`?".
fn did_you_mean(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (typed, rest) = rest.split_once('`')?;
    let (_, expected) = rest.split_once("expected ")?;
    let expected = expected.lines().next()?.trim_start_matches("one of ");
    let known: Vec<&str> =
        expected.split(", ").filter_map(|key| key.trim_matches('`').split('`').next()).collect();
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(typed, a).total_cmp(&strsim::jaro_winkler(typed, b)))?;
    if strsim::jaro_winkler(typed, nearest) > 0.7 {
        return Some(format!("did you mean `{nearest}`?"));
    }
    Some(format!("known keys are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let error = RawConfig::parse("commit:\n  intervall: 5s\n", "frazil.yaml").unwrap_err();
        assert_eq!(error.code(), "BAD_CONFIG");
        assert_eq!(error.cure(), Some("did you mean `interval`?"));
        let error = RawConfig::from_environment(
            [("FRAZIL_SOURCE__SLOTT".to_owned(), "x".to_owned())].into_iter(),
        );
        assert_eq!(error.unwrap_err().cure(), Some("did you mean `slot`?"));
    }

    #[test]
    fn flags_decide_over_environment_over_file() {
        let file = RawConfig::parse("source: {slot: a, publication: a}\n", "f").unwrap();
        let variables = [("FRAZIL_SOURCE__SLOT".to_owned(), "b".to_owned())];
        let environment = RawConfig::from_environment(variables.into_iter()).unwrap();
        let merged = environment.over(file).unwrap();
        assert_eq!(merged.source.slot, Some(Scalar("b".to_owned())));
        assert_eq!(merged.source.publication, Some(Scalar("a".to_owned())));
    }

    #[test]
    fn numbers_may_be_typed_bare() {
        let raw = RawConfig::parse("initial_snapshot: {workers: 4}\n", "f").unwrap();
        assert_eq!(raw.initial_snapshot.workers, Some(Scalar("4".to_owned())));
    }

    #[test]
    fn the_example_is_complete_and_holds_the_defaults() {
        let text = include_str!("../../docs/frazil.yaml");
        let typed: Value =
            serde_json::to_value(RawConfig::parse(text, "example").unwrap()).unwrap();
        let unset = |section: &Value| section.as_object().unwrap().values().any(Value::is_null);
        assert!(!typed.as_object().unwrap().values().any(unset), "{typed}");
        let full = crate::config::Config::resolve(RawConfig::parse(text, "example").unwrap());
        let places = "source: {url: postgres://h/d}\nlake: {into: ./lake}";
        let bare = crate::config::Config::resolve(RawConfig::parse(places, "bare").unwrap());
        let settings = |config: crate::config::Config| format!("{:?}", config.settings);
        assert_eq!(settings(full.unwrap()), settings(bare.unwrap()));
    }

    #[test]
    fn the_example_of_the_compose_stack_is_valid() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let raw = RawConfig::read(&root.join("compose/frazil.yaml")).unwrap();
        let url = "source: {url: 'postgres://h/d'}";
        let raw = raw.over(RawConfig::parse(url, "url").unwrap()).unwrap();
        let config = crate::config::Config::resolve(raw).unwrap();
        assert!(config.lake.is_nessie(), "{}", config.lake);
    }
}
