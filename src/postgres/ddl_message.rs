//! What the DDL capture (`migrations/source/0001_ddl_capture.sql`) says in the stream: one JSON
//! text per command, as a transactional logical message, just where the command stands between the
//! changes of its source transaction.
//!
//! Any role that may call `pg_logical_emit_message` can send such a text. So nothing here panics,
//! everything has a limit, and a text that is no message is an error with a code of its own; what
//! does not know the capture's token ([`DdlMessage::is_from`]) is not believed. Either way the cure
//! is a look at the catalog, as if there were no capture.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::postgres::catalog::{Published, SourceTable, table};
use crate::postgres::catalog_rows::{Attribute, Class, KeyIndex};
use crate::postgres::pg_types::PgTypes;
use crate::window::rules::TypeRules;

/// The prefix of the logical messages.
pub const DDL_PREFIX: &str = "frazil.ddl";

/// The version of the messages' form that is understood, and that `install-ddl-capture` installs.
pub const DDL_VERSION: u32 = 1;

/// Longest message in bytes; the longest of a table with 1,600 columns is about 1 MiB.
const BYTES_MAX: usize = 64 << 20;
/// Most tables of one message.
const RELATIONS_MAX: usize = 100_000;
/// Most columns of a table (`MaxTupleAttributeNumber`).
const COLUMNS_MAX: usize = 1_664;

/// `pg_event_trigger_table_rewrite_reason()`: a column's type changed
/// (`AT_REWRITE_COLUMN_REWRITE`).
const REASON_COLUMN: u32 = 4;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DdlKind {
    /// A command on tables has ended.
    End,
    /// The same, and [`DdlMessage::leaves`] lists what became a leaf partition or ceased to be one.
    Partitions,
    /// A table is about to be rewritten ([`DdlMessage::rewritten`]); the message of its command's
    /// end follows.
    Rewrite,
    /// A leaf partition was truncated by itself, which is not published where its root is.
    Truncate,
    /// Tables, columns or publications were dropped ([`DdlMessage::dropped`]).
    Drop,
    /// A type changed that columns of [`DdlMessage::relations`] are made of.
    Type,
    /// A publication was made or changed.
    Publication,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DdlMessage {
    v: u32,
    /// What happened.
    pub kind: DdlKind,
    /// The command's tag: `ALTER TABLE`.
    pub tag: String,
    /// The tables it touched, as they are after it (before it for [`DdlKind::Rewrite`]). Roots of
    /// partitions that changed are among them.
    #[serde(default)]
    pub relations: Vec<DdlRelation>,
    /// Leaf partitions that came, went or were truncated, where their root is published as one.
    #[serde(default)]
    pub leaves: Vec<DdlLeaf>,
    /// Tables that are gone.
    #[serde(default)]
    pub dropped: Vec<DroppedTable>,
    /// Publications that changed.
    #[serde(default, deserialize_with = "or_default")]
    pub publications: Vec<String>,
    /// The table that is rewritten; it can be a partition.
    #[serde(default)]
    pub rewritten: Option<u32>,
    #[serde(default)]
    token: Option<i64>,
    #[serde(default)]
    reason: u32,
    #[serde(default = "yes")]
    has_using: bool,
}

/// A table as its catalog rows describe it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DdlRelation {
    #[serde(flatten)]
    class: Class,
    /// The partitioned tables above it, nearest first.
    pub ancestors: Vec<u32>,
    /// `pg_class.relfilenode` of every leaf partition by oid; `None`: too many to be sent.
    pub leaves: Option<BTreeMap<u32, u32>>,
    /// Enum labels and attributes of composite types that its columns are made of.
    pub type_shapes: BTreeMap<String, String>,
    publications: Vec<Publication>,
    attributes: Vec<Attribute>,
    keys: Vec<KeyIndex>,
}

/// A leaf partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DdlLeaf {
    /// Its `pg_class.oid`.
    pub oid: u32,
    /// The uppermost partitioned table that it is, or was, a part of.
    pub root: u32,
    /// What happened to it.
    pub change: LeafChange,
    /// It held no row (it had no block), so nothing but the list of partitions changed.
    pub is_empty: bool,
}

/// What happened to a leaf partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafChange {
    /// CREATE TABLE ... PARTITION OF, or ATTACH
    Attached,
    /// DETACH
    Detached,
    /// TRUNCATE of it alone
    Truncated,
}

/// A table that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DroppedTable {
    /// Its `pg_class.oid`.
    pub oid: u32,
    /// Its schema's name.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The uppermost partitioned table that lost it, where that one is published as one table.
    pub root: Option<u32>,
}

/// What one publication publishes, and what it shows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Publication {
    name: String,
    insert: bool,
    update: bool,
    delete: bool,
    truncate: bool,
    via_root: bool,
    /// `pg_publication_rel.oid`
    entry: Option<u32>,
    is_shown: bool,
    /// The column list, by attribute number.
    columns: Option<Vec<i16>>,
    /// Stored generated columns are published (Postgres 18).
    generated: bool,
    row_filter: Option<String>,
}

impl DdlMessage {
    /// The message in `content`. `DDL_MESSAGE`: it is none, is too large, or is of a version that
    /// this frazil does not know; then the catalog must be looked at instead.
    pub fn parse(content: &[u8]) -> Result<Self> {
        if content.len() > BYTES_MAX {
            return Err(bad(format!("{} bytes", content.len())));
        }
        let message: Self =
            serde_json::from_slice(content).map_err(|e| bad(e.to_string()).with_source(e))?;
        if message.v != DDL_VERSION {
            return Err(bad(format!("its version is {}", message.v)));
        }
        let is_wide = |relation: &DdlRelation| relation.attributes.len() > COLUMNS_MAX;
        if message.relations.len() > RELATIONS_MAX || message.relations.iter().any(is_wide) {
            return Err(bad("too many tables or columns".to_owned()));
        }
        Ok(message)
    }

    /// Whether the capture made it, whose token this is; anybody else can only hint that something
    /// may have changed. `None`: the token is not known, so neither is that.
    pub fn is_from(&self, token: Option<i64>) -> bool {
        token.is_some() && self.token == token
    }

    /// Every type of a column, for [`crate::postgres::pg_types::load_types`].
    pub fn type_oids(&self) -> impl Iterator<Item = u32> {
        self.relations.iter().flat_map(DdlRelation::type_oids)
    }

    /// The description of one table.
    pub fn relation(&self, oid: u32) -> Option<&DdlRelation> {
        self.relations.iter().find(|relation| relation.oid() == oid)
    }

    /// Whether this rewrite can have changed values: not where nothing but a type was changed by a
    /// statement without USING, so that a promotion of the column's lake type says it all.
    pub fn may_change_values(&self) -> bool {
        self.reason != REASON_COLUMN || self.has_using
    }
}

impl DdlRelation {
    /// `pg_class.oid`.
    pub fn oid(&self) -> u32 {
        self.class.oid
    }

    /// `namespace.name`, for messages and for `--tables`.
    pub fn name(&self) -> (&str, &str) {
        (&self.class.namespace, &self.class.name)
    }

    /// Every type of a column.
    pub fn type_oids(&self) -> impl Iterator<Item = u32> {
        self.attributes.iter().map(|attribute| attribute.type_oid)
    }

    /// The table as [`crate::postgres::catalog::load_relations`] would have given it at the
    /// message's place; `None`: `publications` don't show it. The types, at least
    /// [`DdlRelation::type_oids`], come with what the settings say of them. Leaf partitions are
    /// unknown where [`DdlRelation::leaves`] is `None`.
    pub fn source_table(
        &self,
        publications: &[String],
        types: (&PgTypes, &TypeRules),
    ) -> Result<Option<SourceTable>> {
        let mut published = Published::default();
        let ours = self.publications.iter().filter(|p| publications.contains(&p.name));
        let shown: Vec<&Publication> = ours.filter(|publication| publication.is_shown).collect();
        for publication in &shown {
            published.add(self.columns_of(publication), publication.row_filter.clone());
        }
        if shown.is_empty() {
            return Ok(None);
        }
        let mut table = table((&self.class, &self.attributes, &self.keys), &published, types)?;
        table.unannounced.leaves = self.leaves.clone().unwrap_or_default();
        table.unannounced.type_shapes = self.type_shapes.clone();
        table.unannounced.published.insert_str(0, &self.published_text(publications));
        Ok(Some(table))
    }

    /// What the publications publish and the table's entries in them, in the form that the look at
    /// the catalog gives it, without row filters.
    fn published_text(&self, publications: &[String]) -> String {
        let ours = self.publications.iter().filter(|p| publications.contains(&p.name));
        let texts = ours.map(|p| {
            let flags = [p.insert, p.update, p.delete, p.truncate, p.via_root];
            let flags: String = flags.iter().map(|on| if *on { '1' } else { '0' }).collect();
            let entry = p.entry.map(|oid| oid.to_string()).unwrap_or_default();
            format!("{}:{flags}:{entry}", p.name)
        });
        texts.collect::<Vec<_>>().join(",")
    }

    /// The names that the publication lists; `None`: all but generated ones.
    fn columns_of(&self, publication: &Publication) -> Option<Vec<String>> {
        let names = |is_listed: &dyn Fn(&Attribute) -> bool| {
            let listed = self.attributes.iter().filter(|attribute| is_listed(attribute));
            listed.map(|attribute| attribute.name.clone()).collect()
        };
        match &publication.columns {
            Some(attnums) => Some(names(&|attribute| attnums.contains(&attribute.attnum))),
            None => publication.generated.then(|| names(&|_| true)),
        }
    }
}

fn bad(why: String) -> Error {
    Error::transient("DDL_MESSAGE", format!("a message of the DDL capture can't be read: {why}"))
        .with_cure("frazil install-ddl-capture, with the frazil that runs")
}

fn yes() -> bool {
    true
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_an_error() {
        for text in
            ["", "{}", "[]", "{\"v\":1}", "{\"v\":2,\"kind\":\"end\",\"tag\":\"X\"}", "\u{0}"]
        {
            assert_eq!(DdlMessage::parse(text.as_bytes()).unwrap_err().code(), "DDL_MESSAGE");
        }
        let deep = "[".repeat(100_000);
        assert!(DdlMessage::parse(deep.as_bytes()).is_err());
        assert!(DdlMessage::parse(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn only_a_plain_type_change_keeps_values() {
        let parse = |more: &str| {
            let text = format!("{{\"v\":1,\"kind\":\"rewrite\",\"tag\":\"ALTER TABLE\"{more}}}");
            DdlMessage::parse(text.as_bytes()).unwrap()
        };
        assert!(!parse(",\"reason\":4,\"has_using\":false").may_change_values());
        assert!(parse(",\"reason\":4,\"has_using\":true").may_change_values());
        assert!(parse(",\"reason\":4").may_change_values());
        assert!(parse(",\"reason\":6,\"has_using\":false").may_change_values());
        assert!(parse("").may_change_values());
    }
}
