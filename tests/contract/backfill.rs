//! A column added with a constant default: old rows have the value, deletes still reach them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Int32Array};
use frazil::iceberg::read::{LiveRows, live_data_files};
use frazil::iceberg::rewrite::backfill;
use frazil::iceberg::schema::{GoOn, evolve};
use frazil::window::relation::PgType;

use super::{Lake, app, change, column, create, on_every_catalog, relation, summary, want};

on_every_catalog! { old_rows_get_the_default }

// cases: 91 holds
async fn old_rows_get_the_default(lake: Lake) {
    let t = app("t");
    let one = lake.segment(&t, &[(1, "a"), (2, "b")], &[]).await;
    lake.commit(None, 10, vec![create(&t, vec![one])]).await.unwrap();
    let two = lake.segment(&t, &[(3, "c")], &[1]).await;
    lake.commit(Some(10), 20, vec![change(&t, vec![two])]).await.unwrap();

    let table = lake.table(&t).await;
    let mut later = relation("t");
    later.columns.push(column("n", 3, PgType::Int4));
    let schema =
        evolve(table.metadata().current_schema(), &later, false, GoOn::Keep).unwrap().unwrap();
    let seven: ArrayRef = Arc::new(Int32Array::from(vec![7]));
    let files = live_data_files(&table).await.unwrap();
    let location = table.metadata().location().to_owned();
    let rewritten =
        backfill(&lake.storage, &location, &schema, &files, &[(3, seven.clone())]).await.unwrap();
    assert_eq!(rewritten.len(), 2);
    let mut with = change(&t, vec![]);
    with.delta.rewritten = rewritten;
    with.delta.schema = Some(schema.clone());
    lake.commit(Some(20), 30, vec![with]).await.unwrap();

    assert_eq!(lake.rows(&t).await, want(&[(2, "b"), (3, "c")]));
    let table = lake.table(&t).await;
    assert_eq!(summary(&table, "total-data-files"), 2);
    assert_eq!(summary(&table, "total-records"), 3);
    let mut live = LiveRows::open(&lake.storage, &table).await.unwrap();
    while let Some(rows) = live.next().await.unwrap() {
        assert!(rows.column(2).as_primitive::<Int32Type>().iter().all(|v| v == Some(7)));
    }
    let files = live_data_files(&table).await.unwrap();
    let again =
        backfill(&lake.storage, &location, &schema, &files, &[(3, seven.clone())]).await.unwrap();
    assert!(again.is_empty(), "files that have the column are left alone");
}
