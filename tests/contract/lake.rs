//! The catalogs that the suite runs on, and the one place that knows how each of them is made, read
//! from outside and written to by somebody else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use frazil::error::{Error, Result};
use frazil::iceberg::committer::rest::{Login, RestCommitter, RestSettings};
use frazil::iceberg::committer::sql::SqlCommitter;
use frazil::iceberg::committer::{Committer, Connect, LakeCommit, NewTable, TableChange};
use frazil::iceberg::ledger::ledger_ident;
use frazil::iceberg::row_delta::SegmentFiles;
use frazil::iceberg::storage::{LakeStorage, StorageSettings};
use frazil::iceberg::{Table, TableIdent};
use frazil::progress::Lsn;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::stranger::Stranger;
use super::{files, lake_commit, relation, rows, segment};
use crate::support::minio::{BUCKET, Minio};
use crate::support::nessie::{Branch, Nessie, answer, http_client};
use crate::support::postgres::Postgres;

/// Runs each function on every catalog; a failure names both: `position::the_record::on_nessie`.
macro_rules! on_every_catalog {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::contract::Lake;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                super::$name(Lake::on_sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                super::$name(Lake::on_postgres().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_nessie() {
                super::$name(Lake::on_nessie().await).await;
            }
        }
    )+};
}

pub(crate) use on_every_catalog;

/// An empty lake of its own for one test.
pub(crate) struct Lake {
    pub(crate) storage: LakeStorage,
    pub(crate) committer: Box<dyn Committer>,
    place: Place,
}

enum Place {
    /// SQLite and the files in a folder.
    Sqlite(TempDir),
    /// A SQL catalog in Postgres, the files in MinIO.
    Postgres(Connect),
    /// A branch of Nessie, the files in MinIO.
    Nessie(Box<(Branch, RestSettings, StorageSettings)>),
}

impl Lake {
    pub(crate) async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let committer = SqlCommitter::open(folder.path(), "p").await.unwrap();
        let storage = committer.storage().clone();
        Self { storage, committer: Box::new(committer), place: Place::Sqlite(folder) }
    }

    pub(crate) async fn on_postgres() -> Self {
        let postgres = Postgres::shared().await;
        let database = postgres.database().await;
        Self::on_postgres_at(&postgres.dsn_of(&database), minio_settings().await).await
    }

    /// On the database at `dsn`.
    pub(crate) async fn on_postgres_at(dsn: &str, settings: StorageSettings) -> Self {
        let connect = connect(dsn);
        let root = format!("s3://{BUCKET}/sql/{}", dsn.rsplit('/').next().unwrap());
        let storage = LakeStorage::open(&root, settings).unwrap();
        let committer = SqlCommitter::on_postgres(connect.clone(), storage.clone(), "p").await;
        let committer = Box::new(committer.unwrap());
        Self { storage, committer, place: Place::Postgres(connect) }
    }

    pub(crate) async fn on_nessie() -> Self {
        let branch = Nessie::shared().await.branch().await;
        let settings = rest_settings(branch.uri(), &branch);
        Self::on_branch(branch, settings, minio_settings().await).await
    }

    /// On `branch`, reached as `settings` say.
    pub(crate) async fn on_branch(
        branch: Branch,
        settings: RestSettings,
        storage: StorageSettings,
    ) -> Self {
        let committer = RestCommitter::connect(settings.clone(), storage.clone(), "p").await;
        let committer = committer.unwrap();
        Self {
            storage: committer.storage().clone(),
            committer: Box::new(committer),
            place: Place::Nessie(Box::new((branch, settings, storage))),
        }
    }

    /// Another committer on the same lake: a second process, or the next start of this one.
    pub(crate) async fn another(&self) -> Box<dyn Committer> {
        match &self.place {
            Place::Sqlite(folder) => {
                Box::new(SqlCommitter::open(folder.path(), "p").await.unwrap())
            }
            Place::Postgres(connect) => {
                let storage = self.storage.clone();
                Box::new(SqlCommitter::on_postgres(connect.clone(), storage, "p").await.unwrap())
            }
            Place::Nessie(place) => {
                let (_, settings, storage) = place.as_ref().clone();
                Box::new(RestCommitter::connect(settings, storage, "p").await.unwrap())
            }
        }
    }

    /// Whoever else writes into the catalog.
    pub(crate) fn stranger(&self) -> Stranger {
        match &self.place {
            Place::Sqlite(folder) => Stranger::Sqlite(folder.path().join("catalog.db")),
            Place::Postgres(connect) => Stranger::Postgres(connect.clone()),
            Place::Nessie(place) => Stranger::Nessie(place.0.clone()),
        }
    }

    /// The folder of a lake that is in one.
    pub(crate) fn folder(&self) -> &Path {
        match &self.place {
            Place::Sqlite(folder) => folder.path(),
            _ => panic!("this lake is in no folder"),
        }
    }

    /// The branch of a lake in Nessie.
    pub(crate) fn branch(&self) -> &Branch {
        match &self.place {
            Place::Nessie(place) => &place.0,
            _ => panic!("this lake is on no branch"),
        }
    }

    /// `here` in a folder, where a commit takes a millisecond, else `away`.
    pub(crate) fn rounds(&self, here: u64, away: u64) -> u64 {
        if matches!(self.place, Place::Sqlite(_)) { here } else { away }
    }

    /// How DuckDB gets to the files: an SQL statement.
    pub(crate) async fn duckdb_secret(&self) -> String {
        if matches!(self.place, Place::Sqlite(_)) {
            return String::new();
        }
        let minio = Minio::shared().await;
        format!(
            "CREATE SECRET s (TYPE s3, KEY_ID '{}', SECRET '{}', ENDPOINT '{}', REGION '{}', \
             URL_STYLE 'path', USE_SSL false)",
            minio.access_key(),
            minio.secret_key(),
            minio.endpoint().trim_start_matches("http://"),
            minio.region()
        )
    }

    /// Whether the catalog can have a table of this name.
    pub(crate) fn takes(&self, name: &str) -> bool {
        !matches!(self.place, Place::Nessie(_)) || !["../x", ".", "t@main", "'t'"].contains(&name)
    }

    /// Whether the catalog shows a table's earlier snapshots; Nessie shows the current one.
    pub(crate) fn keeps_snapshots(&self) -> bool {
        !matches!(self.place, Place::Nessie(_))
    }

    /// Where a table is, or will be.
    pub(crate) async fn location(&self, ident: &TableIdent, new: &NewTable) -> String {
        match self.committer.table(ident).await.unwrap() {
            Some(table) => table.metadata().location().to_owned(),
            None => self.committer.birthplace(ident, new).await.unwrap().location,
        }
    }

    /// The same for a table of [`relation`].
    pub(crate) async fn home(&self, ident: &TableIdent) -> String {
        let new = NewTable::for_relation(&relation(ident.name()), false).unwrap();
        self.location(ident, &new).await
    }

    /// All files of these tables and of the ledger, sorted.
    pub(crate) async fn files(&self, idents: &[&TableIdent]) -> Vec<String> {
        let ledger = ledger_ident("p");
        let mut found = Vec::new();
        for ident in idents.iter().chain([&&ledger]) {
            let location = self.home(ident).await;
            found.extend(match location.strip_prefix("file://") {
                Some(path) => files(Path::new(path)),
                None => Minio::shared().await.list(key(&location)).await,
            });
        }
        found
    }

    pub(crate) async fn table(&self, ident: &TableIdent) -> Table {
        self.committer.table(ident).await.unwrap().unwrap()
    }

    pub(crate) async fn rows(&self, ident: &TableIdent) -> Vec<(i64, String)> {
        rows(&self.storage, &self.table(ident).await).await
    }

    /// P as the catalog has it.
    pub(crate) async fn position(&self) -> u64 {
        self.committer.position().await.unwrap().unwrap().committed_lsn.0
    }

    /// A lake commit from `base` to `lsn`.
    pub(crate) async fn commit(
        &self,
        base: Option<u64>,
        lsn: u64,
        changes: Vec<TableChange>,
    ) -> Result<Lsn> {
        self.committer.commit(&lake_commit(base, lsn, changes)).await
    }

    /// A lake commit that puts a row with this key into each of `idents`.
    pub(crate) async fn insert(
        &self,
        (base, lsn): (u64, u64),
        idents: &[&TableIdent],
        key: i64,
    ) -> LakeCommit {
        let mut changes = Vec::new();
        for ident in idents {
            changes.push(super::change(ident, vec![self.segment(ident, &[(key, "x")], &[]).await]));
        }
        lake_commit(Some(base), lsn, changes)
    }

    /// A segment of `t`'s rows.
    pub(crate) async fn segment(
        &self,
        ident: &TableIdent,
        rows: &[(i64, &str)],
        deleted: &[i64],
    ) -> SegmentFiles {
        let new = NewTable::for_relation(&relation(ident.name()), false).unwrap();
        let (schema, location) = match self.committer.table(ident).await.unwrap() {
            Some(table) => {
                let metadata = table.metadata();
                (metadata.current_schema().as_ref().clone(), metadata.location().to_owned())
            }
            None => {
                let location = self.committer.birthplace(ident, &new).await.unwrap().location;
                (new.schema, location)
            }
        };
        segment(&self.storage, &location, &schema, rows, deleted).await
    }

    /// A reader that sees all tables in one state of the catalog.
    pub(crate) async fn reader(&self) -> Reader {
        match &self.place {
            Place::Sqlite(folder) => {
                Reader::Sql(SqlCommitter::open(folder.path(), "p").await.unwrap())
            }
            Place::Postgres(connect) => {
                let storage = self.storage.clone();
                let committer = SqlCommitter::on_postgres(connect.clone(), storage, "p").await;
                Reader::Sql(committer.unwrap())
            }
            Place::Nessie(place) => Reader::Nessie(place.0.clone()),
        }
    }
}

/// See [`Lake::reader`].
pub(crate) enum Reader {
    Sql(SqlCommitter),
    Nessie(Branch),
}

impl Reader {
    /// What each of `idents` says its position is, all at one moment.
    pub(crate) async fn positions(&self, idents: &[TableIdent]) -> Vec<String> {
        match self {
            Self::Sql(committer) => {
                let tables = committer.pinned().await.unwrap();
                let asked = tables.iter().filter(|t| idents.contains(t.identifier()));
                asked.map(|t| t.metadata().properties()["frazil.position"].clone()).collect()
            }
            Self::Nessie(branch) => {
                let at = format!("{}%40{}", branch.name(), branch.head().await);
                let mut found = Vec::new();
                for ident in idents {
                    let (namespace, name) = (ident.namespace().join("."), ident.name());
                    let path = format!("v1/{at}/namespaces/{namespace}/tables/{name}");
                    let table = http_client().get(format!("{}/{path}", branch.uri()));
                    let properties = answer(table).await["metadata"]["properties"].take();
                    found.push(properties["frazil.position"].as_str().unwrap().to_owned());
                }
                found
            }
        }
    }
}

/// Connections to the database at `dsn`.
pub(crate) fn connect(dsn: &str) -> Connect {
    let dsn = dsn.to_owned();
    Arc::new(move || {
        let dsn = dsn.clone();
        Box::pin(async move {
            let connected = tokio_postgres::connect(&dsn, NoTls).await;
            let (client, connection) = connected.map_err(|e| {
                Error::transient("CATALOG_IO", "the catalog's database is away").with_source(e)
            })?;
            tokio::spawn(connection);
            Ok(client)
        })
    })
}

/// MinIO with its root user's keys.
pub(crate) async fn minio_settings() -> StorageSettings {
    let minio = Minio::shared().await;
    StorageSettings {
        endpoint: Some(minio.endpoint()),
        region: Some(minio.region().into()),
        access_key_id: Some(minio.access_key().into()),
        secret_access_key: Some(minio.secret_key().into()),
        ..StorageSettings::default()
    }
}

/// A branch at `uri`, Nessie's own or that of a proxy in front of it.
pub(crate) fn rest_settings(uri: &str, branch: &Branch) -> RestSettings {
    RestSettings {
        uri: uri.to_owned(),
        is_nessie: true,
        reference: Some(branch.name().to_owned()),
        branch_from: None,
        warehouse: None,
        login: Login::None,
        headers: BTreeMap::new(),
        ca_file: None,
        proxy: None,
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(60),
        vended_credentials: None,
        allow_torn_commits: false,
    }
}

/// The key of an object of MinIO.
pub(crate) fn key(location: &str) -> &str {
    location.strip_prefix(&format!("s3://{BUCKET}/")).unwrap()
}
