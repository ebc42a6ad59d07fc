//! Bounds in manifests hold for every row, however long its values are.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array, LargeBinaryArray,
    StringArray,
};
use frazil::iceberg::DataFile;
use frazil::iceberg::committer::NewTable;
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::window::relation::PgType;
use iceberg::spec::Datum;

use super::{Lake, app, column, noise, relation};

/// Writes `values` as column 2 of a table, one row group per inner slice's worth of bytes.
async fn written(pg_type: PgType, batches: &[ArrayRef]) -> DataFile {
    let lake = Lake::on_sqlite().await;
    let mut r = relation("t");
    r.columns[1] = column("v", 2, pg_type);
    let schema = NewTable::for_relation(&r, false).unwrap().schema;
    let layout = Layout::new(&schema, &r).unwrap();
    let hints = Arc::new(ColumnHints::default());
    let location = lake.home(&app("t")).await;
    let mut writer =
        FileWriter::new(&lake.storage, &location, &schema, FileContent::Data, &hints).unwrap();
    for values in batches {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        let rows = layout.rows(&[ids, values.clone()], &[], values.len()).unwrap();
        writer.write(&rows).await.unwrap();
    }
    writer.close().await.unwrap().unwrap()
}

fn bounds(file: &DataFile) -> (Option<Datum>, Option<Datum>) {
    (file.lower_bounds().get(&2).cloned(), file.upper_bounds().get(&2).cloned())
}

/// Row groups whose strings are longer than Parquet keeps statistics for, beside short ones.
#[tokio::test]
async fn long_strings_in_one_row_group_of_several() {
    // Incompressible, so that the row group limit (32 MiB encoded) is met.
    let mut noise = noise();
    let long: Vec<String> = ['m', 'Z', 'é']
        .iter()
        .flat_map(|&c| (0..8).map(move |_| c))
        .map(|c| format!("{c}{}", noise()))
        .collect();
    let mut batches: Vec<ArrayRef> =
        long.chunks(2).map(|c| Arc::new(StringArray::from(c.to_vec())) as ArrayRef).collect();
    batches.push(Arc::new(StringArray::from(vec![Some("n"), None, Some("o")])));
    let file = written(PgType::Text, &batches).await;
    assert!(file.split_offsets().unwrap().len() > 1, "one row group only");
    let (low, high) = bounds(&file);
    let (least, most) = (long.iter().min().unwrap(), long.iter().max().unwrap());
    assert_eq!(low, Some(Datum::string(least.chars().take(16).collect::<String>())));
    let iceberg::spec::PrimitiveLiteral::String(high) = high.unwrap().literal().clone() else {
        panic!("not a string")
    };
    assert!(high.as_str() > most.as_str() && high.chars().count() <= 16, "{high}");
    assert_eq!((file.null_value_counts()[&2], file.value_counts()[&2]), (1, 27));
}

#[tokio::test]
async fn nothing_is_above_an_upper_bound() {
    let top: ArrayRef = Arc::new(StringArray::from(vec!["\u{10FFFF}".repeat(40)]));
    let (low, high) = bounds(&written(PgType::Text, &[top]).await);
    assert_eq!((low.is_some(), high), (true, None));
    let bytes: ArrayRef = Arc::new(LargeBinaryArray::from(vec![[7_u8; 40].as_slice()]));
    let (low, high) = bounds(&written(PgType::Bytea, &[bytes]).await);
    assert_eq!(low, Some(Datum::binary([7; 16])));
    assert_eq!(high, Some(Datum::binary([[7; 15].as_slice(), &[8]].concat())));
}

#[tokio::test]
async fn numbers_and_floats() {
    let big = 10_i128.pow(37);
    for (precision, values) in [(38, [-big, big]), (18, [-5, 7]), (9, [-5, 7])] {
        let array = Decimal128Array::from(values.to_vec());
        let array: ArrayRef = Arc::new(array.with_precision_and_scale(precision, 2).unwrap());
        let file = written(PgType::Numeric { precision, scale: 2 }, &[array]).await;
        let (low, high) = bounds(&file);
        let number = |d: Option<Datum>| match d.unwrap().literal() {
            iceberg::spec::PrimitiveLiteral::Int128(v) => *v,
            other => panic!("{other:?}"),
        };
        assert_eq!([number(low), number(high)], values);
    }
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
    assert_eq!(bounds(&written(PgType::Float8, &[floats]).await), (None, None));
}

/// Iceberg's Java library orders uuids by their halves as signed numbers: by right bounds it did
/// not find the files that a delete reaches, and Spark and Trino showed deleted rows.
#[tokio::test]
async fn a_uuid_has_no_bounds() {
    let ids = [[0xff_u8; 16], [1; 16]];
    let array: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter()).unwrap());
    assert_eq!(bounds(&written(PgType::Uuid, &[array]).await), (None, None));
}
