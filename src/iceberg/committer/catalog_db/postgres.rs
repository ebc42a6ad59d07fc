//! The catalog in a Postgres database: the same tables as in SQLite, so that Iceberg's JDBC catalog
//! opens it. The row locks of UPDATE make a compare-and-swap of each pointer; READ COMMITTED is
//! enough, because a row that another SQL transaction moved is looked at again once that has ended
//! (Postgres manual, Transaction Isolation).

use std::sync::Arc;

use futures::future::BoxFuture;
use iceberg::TableIdent;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use crate::error::{Error, Result};
use crate::iceberg::table_ident;

use super::{CATALOG_NAME, Move, SCHEMA, Swap};

/// Makes a connection to the catalog's database.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Client>> + Send + Sync>;

/// The catalog's database, connected when it is needed.
#[derive(Clone)]
pub(crate) struct PostgresDb {
    connect: Connect,
    client: Arc<Mutex<Option<Client>>>,
}

impl PostgresDb {
    /// Connects, and makes the catalog's tables where they are missing.
    ///
    /// # Errors
    /// Those of `connect`; `CATALOG_DENIED` (config), `CATALOG_IO` (transient).
    pub(crate) async fn open(connect: Connect) -> Result<Self> {
        let db = Self { connect, client: Arc::default() };
        let mut client = db.client().await?;
        let connected = connected(&mut client)?;
        // Two that make a table at the same moment collide; the later one finds it there then.
        if connected.batch_execute(SCHEMA).await.is_err() {
            connected.batch_execute(SCHEMA).await.map_err(catalog_error)?;
        }
        drop(client);
        Ok(db)
    }

    /// Connects, if the catalog's tables are there.
    ///
    /// # Errors
    /// As [`PostgresDb::open`].
    pub(crate) async fn existing(connect: Connect) -> Result<Option<Self>> {
        let db = Self { connect, client: Arc::default() };
        let mut client = db.client().await?;
        let sql = "SELECT to_regclass('iceberg_tables') IS NOT NULL";
        let row = connected(&mut client)?.query_one(sql, &[]).await.map_err(catalog_error)?;
        drop(client);
        Ok(row.get::<_, bool>(0).then_some(db))
    }

    async fn client(&self) -> Result<tokio::sync::MutexGuard<'_, Option<Client>>> {
        let mut client = self.client.lock().await;
        if client.as_ref().is_none_or(Client::is_closed) {
            let connected = (self.connect)().await?;
            // Our connections have no search path; Iceberg's JDBC catalog looks in this schema.
            connected.batch_execute("SET search_path = public").await.map_err(catalog_error)?;
            *client = Some(connected);
        }
        Ok(client)
    }

    pub(super) async fn locations(&self, idents: Vec<TableIdent>) -> Result<Vec<Option<String>>> {
        let mut client = self.client().await?;
        let (namespaces, names): (Vec<String>, Vec<String>) =
            idents.iter().map(|i| (i.namespace().join("."), i.name().to_owned())).unzip();
        let sql = "SELECT t.metadata_location FROM unnest($2::text[], $3::text[]) \
                     WITH ORDINALITY AS wanted (namespace, name, place) \
                   LEFT JOIN iceberg_tables t ON t.catalog_name = $1 \
                     AND t.table_namespace = wanted.namespace AND t.table_name = wanted.name \
                   ORDER BY wanted.place";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&CATALOG_NAME, &namespaces, &names];
        let rows = connected(&mut client)?.query(sql, &parameters).await.map_err(catalog_error)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(super) async fn tables(&self) -> Result<Vec<(TableIdent, String)>> {
        let mut client = self.client().await?;
        let sql = "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables \
                   WHERE catalog_name = $1 AND metadata_location IS NOT NULL \
                     AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL) ORDER BY 1, 2";
        let rows = connected(&mut client)?.query(sql, &[&CATALOG_NAME]).await;
        let rows = rows.map_err(catalog_error)?;
        let table = |row: &tokio_postgres::Row| (table_ident(row.get(0), row.get(1)), row.get(2));
        Ok(rows.iter().map(table).collect())
    }

    /// Moves all pointers, or none. Always in the same order, so that two writers cannot wait for
    /// each other.
    pub(super) async fn swap(&self, mut moves: Vec<Move>) -> Result<Swap> {
        moves.sort_by(|a, b| {
            let key = |m: &Move| (m.ident.namespace().join("."), m.ident.name().to_owned());
            key(a).cmp(&key(b))
        });
        let mut client = self.client().await?;
        let started = connected(&mut client)?.transaction().await;
        let transaction = started.map_err(catalog_error)?;
        if !swap_all(&transaction, &moves).await.map_err(catalog_error)? {
            transaction.rollback().await.map_err(catalog_error)?;
            return Ok(Swap::Conflict);
        }
        match transaction.commit().await {
            Ok(()) => Ok(Swap::Done),
            // The server said no: nothing moved.
            Err(error) if error.code().is_some() => Err(catalog_error(error)),
            Err(error) => Ok(Swap::Unknown(catalog_error(error))),
        }
    }
}

fn connected(client: &mut Option<Client>) -> Result<&mut Client> {
    client.as_mut().ok_or_else(|| Error::transient("CATALOG_IO", "the catalog is not connected"))
}

/// Compare and swap of all pointers, which are sorted; false if one was elsewhere.
async fn swap_all(
    transaction: &Transaction<'_>,
    moves: &[Move],
) -> Result<bool, tokio_postgres::Error> {
    for born in moves.iter().filter(|one| one.old.is_none()) {
        if !bear(transaction, born).await? {
            return Ok(false);
        }
    }
    let moved: Vec<&Move> = moves.iter().filter(|one| one.old.is_some()).collect();
    let namespaces: Vec<String> = moved.iter().map(|m| m.ident.namespace().join(".")).collect();
    let names: Vec<&str> = moved.iter().map(|m| m.ident.name()).collect();
    let old: Vec<Option<&str>> = moved.iter().map(|m| m.old.as_deref()).collect();
    let new: Vec<&str> = moved.iter().map(|m| m.new.as_str()).collect();
    // In their order, which an UPDATE does not promise: two writers never wait for each other.
    let lock = "SELECT 1 FROM iceberg_tables t \
                WHERE t.catalog_name = $1 AND (t.table_namespace, t.table_name) IN \
                  (SELECT * FROM unnest($2::text[], $3::text[])) \
                ORDER BY t.table_namespace, t.table_name FOR UPDATE";
    transaction.query(lock, &[&CATALOG_NAME, &namespaces, &names]).await?;
    let update = "UPDATE iceberg_tables t \
                  SET metadata_location = m.new, previous_metadata_location = m.old \
                  FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) \
                    AS m (namespace, name, old, new) \
                  WHERE t.catalog_name = $1 AND t.table_namespace = m.namespace \
                    AND t.table_name = m.name AND t.metadata_location = m.old";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&CATALOG_NAME, &namespaces, &names, &old, &new];
    let updated = transaction.execute(update, &parameters).await?;
    Ok(usize::try_from(updated) == Ok(moved.len()))
}

/// Gives a new table its pointer; false if there is one of its name.
async fn bear(transaction: &Transaction<'_>, one: &Move) -> Result<bool, tokio_postgres::Error> {
    let (namespace, name) = (one.ident.namespace().join("."), one.ident.name());
    let exists = "INSERT INTO iceberg_namespace_properties VALUES ($1, $2, 'exists', 'true') \
                      ON CONFLICT DO NOTHING";
    transaction.execute(exists, &[&CATALOG_NAME, &namespace]).await?;
    let insert = "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, \
                        metadata_location, previous_metadata_location, iceberg_type) \
                      VALUES ($1, $2, $3, $4, NULL, 'TABLE') ON CONFLICT DO NOTHING";
    let born = transaction.execute(insert, &[&CATALOG_NAME, &namespace, &name, &one.new]).await?;
    Ok(born == 1)
}

fn catalog_error(error: tokio_postgres::Error) -> Error {
    let made = match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Error::config("CATALOG_DENIED", "the catalog's database refuses this").with_cure(
                "GRANT CREATE ON SCHEMA public, or SELECT, INSERT, UPDATE on iceberg_tables and \
                 iceberg_namespace_properties",
            )
        }
        Some(
            &SqlState::LOCK_NOT_AVAILABLE
            | &SqlState::T_R_DEADLOCK_DETECTED
            | &SqlState::T_R_SERIALIZATION_FAILURE,
        ) => Error::transient("CATALOG_BUSY", "another SQL transaction holds the catalog")
            .with_cure("end the program that keeps a SQL transaction open on iceberg_tables"),
        // Class 42, 3D, 3F: what is asked for is not there, or not like this; it never will be.
        Some(code) if ["42", "3D", "3F"].iter().any(|class| code.code().starts_with(class)) => {
            Error::config("CATALOG_DENIED", "the catalog's tables are not what they should be")
                .with_cure("is it the right database? its tables are public.iceberg_tables, ...")
        }
        _ => {
            let why = error.as_db_error().map_or("no answer", |e| e.message());
            let what = format!("the catalog's database did not do it: {why}");
            Error::transient("CATALOG_IO", what)
                .with_cure("is it running and reachable? nothing was acknowledged")
        }
    };
    made.with_source(error)
}
