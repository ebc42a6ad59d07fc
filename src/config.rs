//! Settings: what was typed ([`RawConfig`]) and what runs ([`Settings`]) are two types.
//!
//! Flags decide over the environment (`FRAZIL_SECTION__KEY`), that over the file (`--config`), that
//! over the defaults. Unknown keys are refused, with the nearest known one.

mod lake;
mod patterns;
mod publish;
mod raw;
mod types;

use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use secrecy::SecretString;

use crate::error::{Error, Result};
use crate::window::relation::Relation;
use crate::window::rules::TypeRules;

pub use lake::LakeSettings;
pub use patterns::Patterns;
pub use publish::{PublishSettings, RowCheck};
pub use raw::{RawConfig, Scalar};

/// Default of `memory.window_bytes_max`.
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// Smallest `memory.window_bytes_max`: two segments and what their writers need.
const WINDOW_BYTES_MIN: u64 = 64 << 20;
/// Default and largest `memory.max_value_bytes`: Postgres's own limit for one value.
const MAX_VALUE_BYTES: u64 = 1 << 30;

/// `--initial-snapshot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InitialSnapshot {
    /// Copy the tables once, then follow the stream.
    Initial,
    /// Copy nothing: tables begin empty and hold what changes from now on.
    Never,
    /// Copy the tables and stop.
    Only,
}

/// `source.on_slot_loss`: what is done when the slot is gone, or was moved past what the lake
/// holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLoss {
    /// Stop with a code.
    Stop,
    /// Make a new slot where there is none, and copy all tables afresh.
    Resync,
}

/// `source.failover`: whether the slot is synchronised to standbys (Postgres 17 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// Where the server can.
    Auto,
    /// Always; an older server is refused.
    On,
    /// Never.
    Off,
}

/// Everything a run needs to know, resolved and valid.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The replication slot, which also names the pipeline and its ledger.
    pub slot: String,
    /// The publication; tables without a key stand in `<publication>_append`.
    pub publication: String,
    /// Which tables.
    pub tables: Patterns,
    /// What is done when the slot is lost.
    pub on_slot_loss: SlotLoss,
    /// Whether a slot that is made outlives the server it is made on.
    pub failover: Failover,
    /// Only changes that began at this server, not those that it replicates itself (Postgres 16).
    pub only_local_origin: bool,
    /// Large source transactions arrive before they commit (Postgres 14).
    pub streaming: bool,
    /// Tables whose rows are addressed by `_pg_key` although their key columns would do: for keys
    /// with values that the lake's types can't hold. Looked at when a table is copied.
    pub hidden_key: Option<Patterns>,
    /// What is copied before the stream.
    pub initial_snapshot: InitialSnapshot,
    /// Connections that copy in parallel.
    pub workers: usize,
    /// Bytes of WAL that the source may keep for a copy; more stops it.
    pub retained_wal_max: Option<u64>,
    /// The longest that making a slot may wait for source transactions that are open.
    pub slot_timeout: Duration,
    /// The longest a complete source transaction waits for its lake commit.
    pub commit_interval: Duration,
    /// Raw WAL in memory, both windows together, in bytes.
    pub window_bytes_max: usize,
    /// The largest single message that is accepted, in bytes.
    pub max_value_bytes: usize,
    /// Lake types of columns, and what happens to values without a place in them.
    pub types: TypeRules,
}

/// Where the source and the lake are, and how to treat them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connection string of the source, password and all.
    pub source: SecretString,
    /// Catalog and storage.
    pub lake: LakeSettings,
    /// The branch that is written to, and the one that readers see once checks have passed.
    pub publish: Option<PublishSettings>,
    /// How often a tag is made (Nessie).
    pub tag_interval: Option<Duration>,
    /// The rest.
    pub settings: Settings,
}

impl Settings {
    /// Gives a table that is about to be copied the key that was asked for.
    pub fn choose_key(&self, relation: &mut Relation) {
        let selects = |p: &Patterns| p.selects(&relation.namespace, &relation.name);
        if self.hidden_key.as_ref().is_some_and(selects) {
            relation.hide_key();
        }
    }

    /// From now on rows of this table (`namespace.name`) are addressed by `_pg_key`. `false` where
    /// they were already.
    pub fn hide_key_of(&mut self, table: &str) -> bool {
        let (namespace, name) = table.split_once('.').unwrap_or(("", table));
        if self.hidden_key.as_ref().is_some_and(|p| p.selects(namespace, name)) {
            return false;
        }
        self.hidden_key = Some(Patterns::with(self.hidden_key.take(), table));
        true
    }

    /// The publication of tables without a key, which publishes no UPDATE and DELETE (case 73).
    pub fn append_publication(&self) -> String {
        format!("{}_append", self.publication)
    }
}

impl Config {
    /// Resolves what was typed.
    pub fn resolve(mut raw: RawConfig) -> Result<Self> {
        let url = raw
            .source
            .url
            .map(|url| url.0)
            .or_else(|| std::env::var("DATABASE_URL").ok())
            .ok_or_else(|| {
                missing(
                    "source.url",
                    "give the source as argument: frazil run postgres://user@host/db --into ./lake",
                )
            })?;
        let publish = publish::resolve(raw.publish, &mut raw.catalog)?;
        let tag_interval = set(raw.lake.tag_interval.take());
        let mut lake = LakeSettings::resolve(raw.lake, raw.catalog, raw.storage)?;
        if let (LakeSettings::Rest(catalog, _), Some(publish)) = (&mut lake, &publish) {
            catalog.branch_from = Some(publish.into.clone());
        }
        let tag_interval = tag_interval
            .map(|text| duration("lake.tag_interval", Some(Scalar(text)), ""))
            .transpose()?;
        if (publish.is_some() || tag_interval.is_some()) && !lake.is_nessie() {
            let key = if publish.is_some() { "publish" } else { "lake.tag_interval" };
            return Err(Error::config("BAD_SETTING", format!("{key}: only Nessie has branches"))
                .with_cure("use --catalog nessie+http://host:19120/iceberg, or leave it out"));
        }
        let settings = Settings {
            slot: slot_name(raw.source.slot)?,
            publication: text(raw.source.publication, "frazil"),
            tables: Patterns::parse(&text(raw.source.tables, "*"))?,
            on_slot_loss: slot_loss(raw.source.on_slot_loss)?,
            failover: failover(raw.source.failover)?,
            only_local_origin: origin(raw.source.origin)?,
            streaming: yes_or_no("source.streaming", raw.source.streaming)?.unwrap_or(false),
            slot_timeout: duration(
                "initial_snapshot.slot_timeout",
                raw.initial_snapshot.slot_timeout,
                "10m",
            )?,
            hidden_key: patterns(raw.tables.hidden_key)?,
            initial_snapshot: snapshot_mode(raw.initial_snapshot.mode)?,
            workers: workers(raw.initial_snapshot.workers)?,
            retained_wal_max: retained_wal(raw.initial_snapshot.retained_wal_max)?,
            commit_interval: duration("commit.interval", raw.commit.interval, "5s")?,
            window_bytes_max: window_bytes(raw.memory.window_bytes_max)?,
            max_value_bytes: value_bytes(raw.memory.max_value_bytes)?,
            types: types::resolve(raw.types, raw.values)?,
        };
        Ok(Self { source: url.into(), lake, publish, tag_interval, settings })
    }
}

/// Table patterns, if some were typed.
fn patterns(value: Option<Scalar>) -> Result<Option<Patterns>> {
    set(value).map(|list| Patterns::parse(&list)).transpose()
}

fn missing(key: &str, cure: &str) -> Error {
    Error::config("MISSING_SETTING", format!("{key} is not set")).with_cure(cure)
}

fn invalid(key: &str, value: &str, why: &str) -> Error {
    Error::config("BAD_SETTING", format!("{key}: `{value}` {why}"))
}

/// What was typed, if anything: an empty text is nothing.
fn set(value: Option<Scalar>) -> Option<String> {
    value.map(|value| value.0).filter(|text| !text.is_empty())
}

/// A yes or no, if one was typed.
fn yes_or_no(key: &str, value: Option<Scalar>) -> Result<Option<bool>> {
    match set(value).as_deref() {
        None => Ok(None),
        Some("true" | "yes" | "on" | "1") => Ok(Some(true)),
        Some("false" | "no" | "off" | "0") => Ok(Some(false)),
        Some(other) => {
            Err(invalid(key, other, "is neither yes nor no").with_cure("use true or false"))
        }
    }
}

fn text(value: Option<Scalar>, default: &str) -> String {
    value.map_or_else(|| default.to_owned(), |value| value.0)
}

/// Postgres allows lower-case letters, digits and underscores, 63 of them (manual,
/// CREATE_REPLICATION_SLOT).
fn slot_name(value: Option<Scalar>) -> Result<String> {
    let name = text(value, "frazil");
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(valid) {
        return Ok(name);
    }
    Err(invalid("source.slot", &name, "is not a slot name")
        .with_cure("use at most 63 of a-z, 0-9 and _"))
}

fn slot_loss(value: Option<Scalar>) -> Result<SlotLoss> {
    match text(value, "stop").as_str() {
        "stop" => Ok(SlotLoss::Stop),
        "resync" => Ok(SlotLoss::Resync),
        other => Err(invalid("source.on_slot_loss", other, "is neither stop nor resync")),
    }
}

fn snapshot_mode(value: Option<Scalar>) -> Result<InitialSnapshot> {
    let mode = text(value, "initial");
    InitialSnapshot::from_str(&mode, true).map_err(|_| {
        invalid("initial_snapshot.mode", &mode, "is not a mode")
            .with_cure("use initial, never or only")
    })
}

fn failover(value: Option<Scalar>) -> Result<Failover> {
    match text(value, "auto").as_str() {
        "auto" => Ok(Failover::Auto),
        "on" | "true" | "yes" => Ok(Failover::On),
        "off" | "false" | "no" => Ok(Failover::Off),
        other => {
            Err(invalid("source.failover", other, "is not a mode").with_cure("use auto, on or off"))
        }
    }
}

fn origin(value: Option<Scalar>) -> Result<bool> {
    match text(value, "any").as_str() {
        "any" => Ok(false),
        "none" => Ok(true),
        other => Err(invalid("source.origin", other, "is not an origin")
            .with_cure("use any, or none for changes that began at this server")),
    }
}

fn workers(value: Option<Scalar>) -> Result<usize> {
    let workers = text(value, "2");
    match workers.parse() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err(invalid("initial_snapshot.workers", &workers, "is not a number from 1 to 64")),
    }
}

fn retained_wal(value: Option<Scalar>) -> Result<Option<u64>> {
    let value = value.filter(|value| !matches!(value.0.as_str(), "" | "unlimited"));
    let limit = value.map(|value| bytes("initial_snapshot.retained_wal_max", Some(value), 0));
    limit.transpose()
}

fn duration(key: &str, value: Option<Scalar>, default: &str) -> Result<Duration> {
    let value = text(value, default);
    let parsed = humantime::parse_duration(&value)
        .map_err(|e| invalid(key, &value, "is not a duration").with_source(e))?;
    match parsed.as_millis() {
        50..=3_600_000 => Ok(parsed),
        _ => Err(invalid(key, &value, "is not between 50ms and 1h")),
    }
}

fn bytes(key: &str, value: Option<Scalar>, default: u64) -> Result<u64> {
    let Some(value) = value else { return Ok(default) };
    let parsed: Result<ByteSize, _> = value.0.parse();
    parsed.map(|size| size.as_u64()).map_err(|_| {
        invalid(key, &value.0, "is not a size").with_cure("write it as 128MiB or 1GiB")
    })
}

fn window_bytes(value: Option<Scalar>) -> Result<usize> {
    let key = "memory.window_bytes_max";
    let size = bytes(key, value, WINDOW_BYTES_MAX)?;
    if size < WINDOW_BYTES_MIN {
        return Err(invalid(key, &ByteSize(size).to_string(), "is less than 64MiB"));
    }
    usize::try_from(size).map_err(|_| invalid(key, &size.to_string(), "is too large"))
}

fn value_bytes(value: Option<Scalar>) -> Result<usize> {
    let key = "memory.max_value_bytes";
    let size = bytes(key, value, MAX_VALUE_BYTES)?;
    if !(1..=MAX_VALUE_BYTES + (1 << 20)).contains(&size) {
        return Err(invalid(key, &ByteSize(size).to_string(), "is over Postgres's limit of 1GiB"));
    }
    usize::try_from(size).map_err(|_| invalid(key, &size.to_string(), "is too large"))
}
