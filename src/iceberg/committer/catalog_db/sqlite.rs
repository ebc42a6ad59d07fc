//! The catalog in a SQLite file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iceberg::TableIdent;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::error::{Error, Result};
use crate::iceberg::table_ident;

use super::{CATALOG_NAME, Move, SCHEMA, Swap};

/// How long to wait for another process that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The database file, opened.
#[derive(Clone)]
pub(crate) struct SqliteDb {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteDb {
    /// Opens, and makes where missing, `path`.
    ///
    /// # Errors
    /// `CATALOG_FILE` (config), `CATALOG_BUSY`, `CATALOG_IO` (transient), `CATALOG_CORRUPT`
    /// (fatal).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = open(path).map_err(|e| catalog_error(path, e))?;
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = this.connection.lock().unwrap_or_else(PoisonError::into_inner);
            job(&mut connection).map_err(|e| catalog_error(&this.path, e))
        });
        done.await.unwrap_or_else(|e| {
            Err(Error::fatal("CATALOG_IO", "the catalog's thread died").with_source(e))
        })
    }

    /// Metadata locations of `idents`, all read in one state of the catalog.
    pub(super) async fn locations(&self, idents: Vec<TableIdent>) -> Result<Vec<Option<String>>> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            idents.iter().map(|ident| location(&transaction, ident)).collect()
        })
        .await
    }

    /// All tables with their metadata locations, read in one SELECT.
    pub(super) async fn tables(&self) -> Result<Vec<(TableIdent, String)>> {
        self.run(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables \
                 WHERE catalog_name = ? AND metadata_location IS NOT NULL \
                   AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL) ORDER BY 1, 2",
            )?;
            let rows = select.query_map([CATALOG_NAME], |row| {
                let (namespace, name): (String, String) = (row.get(0)?, row.get(1)?);
                Ok((table_ident(&namespace, &name), row.get(2)?))
            })?;
            rows.collect()
        })
        .await
    }

    /// Moves all pointers, or none. After an error within COMMIT nobody knows, until it is read
    /// back.
    ///
    /// # Errors
    /// As [`SqliteDb::open`].
    pub(super) async fn swap(&self, moves: Vec<Move>) -> Result<Swap> {
        let path = self.path.clone();
        self.run(move |connection| swap(connection, &path, &moves)).await
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn location(transaction: &Transaction<'_>, ident: &TableIdent) -> rusqlite::Result<Option<String>> {
    let mut select = transaction.prepare_cached(
        "SELECT metadata_location FROM iceberg_tables \
         WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
    )?;
    let key = params![CATALOG_NAME, ident.namespace().join("."), ident.name()];
    Ok(select.query_row(key, |row| row.get(0)).optional()?.flatten())
}

fn swap(connection: &mut Connection, path: &Path, moves: &[Move]) -> rusqlite::Result<Swap> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for one in moves {
        if !swap_one(&transaction, one)? {
            transaction.rollback()?;
            return Ok(Swap::Conflict);
        }
    }
    let Err(error) = transaction.commit() else { return Ok(Swap::Done) };
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
        return Err(error);
    }
    Ok(Swap::Unknown(catalog_error(path, error)))
}

/// Compare and swap of one pointer; false if it was elsewhere.
fn swap_one(transaction: &Transaction<'_>, one: &Move) -> rusqlite::Result<bool> {
    let (namespace, name) = (one.ident.namespace().join("."), one.ident.name());
    let Some(old) = &one.old else {
        transaction.execute(
            "INSERT OR IGNORE INTO iceberg_namespace_properties VALUES (?, ?, 'exists', 'true')",
            params![CATALOG_NAME, namespace],
        )?;
        let born = transaction.execute(
            "INSERT OR IGNORE INTO iceberg_tables (catalog_name, table_namespace, table_name, \
             metadata_location, previous_metadata_location, iceberg_type) \
             VALUES (?, ?, ?, ?, NULL, 'TABLE')",
            params![CATALOG_NAME, namespace, name, one.new],
        )?;
        return Ok(born == 1);
    };
    let moved = transaction.execute(
        "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? \
         WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? \
           AND metadata_location = ?",
        params![one.new, old, CATALOG_NAME, namespace, name, old],
    )?;
    Ok(moved == 1)
}

fn catalog_error(path: &Path, error: rusqlite::Error) -> Error {
    let at = path.display();
    let made = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::transient("CATALOG_BUSY", format!("{at} is held by another process"))
                .with_cure("end the program that keeps a SQL transaction open on it")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Error::config("CATALOG_FILE", format!("{at} can't be opened for writing"))
                .with_cure("choose a folder that this user may write, with `--into`")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::fatal("CATALOG_CORRUPT", format!("{at} is not a sound SQLite database"))
                .with_cure("restore it from a backup, or copy into a new lake")
        }
        Some(ErrorCode::DiskFull) => {
            Error::transient("CATALOG_IO", format!("no space left for {at}"))
                .with_cure("make space; nothing was acknowledged")
        }
        _ => Error::transient("CATALOG_IO", format!("{at} could not be read or written"))
            .with_cure("is the disk full or gone? nothing was acknowledged"),
    };
    made.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::super::CatalogDb;
    use super::*;

    fn one(name: &str, old: Option<&str>, new: &str) -> Move {
        Move { ident: table_ident("app", name), old: old.map(Into::into), new: new.into() }
    }

    #[tokio::test]
    async fn one_pointer_elsewhere_moves_none() {
        let folder = tempfile::tempdir().unwrap();
        let db = SqliteDb::open(&folder.path().join("catalog.db")).unwrap();
        let born = vec![one("a", None, "a0"), one("b", None, "b0")];
        assert!(matches!(db.swap(born).await.unwrap(), Swap::Done));
        let late = vec![one("a", Some("a0"), "a1"), one("b", Some("bX"), "b1")];
        assert!(matches!(db.swap(late).await.unwrap(), Swap::Conflict));
        let twice = vec![one("a", Some("a0"), "a1"), one("b", None, "b1")];
        assert!(matches!(db.swap(twice).await.unwrap(), Swap::Conflict));
        let idents = ["a", "b"].map(|n| table_ident("app", n)).into();
        let found = db.locations(idents).await.unwrap();
        assert_eq!(found, [Some("a0".to_owned()), Some("b0".to_owned())]);
    }

    #[tokio::test]
    async fn a_failed_commit_is_an_error_and_moves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = SqliteDb::open(&folder.path().join("catalog.db")).unwrap();
        db.swap(vec![one("a", None, "a0")]).await.unwrap();
        // A deferred constraint is checked by COMMIT, so it is COMMIT that fails.
        let refuse = |connection: &mut Connection| {
            connection.execute_batch(
                "PRAGMA foreign_keys = ON; CREATE TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE child (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER late AFTER UPDATE ON iceberg_tables
                 BEGIN INSERT INTO child VALUES (1); END;",
            )
        };
        db.run(refuse).await.unwrap();
        let all = CatalogDb::Sqlite(db.clone());
        let error = all.swap(vec![one("a", Some("a0"), "a1")]).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Transient);
        let found = db.locations(vec![table_ident("app", "a")]).await.unwrap();
        assert_eq!(found, [Some("a0".to_owned())]);
    }
}
