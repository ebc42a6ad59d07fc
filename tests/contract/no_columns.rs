//! Tables without a key are appended to; tables without columns still count their rows (case 62).

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array};
use frazil::iceberg::committer::{NewTable, TableChange};
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::read::LiveRows;
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::window::relation::Relation;

use super::{Lake, app, on_every_catalog, relation};

on_every_catalog! {
    a_table_without_columns_counts_its_rows,
    a_table_without_a_key_keeps_equal_rows,
}

async fn count(lake: &Lake, relation: &Relation, columns: &[ArrayRef], rows: usize) -> u64 {
    let new = NewTable::for_relation(relation, false).unwrap();
    let layout = Layout::new(&new.schema, relation).unwrap();
    let location = lake.location(&app("t"), &new).await;
    let (content, hints) = (FileContent::Data, Arc::new(ColumnHints::default()));
    let mut writer =
        FileWriter::new(&lake.storage, &location, &new.schema, content, &hints).unwrap();
    writer.write(&layout.rows(columns, &[], rows).unwrap()).await.unwrap();
    let data = writer.close().await.unwrap().into_iter().collect();
    let segments = vec![SegmentFiles { data, ..SegmentFiles::default() }];
    let delta = RowDelta { segments, ..RowDelta::default() };
    let born = TableChange { ident: app("t"), create: Some(new), delta };
    lake.commit(None, 10, vec![born]).await.unwrap();
    let table = lake.table(&app("t")).await;
    LiveRows::count(&lake.storage, &table).await.unwrap()
}

async fn a_table_without_columns_counts_its_rows(lake: Lake) {
    let mut r = relation("t");
    r.columns.clear();
    r.key.clear();
    assert_eq!(count(&lake, &r, &[], 3).await, 3);
}

async fn a_table_without_a_key_keeps_equal_rows(lake: Lake) {
    let mut r = relation("t");
    r.columns.truncate(1);
    r.key.clear();
    let equal: ArrayRef = Arc::new(Int64Array::from(vec![7, 7]));
    assert_eq!(count(&lake, &r, &[equal], 2).await, 2);
}
