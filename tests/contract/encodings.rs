//! How columns are encoded: strings that repeat by a dictionary, integers by their differences.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use frazil::iceberg::committer::NewTable;
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::window::relation::PgType;
use parquet::basic::Encoding;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{Lake, app, column, relation};

async fn encodings(lake: &Lake, hints: &Arc<ColumnHints>, rows: usize) -> Vec<bool> {
    let mut r = relation("t");
    r.columns.push(column("city", 3, PgType::Text));
    let schema = NewTable::for_relation(&r, false).unwrap().schema;
    let layout = Layout::new(&schema, &r).unwrap();
    let number = |i: usize| i64::try_from(i).unwrap();
    let columns: [ArrayRef; 3] = [
        Arc::new(Int64Array::from_iter_values((0..rows).map(number))),
        Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("value {i}")))),
        Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("city {}", i % 5)))),
    ];
    let location = lake.home(&app("t")).await;
    let content = FileContent::Data;
    let mut writer = FileWriter::new(&lake.storage, &location, &schema, content, hints).unwrap();
    writer.write(&layout.rows(&columns, &[], rows).unwrap()).await.unwrap();
    assert!(writer.bytes_written() > 0);
    let file = writer.close().await.unwrap().unwrap();
    let path = file.file_path().strip_prefix("file://").unwrap();
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let group = reader.metadata().row_group(0);
    let has = |at: usize, encoding| group.column(at).encodings().any(|e| e == encoding);
    assert!(has(0, Encoding::DELTA_BINARY_PACKED));
    [1, 2].map(|at| group.column(at).dictionary_page_offset().is_some()).into()
}

#[tokio::test]
async fn a_dictionary_only_where_strings_repeat() {
    let lake = Lake::on_sqlite().await;
    let hints = Arc::new(ColumnHints::default());
    assert_eq!(encodings(&lake, &hints, 10).await, [false, false], "too few rows to tell");
    assert_eq!(encodings(&lake, &hints, 1000).await, [false, true]);
    assert_eq!(encodings(&lake, &hints, 10).await, [false, true], "learnt from the file before");
}

#[tokio::test]
async fn no_rows_make_no_file() {
    let lake = Lake::on_sqlite().await;
    let schema = NewTable::for_relation(&relation("t"), false).unwrap().schema;
    let location = lake.home(&app("t")).await;
    let hints = Arc::new(ColumnHints::default());
    let writer =
        FileWriter::new(&lake.storage, &location, &schema, FileContent::Data, &hints).unwrap();
    assert!(writer.close().await.unwrap().is_none());
    assert!(!lake.folder().join("app").exists());
}
