//! Position deletes, which other writers and maintenance make, are read too.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use frazil::iceberg::read::{count_live, live_data_files, live_delete_files};
use frazil::iceberg::row_delta::SegmentFiles;
use iceberg::io::FileIO;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};

use super::{Lake, app, change, create, on_every_catalog, summary, want};

on_every_catalog! { rows_at_deleted_positions_are_gone, live_rows_of_a_key_are_counted }

async fn position_deletes(io: &FileIO, location: &str, deletes: &[(&str, i64)]) -> DataFile {
    let field = |name, ty, id: i32| {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Field::new(name, ty, false).with_metadata(id)
    };
    let schema = Arc::new(Schema::new(vec![
        field("file_path", DataType::Utf8, 2_147_483_546),
        field("pos", DataType::Int64, 2_147_483_545),
    ]));
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(deletes.iter().map(|d| d.0)));
    let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(deletes.iter().map(|d| d.1)));
    let batch = RecordBatch::try_new(schema.clone(), vec![paths, rows]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let size = bytes.len() as u64;
    io.new_output(location).unwrap().write(bytes.into()).await.unwrap();
    DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(location.to_owned())
        .file_format(DataFileFormat::Parquet)
        .record_count(deletes.len() as u64)
        .file_size_in_bytes(size)
        .build()
        .unwrap()
}

async fn rows_at_deleted_positions_are_gone(lake: Lake) {
    let t = app("t");
    let one = lake.segment(&t, &[(1, "a"), (2, "b"), (3, "c")], &[]).await;
    let two = lake.segment(&t, &[(4, "d"), (5, "e")], &[]).await;
    let (first, second) = (one.data[0].file_path().to_owned(), two.data[0].file_path().to_owned());
    lake.commit(None, 10, vec![create(&t, vec![one, two])]).await.unwrap();
    let location = format!("{}/data/positions.parquet", lake.home(&t).await);
    let deletes = [(first.as_str(), 0), (&first, 2), (&second, 1)];
    let file = position_deletes(&lake.storage.file_io(), &location, &deletes).await;
    let segment = SegmentFiles { deletes: vec![file], ..SegmentFiles::default() };
    lake.commit(Some(10), 20, vec![change(&t, vec![segment])]).await.unwrap();
    assert_eq!(lake.rows(&t).await, want(&[(2, "b"), (4, "d")]));
    assert_eq!(summary(&lake.table(&t).await, "total-position-deletes"), 3);
}

/// Equal keys, as a table without a key has them: what an equality delete of a later segment or a
/// position delete takes away does not count.
async fn live_rows_of_a_key_are_counted(lake: Lake) {
    let t = app("t");
    let one = lake.segment(&t, &[(1, "a"), (1, "a"), (1, "a"), (2, "b"), (3, "c")], &[]).await;
    let path = one.data[0].file_path().to_owned();
    lake.commit(None, 10, vec![create(&t, vec![one])]).await.unwrap();
    let segments = vec![
        lake.segment(&t, &[(2, "b"), (2, "b"), (4, "d")], &[2]).await,
        lake.segment(&t, &[(2, "b"), (4, "d")], &[4]).await,
    ];
    lake.commit(Some(10), 20, vec![change(&t, segments)]).await.unwrap();
    let location = format!("{}/data/positions.parquet", lake.home(&t).await);
    let io = lake.storage.file_io();
    let file = position_deletes(&io, &location, &[(path.as_str(), 1), (path.as_str(), 4)]).await;
    let segment = SegmentFiles { deletes: vec![file], ..SegmentFiles::default() };
    lake.commit(Some(20), 30, vec![change(&t, vec![segment])]).await.unwrap();

    let table = lake.table(&t).await;
    let data = live_data_files(&table).await.unwrap();
    let deletes = live_delete_files(&table).await.unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 1]));
    let schema = table.metadata().current_schema();
    let counted = count_live(&lake.storage, schema, (&data, &deletes), &[1], &[keys]).await;
    assert_eq!(counted.unwrap(), [2, 3, 0, 1, 0, 2]);
}
