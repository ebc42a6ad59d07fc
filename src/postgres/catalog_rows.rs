//! A source table as rows of pg_class, pg_attribute and pg_index: read from the catalog, or taken
//! from a message of the DDL capture, which spells them alike.

use serde::Deserialize;
use tokio_postgres::Row;

/// Of `pg_class`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Class {
    pub(super) oid: u32,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) relfilenode: u32,
    /// `relkind`
    pub(super) kind: char,
    pub(super) is_partition: bool,
    /// `relpersistence`
    pub(super) persistence: char,
    /// `relreplident`
    pub(super) identity: char,
    pub(super) estimated_rows: f32,
    pub(super) relpages: i32,
    pub(super) relnatts: i16,
}

/// Of `pg_attribute`, live columns only.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Attribute {
    pub(super) attnum: i16,
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) typmod: i32,
    pub(super) toastable: bool,
    pub(super) has_missing: bool,
    /// `attmissingval` as text
    pub(super) missing: Option<String>,
    pub(super) has_default: bool,
    pub(super) xmin: String,
    pub(super) generated: bool,
    /// Generated, and so never published by this server.
    pub(super) hidden: bool,
}

/// Of `pg_index`: the primary key's, or the replica identity's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct KeyIndex {
    pub(super) is_primary: bool,
    pub(super) is_identity: bool,
    pub(super) is_immediate: bool,
    pub(super) attnums: Vec<i16>,
}

impl Class {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            oid: row.get("oid"),
            namespace: row.get("namespace"),
            name: row.get("name"),
            relfilenode: row.get("relfilenode"),
            kind: first_char(row, "kind"),
            is_partition: row.get("is_partition"),
            persistence: first_char(row, "persistence"),
            identity: first_char(row, "identity"),
            estimated_rows: row.get("estimated_rows"),
            relpages: row.get("relpages"),
            relnatts: row.get("relnatts"),
        }
    }
}

impl Attribute {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            attnum: row.get("attnum"),
            name: row.get("name"),
            type_oid: row.get("atttypid"),
            typmod: row.get("atttypmod"),
            toastable: row.get("toastable"),
            has_missing: row.get("has_missing"),
            missing: row.get("missing"),
            has_default: row.get("has_default"),
            xmin: row.get("xmin"),
            generated: row.get("generated"),
            hidden: row.get("hidden"),
        }
    }
}

impl KeyIndex {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            is_primary: row.get("is_primary"),
            is_identity: row.get("is_identity"),
            is_immediate: row.get("is_immediate"),
            attnums: row.get("attnums"),
        }
    }
}

fn first_char(row: &Row, name: &str) -> char {
    row.get::<_, &str>(name).chars().next().unwrap_or(' ')
}
