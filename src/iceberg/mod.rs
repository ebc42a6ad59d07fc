//! The lake: Parquet files, manifests and iceberg_snapshots (Iceberg table spec, format version 2),
//! and the one catalog commit over all tables.
//!
//! ```text
//! RecordBatch ─► FileWriter ─► DataFile ─► RowDelta::stage ─► Staged ─┐
//!               data_files      bounds     manifests                  ├─► Committer: ONE catalog
//!                                          LedgerRecord (= P) ────────┘   commit over all tables
//! ```
//!
//! Files are named before they are referenced, and referenced only by the catalog commit; so what a
//! crash leaves behind is unreferenced, never half a table.

pub mod bounds;
pub mod committer;
pub mod data_files;
mod history;
pub mod lake;
pub mod layout;
pub mod ledger;
mod live_rows;
mod locate;
mod manifests;
pub mod read;
pub mod rewrite;
pub mod row_delta;
pub mod schema;
pub mod storage;

use iceberg::ErrorKind;
pub use iceberg::spec::{DataFile, Schema};
pub use iceberg::table::Table;
pub use iceberg::{NamespaceIdent, TableIdent};

use crate::error::Error;

/// Version of everything that frazil writes into the lake under `frazil.`; a newer one is refused.
pub const LAKE_FORMAT_VERSION: u32 = 2;

/// Table property and snapshot summary key: [`LAKE_FORMAT_VERSION`].
pub const FORMAT_VERSION_KEY: &str = "frazil.format-version";

/// Table property and snapshot summary key: P of the lake commit that last touched the table.
pub const POSITION_KEY: &str = "frazil.position";

/// Table property: the Postgres oid that the table is bound to.
pub const OID_KEY: &str = "frazil.oid";

/// The lake's name of a source table: namespace = Postgres schema, name = table name.
pub fn table_ident(namespace: &str, name: &str) -> TableIdent {
    TableIdent::new(NamespaceIdent::new(namespace.to_owned()), name.to_owned())
}

/// An error of the `iceberg` crate that is not a conflict: storage in the way, or a file that is
/// not what its name says.
pub(crate) fn lake_error(what: &str, error: iceberg::Error) -> Error {
    let made = match error.kind() {
        ErrorKind::DataInvalid | ErrorKind::FeatureUnsupported => {
            Error::fatal("LAKE_METADATA", what.to_owned())
                .with_cure("was a file of the lake changed by hand? nothing was acknowledged")
        }
        _ => Error::transient("LAKE_IO", what.to_owned())
            .with_cure("is the lake's folder there, writable, not full? nothing was acknowledged"),
    };
    made.with_source(error)
}
