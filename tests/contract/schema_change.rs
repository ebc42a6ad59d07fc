//! Schema and data change in the same lake commit; ids follow the column, not its name.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, StringArray};
use frazil::iceberg::committer::{NewTable, TableChange};
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::ledger::ledger_ident;
use frazil::iceberg::read::LiveRows;
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::iceberg::schema::{GoOn, RAW_COLUMN, assign_versions, evolve, table_schema};
use frazil::window::relation::{HIDDEN_KEY, KeyForm, PgType};

use super::{Lake, app, change, column, create, on_every_catalog, relation};

on_every_catalog! {
    a_column_is_added_with_the_rows_that_use_it,
    a_new_table_has_the_field_ids_of_its_files,
    schemas_come_and_go,
}

async fn a_column_is_added_with_the_rows_that_use_it(lake: Lake) {
    let t = app("t");
    let one = lake.segment(&t, &[(1, "a")], &[]).await;
    lake.commit(None, 10, vec![create(&t, vec![one])]).await.unwrap();

    let mut later = relation("t");
    later.columns.swap_remove(1);
    later.columns.push(column("n", 3, PgType::Int4));
    let standing = lake.table(&t).await;
    let current = standing.metadata().current_schema().clone();
    let schema = evolve(&current, &later, true, GoOn::Keep).unwrap().unwrap();
    let layout = Layout::new(&schema, &later).unwrap();
    let columns: [ArrayRef; 2] =
        [Arc::new(Int64Array::from(vec![2, 3])), Arc::new(Int32Array::from(vec![None, Some(7)]))];
    let batch = layout.rows(&columns, &[(0, 1, "infinity".into())], 2).unwrap();
    let location = standing.metadata().location().to_owned();
    let hints = Arc::new(ColumnHints::default());
    let mut writer =
        FileWriter::new(&lake.storage, &location, &schema, FileContent::Data, &hints).unwrap();
    writer.write(&batch).await.unwrap();
    let data = writer.close().await.unwrap().into_iter().collect();
    let delta = RowDelta {
        segments: vec![SegmentFiles { data, ..SegmentFiles::default() }],
        schema: Some(schema),
        ..RowDelta::default()
    };
    let mut with_schema = change(&t, vec![]);
    with_schema.delta = delta;
    lake.commit(Some(10), 20, vec![with_schema]).await.unwrap();

    let table = lake.table(&t).await;
    let snapshot = table.metadata().current_snapshot().unwrap();
    assert_eq!(snapshot.schema_id(), Some(table.metadata().current_schema_id()));
    assert_ne!(table.metadata().current_schema_id(), 0);
    let mut live = LiveRows::open(&lake.storage, &table).await.unwrap();
    let old = live.next().await.unwrap().unwrap();
    let names: Vec<_> = old.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "v", "n", RAW_COLUMN]);
    assert_eq!((old.column(1).null_count(), old.column(2).null_count()), (0, 1));
    let new = live.next().await.unwrap().unwrap();
    assert_eq!((new.column(1).null_count(), new.column(2).null_count()), (2, 1));
    let raw = new.column(3).as_map();
    assert!(raw.is_valid(0) && raw.is_null(1));
    let entry = raw.value(0);
    let text =
        |at: usize| entry.column(at).as_any().downcast_ref::<StringArray>().unwrap().value(0);
    assert_eq!((text(0), text(1)), ("n", "infinity"));
}

/// Columns were dropped at the source: the ids have gaps, and a catalog that closed them would read
/// one column as another.
async fn a_new_table_has_the_field_ids_of_its_files(lake: Lake) {
    let t = app("t");
    let mut r = relation("t");
    r.columns[1] = column("v", 4, PgType::Text);
    r.columns.push(column("w", 2, PgType::Text));
    r.columns.push(column("span", 7, PgType::Interval));
    r.columns.push(column("many", 9, PgType::Array(Box::new(PgType::Uuid))));
    let new = NewTable::for_relation(&r, true).unwrap();
    let (schema, born) =
        (new.schema.clone(), TableChange { create: Some(new), ..change(&t, vec![]) });
    lake.commit(None, 10, vec![born]).await.unwrap();
    let table = lake.table(&t).await;
    let found = table.metadata().current_schema();
    assert_eq!(found.as_struct(), schema.as_struct());
    assert!(found.identifier_field_ids().eq(schema.identifier_field_ids()));
    assert_eq!(table.metadata().last_column_id(), schema.highest_field_id());
    let snapshot = table.metadata().current_snapshot().unwrap();
    assert_eq!(snapshot.schema_id(), Some(found.schema_id()));
    // And the ledger's.
    let ledger = lake.table(&ledger_ident("p")).await;
    assert_eq!(ledger.metadata().current_schema().field_by_id(1).unwrap().name, "lsn");
}

/// A schema that the table had before comes back under the id it had.
async fn schemas_come_and_go(lake: Lake) {
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let first = lake.table(&t).await.metadata().current_schema().clone();
    let mut wider = relation("t");
    wider.columns.push(column("n", 3, PgType::Int4));
    let second = evolve(&first, &wider, false, GoOn::Keep).unwrap().unwrap();
    for (lsn, schema) in (1..).zip([&second, first.as_ref(), &second, &second]) {
        let mut with = change(&t, vec![lake.segment(&t, &[(lsn, "x")], &[]).await]);
        with.delta.schema = Some(schema.clone());
        let lsn = u64::try_from(lsn).unwrap() * 10;
        lake.commit(Some(lsn), lsn + 10, vec![with]).await.unwrap();
        let table = lake.table(&t).await;
        let found = table.metadata().current_schema();
        assert_eq!(found.as_struct(), schema.as_struct(), "at {lsn}");
        let snapshot = table.metadata().current_snapshot().unwrap();
        assert_eq!(snapshot.schema_id(), Some(found.schema_id()), "at {lsn}");
    }
    assert_eq!(lake.rows(&t).await.len(), 4);
}

// cases: 94 95 151 holds
#[test]
fn ids_are_attnums_and_history_stays() {
    let mut r = relation("t");
    r.columns.push(column("ids", 5, PgType::Array(Box::new(PgType::Uuid))));
    let schema = table_schema(&r, false).unwrap();
    let ids: Vec<i32> = schema.as_struct().fields().iter().map(|f| f.id).collect();
    assert_eq!(ids, [1, 2, 5]);
    assert_eq!(schema.highest_field_id(), 10_040);
    assert!(schema.field_by_id(1).unwrap().required && !schema.field_by_id(2).unwrap().required);
    assert!(evolve(&schema, &r, false, GoOn::Keep).unwrap().is_none());

    r.columns[1].name = "renamed".into();
    let renamed = evolve(&schema, &r, false, GoOn::Keep).unwrap().unwrap();
    assert_eq!(renamed.field_by_id(2).unwrap().name, "renamed");
    r.columns.remove(1);
    assert!(evolve(&renamed, &r, false, GoOn::Keep).unwrap().is_none(), "a dropped column stays");
    r.columns.push(column("renamed", 6, PgType::Text));
    let again = evolve(&renamed, &r, false, GoOn::Keep).unwrap().unwrap();
    assert_eq!(again.field_by_id(2).unwrap().name, "renamed__v1");
    assert_eq!(again.field_by_id(6).unwrap().name, "renamed");
}

// cases: 97 holds
#[test]
fn a_type_that_can_not_be_promoted_gets_a_field_of_its_own() {
    let mut r = relation("t");
    let mut schema = table_schema(&r, false).unwrap();
    for (nth, ty) in
        [PgType::Int4, PgType::Int8, PgType::Text, PgType::Int4].into_iter().enumerate()
    {
        r.columns[1].pg_type = ty;
        assign_versions(&schema, &mut r, GoOn::Replace);
        schema = evolve(&schema, &r, false, GoOn::Replace).unwrap().unwrap();
        let version = [1, 1, 2, 3][nth];
        assert_eq!(r.columns[1].field_version, version);
        let name = r.columns[1].name.clone();
        assert_eq!(schema.field_by_name(&name).unwrap().id, r.columns[1].field_id());
    }
    let name = &r.columns[1].name;
    for nth in 1..=3 {
        assert!(schema.field_by_name(&format!("{name}__v{nth}")).is_some(), "{schema}");
    }
    r.columns[1].field_version = 10;
    assert_eq!(r.columns[1].field_id(), 2_000_002, "beyond frazil's own ids");
}

// cases: 103 holds
#[test]
fn a_table_that_is_made_anew_takes_none_of_the_old_fields() {
    let mut r = relation("t");
    let schema = table_schema(&r, true).unwrap();
    r.columns.truncate(1);
    assign_versions(&schema, &mut r, GoOn::TakeOver);
    let next = evolve(&schema, &r, false, GoOn::TakeOver).unwrap().unwrap();
    let ids: Vec<i32> = next.as_struct().fields().iter().map(|f| f.id).collect();
    assert_eq!(ids, [1_000_000, 100_001]);
    assert_eq!(next.identifier_field_ids().collect::<Vec<_>>(), [100_001]);
}

#[test]
fn what_can_not_be_applied_is_refused() {
    let schema = table_schema(&relation("t"), false).unwrap();
    let mut r = relation("t");
    r.columns[1].pg_type = PgType::Int4;
    assert_eq!(evolve(&schema, &r, false, GoOn::Keep).unwrap_err().code(), "SCHEMA_CHANGED");
    let mut r = relation("t");
    r.key = vec![1];
    assert_eq!(evolve(&schema, &r, false, GoOn::Keep).unwrap_err().code(), "SCHEMA_CHANGED");
    for own in [RAW_COLUMN, HIDDEN_KEY] {
        let mut r = relation("t");
        r.columns[1].name = own.into();
        assert_eq!(table_schema(&r, false).unwrap_err().code(), "COLUMN_NAME");
    }
}

/// The hidden key comes and goes with the rows only.
#[test]
fn the_hidden_key_follows_the_rows() {
    let mut r = relation("t");
    let plain = table_schema(&r, false).unwrap();
    r.hide_key();
    let hidden = table_schema(&r, false).unwrap();
    assert_eq!(hidden.identifier_field_ids().collect::<Vec<_>>(), [1_000_003]);
    let kept = |schema, r| evolve(schema, r, false, GoOn::Keep);
    assert!(kept(&hidden, &r).unwrap().is_none());
    assert_eq!(kept(&plain, &r).unwrap_err().code(), "SCHEMA_CHANGED");
    let replaced = evolve(&plain, &r, false, GoOn::Replace).unwrap().unwrap();
    assert!(replaced.field_by_name(HIDDEN_KEY).unwrap().required);
    assert!(!replaced.field_by_id(1).unwrap().required);
    let back = evolve(&replaced, &relation("t"), false, GoOn::Replace).unwrap().unwrap();
    assert!(back.field_by_name(HIDDEN_KEY).is_none());
    assert_eq!(back.identifier_field_ids().collect::<Vec<_>>(), [1]);
}

/// A float that becomes a double has the same value, but another text.
#[test]
fn a_wider_float_in_the_hidden_key_is_refused() {
    let mut r = relation("t");
    r.columns[0].pg_type = PgType::Float4;
    r.columns[1].pg_type = PgType::Float4;
    r.key_form = KeyForm::of(&r.columns, &r.key, r.identity);
    let schema = table_schema(&r, false).unwrap();
    r.columns[1].pg_type = PgType::Float8;
    assert!(evolve(&schema, &r, false, GoOn::Keep).unwrap().is_some());
    r.columns[0].pg_type = PgType::Float8;
    assert_eq!(evolve(&schema, &r, false, GoOn::Keep).unwrap_err().code(), "SCHEMA_CHANGED");
    assert!(evolve(&schema, &r, false, GoOn::Replace).unwrap().is_some());
    let schema = table_schema(&r, false).unwrap();
    r.columns[0].pg_type = PgType::Float4;
    assert_eq!(evolve(&schema, &r, false, GoOn::Keep).unwrap_err().code(), "SCHEMA_CHANGED");
}
