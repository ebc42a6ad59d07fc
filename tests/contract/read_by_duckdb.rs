//! An independent reader, DuckDB with its iceberg extension, reads what frazil wrote: every type,
//! equality deletes between segments, `_pg_raw`, odd names.

use std::process::Command;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, LargeBinaryArray, ListArray, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field};
use frazil::iceberg::TableIdent;
use frazil::iceberg::committer::{NewTable, TableChange};
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::window::relation::{PgType, Relation};

use super::{Lake, app, change, column, create, on_every_catalog, relation};

on_every_catalog! {
    equality_deletes_between_segments,
    a_table_without_rows,
    every_type_and_raw_values,
}

/// The rows of a table as DuckDB prints them, one per line.
async fn duckdb(lake: &Lake, ident: &TableIdent, select: &str) -> Vec<String> {
    let table = lake.table(ident).await;
    let location = table.metadata_location().unwrap();
    let home = std::env::var("HOME").unwrap();
    let python = format!("{home}/.cache/frazil/venv/bin/python");
    let script = "
import sys, pathlib, duckdb
import duckdb_extension_avro, duckdb_extension_httpfs, duckdb_extension_iceberg
con = duckdb.connect(config={'allow_unsigned_extensions': 'true'})
for module in (duckdb_extension_avro, duckdb_extension_httpfs, duckdb_extension_iceberg):
    for file in pathlib.Path(module.__file__).parent.rglob('*.duckdb_extension'):
        con.execute(f\"load '{file}'\")
con.execute(\"set timezone = 'UTC'\")
con.execute(sys.argv[3])
scan = \"iceberg_scan('\" + sys.argv[1].replace(\"'\", \"''\") + \"')\"
for row in con.execute(sys.argv[2].replace('LAKE', scan)).fetchall():
    print('|'.join('NULL' if v is None else str(v) for v in row))
";
    let secret = lake.duckdb_secret().await;
    let done = Command::new(&python).args(["-c", script, location, select, &secret]).output();
    let done = done.unwrap_or_else(|e| panic!("{python} is missing (see CONTRIBUTING): {e}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn equality_deletes_between_segments(lake: Lake) {
    let (mut base, mut lsn) = (None, 10);
    for name in ["t", "sp ace/%2F'ü"] {
        let t = app(name);
        let rows = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
        let rows = lake.segment(&t, &rows, &[]).await;
        lake.commit(base, lsn, vec![create(&t, vec![rows])]).await.unwrap();
        let segments = vec![
            lake.segment(&t, &[(10, "s1"), (11, "s1"), (12, "s1")], &[1]).await,
            lake.segment(&t, &[(10, "s2"), (12, "s2")], &[10, 11, 12]).await,
            lake.segment(&t, &[(10, "s3"), (11, "s3")], &[10, 2]).await,
        ];
        lake.commit(Some(lsn), lsn + 10, vec![change(&t, segments)]).await.unwrap();
        (base, lsn) = (Some(lsn + 10), lsn + 20);
        let rows = duckdb(&lake, &t, "from LAKE order by id").await;
        assert_eq!(rows, ["3|c", "4|d", "5|e", "10|s3", "11|s3", "12|s2"], "{name}");
    }
}

async fn a_table_without_rows(lake: Lake) {
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    assert_eq!(duckdb(&lake, &t, "select count(*) from LAKE").await, ["0"]);
}

fn all_types() -> (Relation, Vec<ArrayRef>) {
    let mut r = relation("types");
    r.columns.truncate(1);
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2]))];
    let mut add = |name: &str, pg_type: PgType, array: ArrayRef| {
        let attnum = i16::try_from(arrays.len() + 1).unwrap();
        r.columns.push(column(name, attnum, pg_type));
        arrays.push(array);
    };
    let decimal = |v: i128, p, s| -> ArrayRef {
        let array = Decimal128Array::from(vec![Some(v), None]);
        Arc::new(array.with_precision_and_scale(p, s).unwrap())
    };
    let text = |v: &str| -> ArrayRef { Arc::new(StringArray::from(vec![Some(v), None])) };
    add("bool", PgType::Bool, Arc::new(BooleanArray::from(vec![Some(true), None])));
    add("int4", PgType::Int4, Arc::new(Int32Array::from(vec![Some(i32::MIN), None])));
    add("oid", PgType::Oid, Arc::new(Int64Array::from(vec![Some(4_294_967_295), None])));
    add("xid8", PgType::Xid8, decimal(i128::from(u64::MAX), 20, 0));
    add("float4", PgType::Float4, Arc::new(Float32Array::from(vec![Some(-0.5), None])));
    add("float8", PgType::Float8, Arc::new(Float64Array::from(vec![Some(f64::NAN), None])));
    add("n9", PgType::Numeric { precision: 9, scale: 2 }, decimal(-123, 9, 2));
    add("n18", PgType::Numeric { precision: 18, scale: 2 }, decimal(123, 18, 2));
    add("n38", PgType::Numeric { precision: 38, scale: 10 }, decimal(10_i128.pow(37), 38, 10));
    add("text", PgType::Text, text("ü|'\""));
    add(
        "bytea",
        PgType::Bytea,
        Arc::new(LargeBinaryArray::from(vec![Some(b"\0a".as_slice()), None])),
    );
    add("date", PgType::Date, Arc::new(Date32Array::from(vec![Some(-1), None])));
    let time = Time64MicrosecondArray::from(vec![Some(86_399_999_999), None]);
    add("time", PgType::Time, Arc::new(time));
    let stamp = TimestampMicrosecondArray::from(vec![Some(1_000_001), None]);
    add("ts", PgType::Timestamp, Arc::new(stamp.clone()));
    add("tstz", PgType::TimestampTz, Arc::new(stamp.with_timezone("+00:00")));
    let field = |name, ty| Arc::new(Field::new(name, ty, false));
    let interval = StructArray::from(vec![
        (field("months", DataType::Int32), Arc::new(Int32Array::from(vec![1, 0])) as ArrayRef),
        (field("days", DataType::Int32), Arc::new(Int32Array::from(vec![-2, 0]))),
        (field("micros", DataType::Int64), Arc::new(Int64Array::from(vec![3, 0]))),
    ]);
    add("interval", PgType::Interval, Arc::new(interval));
    let ids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
        [Some([0xab_u8; 16]), None].into_iter(),
        16,
    );
    let ids: ArrayRef = Arc::new(ids.unwrap());
    add("uuid", PgType::Uuid, ids.clone());
    let element = Arc::new(Field::new("item", DataType::FixedSizeBinary(16), true));
    let offsets = OffsetBuffer::new(vec![0, 2, 2].into());
    let ids = ListArray::new(element, offsets, ids, None);
    add("uuids", PgType::Array(Box::new(PgType::Uuid)), Arc::new(ids));
    let mut ints = ListBuilder::new(Int32Builder::new());
    ints.append_value([Some(1), None]);
    ints.append_null();
    add("ints", PgType::Array(Box::new(PgType::Int2)), Arc::new(ints.finish()));
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("x"), None]);
    texts.append_null();
    add("texts", PgType::Array(Box::new(PgType::Text)), Arc::new(texts.finish()));
    (r, arrays)
}

async fn every_type_and_raw_values(lake: Lake) {
    let (r, arrays) = all_types();
    let t = app("types");
    let new = NewTable::for_relation(&r, true).unwrap();
    let layout = Layout::new(&new.schema, &r).unwrap();
    let raw = [(1, 12, "infinity".to_owned()), (1, 6, "NaN".to_owned())];
    let rows = layout.rows(&arrays, &raw, 2).unwrap();
    let location = lake.location(&t, &new).await;
    let (content, hints) = (FileContent::Data, Arc::new(ColumnHints::default()));
    let mut writer =
        FileWriter::new(&lake.storage, &location, &new.schema, content, &hints).unwrap();
    writer.write(&rows).await.unwrap();
    let data = writer.close().await.unwrap().into_iter().collect();
    let segments = vec![SegmentFiles { data, has_raw: true, ..SegmentFiles::default() }];
    let delta = RowDelta { segments, ..RowDelta::default() };
    let born = TableChange { ident: t.clone(), create: Some(new), delta };
    lake.commit(None, 10, vec![born]).await.unwrap();

    // As text: Python has no time zones without a package of its own.
    let select = "select * replace (tstz::varchar as tstz) from LAKE order by id";
    let found = duckdb(&lake, &t, select).await;
    let one = "1|True|-2147483648|4294967295|18446744073709551615|-0.5|nan|-1.23|1.23|\
               1000000000000000000000000000.0000000000|ü|'\"|b'\\x00a'|1969-12-31|\
               23:59:59.999999|1970-01-01 00:00:01.000001|1970-01-01 00:00:01.000001+00|\
               {'months': 1, 'days': -2, 'micros': 3}|abababab-abab-abab-abab-abababababab|\
               [UUID('abababab-abab-abab-abab-abababababab'), None]|[1, None]|['x', None]|NULL";
    let nulls = "NULL|".repeat(15);
    let two = format!(
        "2|{nulls}{{'months': 0, 'days': 0, 'micros': 0}}|NULL|[]|NULL|NULL|\
         {{'date': 'infinity', 'float8': 'NaN'}}"
    );
    assert_eq!(found, [one.to_owned(), two]);
    let filtered = "select count(*) from LAKE where uuid = 'abababab-abab-abab-abab-abababababab' \
                    and n18 = 1.23 and n9 < 0 and date < '1970-01-01'";
    assert_eq!(duckdb(&lake, &t, filtered).await, ["1"]);
}
