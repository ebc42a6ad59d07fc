//! The ledger: where P stands, written by the same catalog commit as the data it speaks of.
//!
//! An Iceberg table without rows, `frazil.ledger_<pipeline id>`: every lake commit adds one empty
//! iceberg_snapshot whose summary is the record, and sets the same record as table properties, so
//! that neither expiry nor a catalog that serves only the current snapshot loses it. The ledger
//! also says how frazil left each table (uuid and position): a table that is found otherwise was
//! dropped, replaced or rolled back by someone else.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use iceberg::TableIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use iceberg::table::Table;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::committer::{NewTable, PastCommit};
use crate::iceberg::{
    FORMAT_VERSION_KEY, LAKE_FORMAT_VERSION, POSITION_KEY, lake_error, table_ident,
};
use crate::progress::Lsn;

/// Repairs in a row, at one position, that a running pipeline accepts.
const REPAIRS_MAX: usize = 64;

/// Which pipeline writes a table: a property of the ledger and of every table that belongs to it.
pub(crate) const PIPELINE_KEY: &str = "frazil.pipeline-id";
const COMMITTED_LSN_KEY: &str = "frazil.committed-lsn";
const TIMELINE_KEY: &str = "frazil.timeline";
const SYSTEM_ID_KEY: &str = "frazil.system-id";
const COMMIT_TIME_KEY: &str = "frazil.source-commit-time";
const TRANSACTIONS_KEY: &str = "frazil.source-transactions";
pub(crate) const ROWS_KEY: &str = "frazil.rows";

/// Which lake commit made a snapshot; in the summaries of all tables it touched.
pub(crate) const LAKE_COMMIT_KEY: &str = "frazil.lake-commit";

const STATE_KEY: &str = "frazil.state";
const SLOT_KEY: &str = "frazil.slot";
const TABLES_KEY: &str = "frazil.tables";
const BEHIND_KEY: &str = "frazil.behind";

/// Where the pipeline is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PipelineState {
    /// The initial snapshot is not complete.
    Copying,
    /// The stream is followed.
    Streaming,
}

impl PipelineState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Streaming => "streaming",
        }
    }
}

impl FromStr for PipelineState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "copying" => Ok(Self::Copying),
            "streaming" => Ok(Self::Streaming),
            _ => Err(ledger_error(STATE_KEY, text)),
        }
    }
}

/// One entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    /// Which pipeline.
    pub pipeline_id: String,
    /// P: `end_lsn` of the last source transaction in the lake.
    pub committed_lsn: Lsn,
    /// Timeline of the server that sent it.
    pub timeline: u32,
    /// `system_identifier` of that server's cluster.
    pub system_id: String,
    /// Commit time of the last source transaction, RFC 3339 with microseconds.
    pub source_commit_time: Option<String>,
    /// Source transactions in this lake commit.
    pub source_transactions: u64,
    /// Rows written per table (`namespace.name`) in this lake commit: inserted + deleted keys.
    pub rows: BTreeMap<String, u64>,
    /// Names this lake commit: how an unknown outcome is settled. Fresh for each lake commit.
    pub lake_commit: Uuid,
    /// Copying or streaming.
    pub state: PipelineState,
    /// The replication slot.
    pub slot: String,
    /// Tables that the lake does not hold at P because they are being copied afresh, by oid.
    pub behind: BTreeMap<u32, Behind>,
}

/// A table that is not at P.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// `namespace.name`
    pub table: String,
    /// The position that its rows in the lake are of; 0/0 for one that the lake lacks.
    pub position: Lsn,
    /// Why it is copied.
    pub cause: String,
}

impl LedgerRecord {
    /// The record as it stands in table properties and snapshot summaries.
    pub fn to_properties(&self) -> HashMap<String, String> {
        let rows = serde_json::to_string(&self.rows).unwrap_or_default();
        let mut properties = HashMap::from([
            (FORMAT_VERSION_KEY.to_owned(), LAKE_FORMAT_VERSION.to_string()),
            (POSITION_KEY.to_owned(), self.committed_lsn.to_string()),
            (PIPELINE_KEY.to_owned(), self.pipeline_id.clone()),
            (COMMITTED_LSN_KEY.to_owned(), self.committed_lsn.to_string()),
            (TIMELINE_KEY.to_owned(), self.timeline.to_string()),
            (SYSTEM_ID_KEY.to_owned(), self.system_id.clone()),
            (TRANSACTIONS_KEY.to_owned(), self.source_transactions.to_string()),
            (ROWS_KEY.to_owned(), rows),
            (LAKE_COMMIT_KEY.to_owned(), self.lake_commit.to_string()),
            (STATE_KEY.to_owned(), self.state.as_str().to_owned()),
            (SLOT_KEY.to_owned(), self.slot.clone()),
            (BEHIND_KEY.to_owned(), serde_json::to_string(&self.behind).unwrap_or_default()),
        ]);
        // Set even when there is none: a property that is left out keeps its last value.
        let time = self.source_commit_time.clone().unwrap_or_default();
        properties.insert(COMMIT_TIME_KEY.to_owned(), time);
        properties
    }

    /// Reads what [`LedgerRecord::to_properties`] wrote.
    ///
    /// # Errors
    /// `LAKE_TOO_NEW` (config) where a newer frazil wrote it, `LEDGER` (fatal) where it can't be
    /// read.
    pub fn from_properties(properties: &HashMap<String, String>) -> Result<Self> {
        check_format_version(properties)?;
        let get = |key: &str| {
            properties.get(key).map(String::as_str).ok_or_else(|| ledger_error(key, "nothing"))
        };
        let bad = |key: &'static str| move |text: &str| ledger_error(key, text);
        Ok(Self {
            pipeline_id: get(PIPELINE_KEY)?.to_owned(),
            committed_lsn: get(COMMITTED_LSN_KEY)?.parse()?,
            timeline: parse(get(TIMELINE_KEY)?, bad(TIMELINE_KEY))?,
            system_id: get(SYSTEM_ID_KEY)?.to_owned(),
            source_commit_time: get(COMMIT_TIME_KEY)
                .ok()
                .filter(|t| !t.is_empty())
                .map(str::to_owned),
            source_transactions: parse(get(TRANSACTIONS_KEY)?, bad(TRANSACTIONS_KEY))?,
            rows: serde_json::from_str(get(ROWS_KEY)?)
                .map_err(|e| ledger_error(ROWS_KEY, "that").with_source(e))?,
            lake_commit: parse(get(LAKE_COMMIT_KEY)?, bad(LAKE_COMMIT_KEY))?,
            state: get(STATE_KEY)?.parse()?,
            slot: get(SLOT_KEY)?.to_owned(),
            behind: match properties.get(BEHIND_KEY) {
                None => BTreeMap::new(),
                Some(text) => serde_json::from_str(text)
                    .map_err(|e| ledger_error(BEHIND_KEY, text).with_source(e))?,
            },
        })
    }
}

fn parse<T: FromStr>(text: &str, bad: impl FnOnce(&str) -> Error) -> Result<T> {
    text.parse().map_err(|_| bad(text))
}

fn ledger_error(key: &str, found: &str) -> Error {
    Error::fatal("LEDGER", format!("the ledger says `{found}` for {key}"))
        .with_cure("was the ledger's table changed by hand? restore it, or copy into a new lake")
}

/// Refuses what a newer frazil wrote.
///
/// # Errors
/// `LAKE_TOO_NEW` (config).
pub(crate) fn check_format_version(properties: &HashMap<String, String>) -> Result<()> {
    let found = properties.get(FORMAT_VERSION_KEY).map_or(Ok(0), |v| v.parse::<u32>());
    match found {
        Ok(version) if version <= LAKE_FORMAT_VERSION => Ok(()),
        _ => Err(Error::config("LAKE_TOO_NEW", "a newer frazil wrote this lake")
            .with_cure("use that version of frazil, or a newer one")),
    }
}

/// The name of a lake commit that only mends rows, at the position where lake commit `of` left the
/// lake. Who made `of` and goes on from there knows it by this name, and is not disturbed.
pub(crate) fn repair_of(of: Uuid) -> Uuid {
    let digest = Sha256::new().chain_update("frazil repair").chain_update(of).finalize();
    let bytes = digest.first_chunk::<16>().copied().unwrap_or_default();
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Whether lake commit `found` is `seen`, or mended what `seen` left.
pub(crate) fn is_or_repairs(found: Uuid, seen: Uuid) -> bool {
    std::iter::successors(Some(seen), |one| Some(repair_of(*one)))
        .take(REPAIRS_MAX + 1)
        .any(|one| one == found)
}

/// The ledger's table.
pub fn ledger_ident(pipeline_id: &str) -> TableIdent {
    table_ident("frazil", &format!("ledger_{pipeline_id}"))
}

/// The ledger before its first record.
pub(crate) fn new_ledger() -> Result<NewTable> {
    let column = NestedField::optional(1, "lsn", Type::Primitive(PrimitiveType::String))
        .with_doc("always empty: the ledger is the summaries of this table's snapshots");
    let schema = Schema::builder().with_fields([column.into()]).build();
    let schema = schema.map_err(|e| lake_error("the ledger's schema", e))?;
    Ok(NewTable { schema, properties: HashMap::new() })
}

/// The last lake commits that the ledger remembers, newest first, `most` at most.
pub(crate) fn history(ledger: &Table, most: usize) -> Vec<PastCommit> {
    let mut snapshots: Vec<_> = ledger.metadata().snapshots().collect();
    snapshots.sort_by_key(|s| std::cmp::Reverse(s.sequence_number()));
    let record = |properties| LedgerRecord::from_properties(properties).ok();
    let past = snapshots.into_iter().filter_map(|s| {
        let record = record(&s.summary().additional_properties)?;
        Some(PastCommit { time_ms: s.timestamp_ms(), record, hash: None })
    });
    past.take(most).collect()
}

/// How frazil left a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftTable {
    namespace: String,
    name: String,
    pub(crate) uuid: Uuid,
    pub(crate) position: Lsn,
}

/// How frazil left its tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftTables(BTreeMap<(String, String), LeftTable>);

impl LeftTables {
    pub(crate) fn from_ledger(ledger: Option<&Table>) -> Result<Self> {
        let text = ledger.and_then(|t| t.metadata().properties().get(TABLES_KEY));
        let list: Vec<LeftTable> = serde_json::from_str(text.map_or("[]", String::as_str))
            .map_err(|e| ledger_error(TABLES_KEY, "that").with_source(e))?;
        Ok(Self(list.into_iter().map(|t| ((t.namespace.clone(), t.name.clone()), t)).collect()))
    }

    pub(crate) fn get(&self, ident: &TableIdent) -> Option<&LeftTable> {
        self.0.get(&(ident.namespace().join("."), ident.name().to_owned()))
    }

    pub(crate) fn set(&mut self, ident: &TableIdent, uuid: Uuid, position: Lsn) {
        let (namespace, name) = (ident.namespace().join("."), ident.name().to_owned());
        let left = LeftTable { namespace: namespace.clone(), name: name.clone(), uuid, position };
        self.0.insert((namespace, name), left);
    }

    pub(crate) fn to_property(&self) -> (String, String) {
        let list: Vec<&LeftTable> = self.0.values().collect();
        (TABLES_KEY.to_owned(), serde_json::to_string(&list).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> LedgerRecord {
        LedgerRecord {
            pipeline_id: "p".into(),
            committed_lsn: Lsn(0x16_0000_0001),
            timeline: 3,
            system_id: "7".into(),
            source_commit_time: Some("2026-11-21T10:00:00.000001Z".into()),
            source_transactions: 9,
            rows: BTreeMap::from([("app.\"odd\"".into(), 4)]),
            lake_commit: Uuid::now_v7(),
            state: PipelineState::Streaming,
            slot: "frazil".into(),
            behind: BTreeMap::from([(
                7,
                Behind { table: "a.b".into(), position: Lsn(9), cause: "rewritten".into() },
            )]),
        }
    }

    #[test]
    fn a_record_comes_back() {
        let mut one = record();
        assert_eq!(LedgerRecord::from_properties(&one.to_properties()).unwrap(), one);
        one.source_commit_time = None;
        assert_eq!(LedgerRecord::from_properties(&one.to_properties()).unwrap(), one);
    }

    #[test]
    fn a_newer_record_is_refused() {
        let mut properties = record().to_properties();
        properties.insert(FORMAT_VERSION_KEY.into(), "3".into());
        assert_eq!(LedgerRecord::from_properties(&properties).unwrap_err().code(), "LAKE_TOO_NEW");
    }
}
