//! The one port of the lake: a lake commit over all tables at once.

mod bases;
mod catalog_db;
pub mod rest;
pub mod sql;
mod staging;

pub use catalog_db::{CATALOG_NAME, Connect};
pub(crate) use staging::{is_half_born, patient_base};

use std::collections::HashMap;

use async_trait::async_trait;
use iceberg::TableIdent;
use iceberg::spec::{Schema, SchemaBuilder, TableMetadata};
use iceberg::table::Table;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::history::NEWEST_KEY;
use crate::iceberg::ledger::LedgerRecord;
use crate::iceberg::row_delta::RowDelta;
use crate::iceberg::schema::table_schema;
use crate::iceberg::{FORMAT_VERSION_KEY, LAKE_FORMAT_VERSION, OID_KEY, lake_error};
use crate::progress::Lsn;
use crate::window::relation::Relation;

/// A table that is born in a lake commit.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Its schema; field ids are kept as they are.
    pub schema: Schema,
    /// Its properties; those of the format and of metadata clean-up are added.
    pub properties: HashMap<String, String>,
}

impl NewTable {
    /// The lake table of a source table.
    ///
    /// # Errors
    /// As [`table_schema`].
    pub fn for_relation(relation: &Relation, raw: bool) -> Result<Self> {
        let properties = HashMap::from([
            (FORMAT_VERSION_KEY.to_owned(), LAKE_FORMAT_VERSION.to_string()),
            (OID_KEY.to_owned(), relation.oid.to_string()),
        ]);
        Ok(Self { schema: table_schema(relation, raw)?, properties })
    }

    /// Metadata of the table before its first iceberg_snapshot. Read from JSON, because the crate's
    /// builder would give new ids to all fields.
    pub(crate) fn metadata(&self, place: &Birthplace) -> Result<TableMetadata> {
        let mut properties = HashMap::from(TABLE_PROPERTIES.map(|(k, v)| (k.into(), v.into())));
        properties.extend(self.properties.clone());
        let with_id = |builder: SchemaBuilder, id| {
            builder.with_schema_id(id).build().map_err(|e| lake_error("a schema", e))
        };
        let mut schemas = vec![with_id(self.schema.clone().into_builder(), 0)?];
        if place.renumbers && !self.schema.as_struct().fields().is_empty() {
            schemas = vec![
                with_id(Schema::builder(), 0)?,
                with_id(self.schema.clone().into_builder(), 1)?,
            ];
        }
        let json = serde_json::json!({
            "format-version": 2,
            "table-uuid": place.uuid,
            "location": place.location,
            "last-sequence-number": 0,
            "last-updated-ms": 0,
            "last-column-id": self.schema.highest_field_id(),
            "schemas": schemas,
            "current-schema-id": schemas.len() - 1,
            "partition-specs": [{ "spec-id": 0, "fields": [] }],
            "default-spec-id": 0,
            "last-partition-id": 999,
            "sort-orders": [{ "order-id": 0, "fields": [] }],
            "default-sort-order-id": 0,
            "properties": properties,
        });
        serde_json::from_value(json).map_err(|e| {
            Error::fatal("LAKE_METADATA", "a new table could not be described").with_source(e)
        })
    }
}

/// Properties of every lake table (Iceberg docs, Configuration): metadata files that fall out of
/// the log are deleted, the newest iceberg_snapshots are kept, manifests are merged, Java writers
/// write what frazil can read by key.
const TABLE_PROPERTIES: [(&str, &str); 7] = [
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "50"),
    (NEWEST_KEY, "64"),
    ("write.format.default", "parquet"),
    ("write.parquet.compression-codec", "zstd"),
    ("commit.manifest.min-count-to-merge", "100"),
    ("commit.manifest-merge.enabled", "true"),
];

/// Where a table that is not in the catalog yet will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birthplace {
    /// Its location; data files may be written there before the table is.
    pub location: String,
    /// Its uuid.
    pub uuid: Uuid,
    /// Whether the catalog gives the columns of a table's very first schema other ids than they
    /// have in its files, so that it is given one without columns first (Nessie does).
    pub renumbers: bool,
}

impl Birthplace {
    /// A place for a new table at `location`.
    pub fn fresh(location: String) -> Self {
        Self { location, uuid: Uuid::new_v4(), renumbers: false }
    }
}

/// A lake commit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastCommit {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// What the ledger says of it.
    pub record: LedgerRecord,
    /// The commit hash, where the catalog has one for the state of all tables (Nessie).
    pub hash: Option<String>,
}

/// What a lake commit does to one table.
#[derive(Debug, Clone)]
pub struct TableChange {
    /// The table.
    pub ident: TableIdent,
    /// Set where the table is born here.
    pub create: Option<NewTable>,
    /// Its rows, schema and properties.
    pub delta: RowDelta,
}

/// One lake commit: all tables' changes and the new ledger record.
#[derive(Debug, Clone)]
pub struct LakeCommit {
    /// The new record; its `committed_lsn` is the new P.
    pub ledger: LedgerRecord,
    /// P that this was built on; `None` for the first lake commit.
    pub base: Option<Lsn>,
    /// One change per table at most; none for a ledger-only lake commit.
    pub changes: Vec<TableChange>,
}

/// Commits to a catalog.
///
/// [`Committer::commit`] is atomic over all tables and the ledger: a reader that pins one state of
/// the catalog sees all of a lake commit or nothing of it, and a crash at any moment leaves one of
/// the two. P is read back by [`Committer::position`] from the same catalog, and from nowhere else.
/// Two committers with the same ledger can never both commit on the same base.
///
/// A call of `commit` is driven to its end: dropped half-way it may still commit, and what follows
/// on the old base is then refused. After an error of unknown outcome the very same lake commit
/// (same uuid) may be committed again: it is made once.
#[async_trait]
pub trait Committer: Send + Sync {
    /// Makes the lake commit; gives the new P.
    ///
    /// # Errors
    /// `ANOTHER_WRITER` (fatal) where P is no longer `base`; `LAKE_REWOUND` (fatal) where a table
    /// is not what frazil left; `LAKE_CONFLICT` (conflict) where a table moved again and again;
    /// `LAKE_IO`, `CATALOG_BUSY` (transient) where nothing was committed for sure.
    async fn commit(&self, lake_commit: &LakeCommit) -> Result<Lsn>;

    /// The last record of the ledger; `None` before the first lake commit.
    ///
    /// # Errors
    /// `LAKE_TOO_NEW` (config) where a newer frazil wrote it; `LAKE_IO`, `CATALOG_BUSY`
    /// (transient).
    async fn position(&self) -> Result<Option<LedgerRecord>>;

    /// A table as it stands in the catalog now.
    ///
    /// # Errors
    /// `LAKE_IO`, `CATALOG_BUSY` (transient).
    async fn table(&self, ident: &TableIdent) -> Result<Option<Table>>;

    /// A table as the next lake commit builds on it: as this process last saw or left it, if it
    /// did, for the catalog refuses the lake commit where it stands otherwise; else as
    /// [`Committer::table`].
    ///
    /// # Errors
    /// As [`Committer::table`].
    async fn base(&self, ident: &TableIdent) -> Result<Option<Table>>;

    /// As [`Committer::table`], with all iceberg_snapshots that the catalog remembers;
    /// [`Committer::table`] may have the current one only.
    ///
    /// # Errors
    /// As [`Committer::table`].
    async fn whole_table(&self, ident: &TableIdent) -> Result<Option<Table>>;

    /// All tables of the catalog, the ledger included.
    ///
    /// # Errors
    /// `CATALOG_BUSY` (transient).
    async fn tables(&self) -> Result<Vec<TableIdent>>;

    /// Where a table that is not there yet will be; the same answer until it is. Some catalogs
    /// choose the place themselves.
    ///
    /// # Errors
    /// Those of the catalog (transient, config).
    async fn birthplace(&self, ident: &TableIdent, new: &NewTable) -> Result<Birthplace>;

    /// The last lake commits of this pipeline, newest first, `most` at most, as far back as the
    /// catalog remembers.
    ///
    /// # Errors
    /// As [`Committer::position`].
    async fn history(&self, most: usize) -> Result<Vec<PastCommit>>;
}
