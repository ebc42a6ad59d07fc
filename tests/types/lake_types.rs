//! The Arrow types of columns are those that the iceberg crate makes of the lake's schema, so that
//! decoded arrays go into its record batches as they are.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use frazil::window::decode::{DecodedColumn, arrow_type};
use frazil::window::relation::PgType;
use frazil::window::wire::WalTuple;
use iceberg::arrow::{arrow_schema_to_schema_auto_assign_ids, schema_to_arrow_schema};

use super::garbage::every_type;
use super::oracle::decode;

#[test]
fn decoded_columns_make_a_record_batch_of_the_lake() {
    let types = every_type();
    let field = |(n, t): (usize, &PgType)| Field::new(format!("c{n}"), arrow_type(t), true);
    let fields: Vec<_> = types.iter().enumerate().map(field).collect();
    let lake = arrow_schema_to_schema_auto_assign_ids(&Schema::new(fields)).unwrap();
    let schema = Arc::new(schema_to_arrow_schema(&lake).unwrap());
    let columns = schema.fields().iter().zip(&types).map(|(field, t)| {
        let data_type = field.data_type().clone();
        Some(DecodedColumn { name: field.name().clone(), pg_type: t.clone(), data_type })
    });
    let nulls = vec![b'n'; types.len() * 3];
    let width = u32::try_from(types.len()).unwrap();
    let decoded = decode::<WalTuple>(columns.collect(), &nulls, &mut [0, width, 2 * width]);
    let batch = RecordBatch::try_new(schema, decoded.columns).unwrap();
    assert_eq!(batch.num_rows(), 3);
}
