//! The database of a SQL catalog: the tables that Iceberg's JDBC catalog (schema V1) and
//! PyIceberg's SqlCatalog know, in a SQLite file or in Postgres, and one SQL transaction that moves
//! many tables at once.

mod postgres;
mod sqlite;

use iceberg::TableIdent;

use crate::error::{Error, Result};

pub use postgres::Connect;
pub(crate) use postgres::PostgresDb;
pub(crate) use sqlite::SqliteDb;

/// The catalog's name, which other engines must use too.
pub const CATALOG_NAME: &str = "frazil";

/// What both kinds of database are given; every statement may be run again.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS iceberg_tables (
  catalog_name VARCHAR(255) NOT NULL,
  table_namespace VARCHAR(255) NOT NULL,
  table_name VARCHAR(255) NOT NULL,
  metadata_location VARCHAR(1000),
  previous_metadata_location VARCHAR(1000),
  iceberg_type VARCHAR(5),
  PRIMARY KEY (catalog_name, table_namespace, table_name));
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
  catalog_name VARCHAR(255) NOT NULL,
  namespace VARCHAR(255) NOT NULL,
  property_key VARCHAR(255) NOT NULL,
  property_value VARCHAR(1000),
  PRIMARY KEY (catalog_name, namespace, property_key));";

/// One table's pointer from one metadata file to the next.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) ident: TableIdent,
    /// `None` for a table that is born.
    pub(crate) old: Option<String>,
    pub(crate) new: String,
}

/// How a swap of pointers ended.
#[derive(Debug)]
pub(crate) enum Swap {
    /// All pointers moved.
    Done,
    /// None did: at least one was not where it was expected.
    Conflict,
    /// Nobody knows.
    Unknown(Error),
}

/// The catalog's database, opened.
#[derive(Clone)]
pub(crate) enum CatalogDb {
    Sqlite(SqliteDb),
    Postgres(PostgresDb),
}

impl CatalogDb {
    /// Metadata locations of `idents`, all read in one state of the catalog.
    pub(crate) async fn locations(&self, idents: Vec<TableIdent>) -> Result<Vec<Option<String>>> {
        match self {
            Self::Sqlite(db) => db.locations(idents).await,
            Self::Postgres(db) => db.locations(idents).await,
        }
    }

    /// All tables with their metadata locations, read in one SELECT.
    pub(crate) async fn tables(&self) -> Result<Vec<(TableIdent, String)>> {
        match self {
            Self::Sqlite(db) => db.tables().await,
            Self::Postgres(db) => db.tables().await,
        }
    }

    /// Moves all pointers, or none, in one SQL transaction. The error of COMMIT is not the end: the
    /// last move is read back, and only what stands then counts.
    ///
    /// # Errors
    /// Where nothing moved for sure.
    pub(crate) async fn swap(&self, moves: Vec<Move>) -> Result<Swap> {
        let last = moves.last().cloned();
        let swapped = match self {
            Self::Sqlite(db) => db.swap(moves).await,
            Self::Postgres(db) => db.swap(moves).await,
        };
        let error = match (swapped, &last) {
            (Ok(Swap::Unknown(error)), Some(_)) => error,
            (decided, _) => return decided,
        };
        let Some(last) = last else { return Ok(Swap::Done) };
        tracing::warn!(%error, "the catalog commit failed; reading back what stands");
        match self.locations(vec![last.ident.clone()]).await {
            Ok(found) if found.iter().flatten().any(|l| *l == last.new) => Ok(Swap::Done),
            // A file is written by us or not at all; a server may be finishing it still.
            Ok(_) if matches!(self, Self::Sqlite(_)) => Err(error),
            _ => Ok(Swap::Unknown(error)),
        }
    }
}
