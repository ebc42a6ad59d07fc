//! What every `Committer` promises. The suite is written against the trait, and runs on SQLite in a
//! folder, on Postgres with files in S3 (MinIO), and on a REST catalog (Nessie) with files in S3;
//! [`Lake`] is the only place that knows an implementation. What only one of them can do, or only
//! the network between, stands in files of its own.

mod all_or_nothing;
mod another_writer;
mod backfill;
mod bounds;
mod clock;
mod encodings;
mod foreign_commit;
mod lake;
mod located;
mod many_commits;
mod no_columns;
mod odd_names;
mod position;
mod position_deletes;
mod postgres_cut;
mod random;
mod read_by_duckdb;
mod rest;
mod rewound;
mod s3;
mod schema_change;
mod segments;
mod storage_away;
mod stranger;
mod truncate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use frazil::iceberg::committer::{LakeCommit, NewTable, TableChange};
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::ledger::{LedgerRecord, PipelineState};
use frazil::iceberg::read::LiveRows;
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::iceberg::schema::key_schema;
use frazil::iceberg::storage::LakeStorage;
use frazil::iceberg::{Schema, Table, TableIdent, table_ident};
use frazil::progress::Lsn;
use frazil::window::relation::{Column, KeyForm, PgType, Relation, ReplicaIdentity};
use uuid::Uuid;

pub(crate) use lake::{Lake, minio_settings, on_every_catalog, rest_settings};

/// The files of a segment of `id int8, v text`, below a table's location.
pub(crate) async fn segment(
    storage: &LakeStorage,
    location: &str,
    schema: &Schema,
    rows: &[(i64, &str)],
    deleted: &[i64],
) -> SegmentFiles {
    let layout = Layout::new(schema, &relation("t")).unwrap();
    let hints = Arc::new(ColumnHints::default());
    let mut data = FileWriter::new(storage, location, schema, FileContent::Data, &hints).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)));
    data.write(&layout.rows(&[ids, values], &[], rows.len()).unwrap()).await.unwrap();
    let keys = key_schema(schema).unwrap();
    let content = FileContent::EqualityDeletes;
    let mut deletes = FileWriter::new(storage, location, &keys, content, &hints).unwrap();
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
    Column {
        name: name.into(),
        attnum,
        type_oid: 0,
        typmod: -1,
        pg_type,
        toastable: false,
        field_version: 0,
    }
}

/// `id int8 primary key, v text`
pub(crate) fn relation(name: &str) -> Relation {
    Relation {
        rules: frazil::window::rules::ValueRules::default(),
        oid: 16_384,
        namespace: "app".into(),
        name: name.into(),
        columns: vec![column("id", 1, PgType::Int8), column("v", 2, PgType::Text)],
        key: vec![0],
        identity: ReplicaIdentity::Default,
        key_form: KeyForm::Columns,
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
        behind: BTreeMap::default(),
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
