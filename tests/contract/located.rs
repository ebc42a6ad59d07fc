//! Rows found by key: the newest one, wherever it lies, and read back column by column.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use frazil::iceberg::committer::NewTable;
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::read::{live_data_files, locate, read_rows};

use super::{Lake, app, change, create, noise, on_every_catalog, relation};

on_every_catalog! { the_newest_row_of_each_key_is_found }

async fn the_newest_row_of_each_key_is_found(lake: Lake) {
    let t = app("t");
    let many: Vec<(i64, String)> = (0..5_000).map(|i| (i, format!("v{i}"))).collect();
    let many: Vec<(i64, &str)> = many.iter().map(|(i, v)| (*i, v.as_str())).collect();
    let one = lake.segment(&t, &many, &[]).await;
    lake.commit(None, 10, vec![create(&t, vec![one])]).await.unwrap();
    let segments = vec![
        lake.segment(&t, &[(7, "seven"), (9_000, "far")], &[7]).await,
        lake.segment(&t, &[(7, "seven again")], &[7]).await,
    ];
    lake.commit(Some(10), 20, vec![change(&t, segments)]).await.unwrap();

    let table = lake.table(&t).await;
    let schema = table.metadata().current_schema();
    let files = live_data_files(&table).await.unwrap();
    let numbers: Vec<i64> = files.iter().map(|f| f.1).collect();
    assert_eq!(numbers, [3, 2, 1]);
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![4_999, 7, 12_345, 9_000, 7, 3]));
    let found = locate(&lake.storage, schema, &files, &[1], &[keys]).await.unwrap();
    let places: Vec<_> = found.iter().map(|p| p.map(|p| (p.file, p.row))).collect();
    let want = [Some((2, 4_999)), Some((0, 0)), None, Some((1, 1)), Some((0, 0)), Some((2, 3))];
    assert_eq!(places, want);

    let read = read_rows(&lake.storage, schema, &files[2].0, &[3, 4, 4_999], &[2, 1]);
    let read = read.await.unwrap();
    let values: Vec<_> = read.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(values, ["v3", "v4", "v4999"]);
}

#[tokio::test]
async fn a_row_of_a_later_row_group_is_found() {
    let lake = Lake::on_sqlite().await;
    let t = app("t");
    let mut noise = noise();
    let rows: Vec<(i64, String)> = (0..24).map(|id| (id * 10, noise())).collect();
    let location = lake.home(&t).await;
    let schema = NewTable::for_relation(&relation("t"), false).unwrap().schema;
    let layout = Layout::new(&schema, &relation("t")).unwrap();
    let hints = Arc::new(ColumnHints::default());
    let mut writer =
        FileWriter::new(&lake.storage, &location, &schema, FileContent::Data, &hints).unwrap();
    for (id, value) in &rows {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![*id]));
        let value: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
        writer.write(&layout.rows(&[id, value], &[], 1).unwrap()).await.unwrap();
    }
    let file = writer.close().await.unwrap().unwrap();
    assert!(file.split_offsets().unwrap().len() > 1, "one row group only");
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![230, 5, 0, 231]));
    let files = [(file, 1)];
    let found = locate(&lake.storage, &schema, &files, &[1], &[keys]).await.unwrap();
    let found: Vec<_> = found.iter().map(|p| p.map(|p| p.row)).collect();
    assert_eq!(found, [Some(23), None, Some(0), None]);
    let read = read_rows(&lake.storage, &schema, &files[0].0, &[0, 23], &[2]).await.unwrap();
    let values: Vec<_> = read.column(0).as_string::<i32>().iter().flatten().collect();
    assert!(values == [rows[0].1.as_str(), rows[23].1.as_str()]);
}
