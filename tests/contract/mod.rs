//! What every `Committer` promises. The suite is written against the trait; [`Lake`] is the only
//! place that knows an implementation.

mod all_or_nothing;
mod another_writer;
mod backfill;
mod bounds;
mod clock;
mod encodings;
mod foreign_commit;
mod located;
mod many_commits;
mod no_columns;
mod odd_names;
mod position;
mod position_deletes;
mod random;
mod read_by_duckdb;
mod rewound;
mod schema_change;
mod segments;
mod truncate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use frazil::error::Result;
use frazil::iceberg::committer::sql::SqlCommitter;
use frazil::iceberg::committer::{Committer, LakeCommit, NewTable, TableChange};
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::ledger::{LedgerRecord, PipelineState};
use frazil::iceberg::read::LiveRows;
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::iceberg::schema::key_schema;
use frazil::iceberg::storage::LakeStorage;
use frazil::iceberg::{Schema, Table, TableIdent, table_ident};
use frazil::progress::Lsn;
use frazil::window::relation::{Column, PgType, Relation, ReplicaIdentity};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) struct Lake {
    pub(crate) folder: TempDir,
    pub(crate) storage: LakeStorage,
    pub(crate) committer: Box<dyn Committer>,
}

impl Lake {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let committer = SqlCommitter::open(folder.path(), "p").await.unwrap();
        let storage = committer.storage().clone();
        Self { folder, storage, committer: Box::new(committer) }
    }

    /// Another committer on the same lake: a second process, or the next start of this one.
    pub(crate) async fn another(&self) -> Box<dyn Committer> {
        Box::new(SqlCommitter::open(self.folder.path(), "p").await.unwrap())
    }

    /// Moves a table's pointer behind the committer's back.
    pub(crate) fn point(&self, ident: &TableIdent, location: Option<&str>) {
        let db = rusqlite::Connection::open(self.folder.path().join("catalog.db")).unwrap();
        let name = ident.name();
        let done = match location {
            Some(to) => db.execute(
                "UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = ?",
                [to, name],
            ),
            None => db.execute("DELETE FROM iceberg_tables WHERE table_name = ?", [name]),
        };
        assert_eq!(done.unwrap(), 1);
    }

    pub(crate) async fn table(&self, ident: &TableIdent) -> Table {
        self.committer.table(ident).await.unwrap().unwrap()
    }

    pub(crate) async fn rows(&self, ident: &TableIdent) -> Vec<(i64, String)> {
        rows(&self.storage, &self.table(ident).await).await
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

    /// A segment of `t`'s rows.
    pub(crate) async fn segment(
        &self,
        ident: &TableIdent,
        rows: &[(i64, &str)],
        deleted: &[i64],
    ) -> SegmentFiles {
        let new = NewTable::for_relation(&relation(ident.name()), false).unwrap();
        let schema = match self.committer.table(ident).await.unwrap() {
            Some(table) => table.metadata().current_schema().as_ref().clone(),
            None => new.schema,
        };
        segment(&self.storage, ident, &schema, rows, deleted).await
    }
}

pub(crate) async fn segment(
    storage: &LakeStorage,
    ident: &TableIdent,
    schema: &Schema,
    rows: &[(i64, &str)],
    deleted: &[i64],
) -> SegmentFiles {
    let location = storage.table_location(ident);
    let layout = Layout::new(schema, &relation(ident.name())).unwrap();
    let hints = Arc::new(ColumnHints::default());
    let mut data = FileWriter::new(storage, &location, schema, FileContent::Data, &hints).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)));
    data.write(&layout.rows(&[ids, values], &[], rows.len()).unwrap()).await.unwrap();
    let keys = key_schema(schema).unwrap();
    let content = FileContent::EqualityDeletes;
    let mut deletes = FileWriter::new(storage, &location, &keys, content, &hints).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(deleted.to_vec()));
    deletes.write(&layout.key_rows(&[ids]).unwrap()).await.unwrap();
    SegmentFiles {
        rows_inserted: data.rows(),
        rows_deleted: deletes.rows(),
        data: data.close().await.unwrap().into_iter().collect(),
        deletes: deletes.close().await.unwrap().into_iter().collect(),
        has_raw: false,
    }
}

pub(crate) fn column(name: &str, attnum: i16, pg_type: PgType) -> Column {
    Column { name: name.into(), attnum, type_oid: 0, typmod: -1, pg_type, toastable: false }
}

/// `id int8 primary key, v text`
pub(crate) fn relation(name: &str) -> Relation {
    Relation {
        oid: 16_384,
        namespace: "app".into(),
        name: name.into(),
        columns: vec![column("id", 1, PgType::Int8), column("v", 2, PgType::Text)],
        key: vec![0],
        identity: ReplicaIdentity::Default,
    }
}

pub(crate) fn app(name: &str) -> TableIdent {
    table_ident("app", name)
}

pub(crate) fn record(lsn: u64) -> LedgerRecord {
    LedgerRecord {
        pipeline_id: "p".into(),
        committed_lsn: Lsn(lsn),
        timeline: 1,
        system_id: "7".into(),
        source_commit_time: None,
        source_transactions: 1,
        rows: BTreeMap::new(),
        lake_commit: Uuid::now_v7(),
        state: PipelineState::Streaming,
        slot: "frazil".into(),
    }
}

pub(crate) fn lake_commit(base: Option<u64>, lsn: u64, changes: Vec<TableChange>) -> LakeCommit {
    LakeCommit { ledger: record(lsn), base: base.map(Lsn), changes }
}

pub(crate) fn create(ident: &TableIdent, segments: Vec<SegmentFiles>) -> TableChange {
    let new = NewTable::for_relation(&relation(ident.name()), false).unwrap();
    TableChange { create: Some(new), ..change(ident, segments) }
}

pub(crate) fn change(ident: &TableIdent, segments: Vec<SegmentFiles>) -> TableChange {
    let delta = RowDelta { segments, ..RowDelta::default() };
    TableChange { ident: ident.clone(), create: None, delta }
}

/// Live rows, sorted.
pub(crate) async fn rows(storage: &LakeStorage, table: &Table) -> Vec<(i64, String)> {
    let mut live = LiveRows::open(storage, table).await.unwrap();
    let mut found = Vec::new();
    while let Some(batch) = live.next().await.unwrap() {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let values = batch.column(1).as_string::<i32>();
        let pairs = ids.iter().zip(values.iter());
        found.extend(pairs.map(|(id, v)| (id.unwrap(), v.unwrap_or("NULL").to_owned())));
    }
    found.sort();
    found
}

pub(crate) fn want(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
    rows.iter().map(|r| (r.0, r.1.to_owned())).collect()
}

/// One number of the current snapshot's summary.
pub(crate) fn summary(table: &Table, key: &str) -> u64 {
    let snapshot = table.metadata().current_snapshot().unwrap();
    snapshot.summary().additional_properties.get(key).map_or(0, |v| v.parse().unwrap())
}

/// All files below a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.to_str().unwrap().to_owned()),
        }
    }
    found.sort();
    found
}

/// Texts of 4 MB that no codec makes smaller.
pub(crate) fn noise() -> impl FnMut() -> String {
    let mut state = 1_u64;
    move || {
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        };
        (0..4_000_000).map(next).collect()
    }
}
