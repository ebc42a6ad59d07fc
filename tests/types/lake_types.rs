//! The Arrow types of columns are those that the lake's schema has, so that decoded arrays go into
//! its record batches as they are.

use std::sync::Arc;

use frazil::iceberg::layout::Layout;
use frazil::iceberg::schema::table_schema;
use frazil::window::decode::DecodedColumn;
use frazil::window::relation::{Column, Relation, ReplicaIdentity};
use frazil::window::wire::WalTuple;

use super::garbage::every_type;
use super::oracle::decode;

#[test]
fn decoded_columns_make_rows_of_the_lake() {
    let types = every_type();
    let columns = types.iter().zip(1..).map(|(pg_type, attnum)| Column {
        name: format!("c{attnum}"),
        attnum,
        type_oid: 0,
        typmod: -1,
        pg_type: pg_type.clone(),
        toastable: false,
    });
    let relation = Relation {
        oid: 1,
        namespace: "public".to_owned(),
        name: "t".to_owned(),
        columns: columns.collect(),
        key: Vec::new(),
        identity: ReplicaIdentity::Default,
    };
    let schema = Arc::new(table_schema(&relation, false).unwrap());
    let layout = Layout::new(&schema, &relation).unwrap();
    let decoded = relation.columns.iter().zip(layout.arrow().fields()).map(|(column, field)| {
        let data_type = field.data_type().clone();
        Some(DecodedColumn {
            name: column.name.clone(),
            pg_type: column.pg_type.clone(),
            data_type,
        })
    });
    let nulls = vec![b'n'; types.len() * 3];
    let width = u32::try_from(types.len()).unwrap();
    let decoded = decode::<WalTuple>(decoded.collect(), &nulls, &mut [0, width, 2 * width]);
    let rows = layout.rows(&decoded.columns, &[], decoded.rows).unwrap();
    assert_eq!(rows.num_rows(), 3);
}
