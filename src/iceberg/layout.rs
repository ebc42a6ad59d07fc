//! Decoded columns in wire order -> RecordBatch in lake order.
//!
//! The lake's Arrow schema is the `iceberg` crate's for the Iceberg schema: `LargeBinary` for
//! binary, time zone `+00:00`, field ids in the fields' metadata. Columns that hold the same
//! values under another name (time zone, list element field) are renamed without a copy; anything
//! else is an error.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, LargeBinaryArray, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StructArray, new_null_array,
};
use arrow_schema::{DataType, Field, Fields, SchemaRef, TimeUnit};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::Schema;

use crate::error::{Error, Result};
use crate::iceberg::lake_error;
use crate::iceberg::schema::{RAW_FIELD_ID, key_schema};
use crate::window::relation::{HIDDEN_KEY_FIELD_ID, Relation};

/// A value that its column can't hold: (row, column index on the wire, Postgres text).
pub type RawValue = (u32, usize, String);

/// Where a field of the lake gets its values from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The column of this index on the wire.
    Wire(usize),
    /// The `_pg_raw` map.
    Raw,
    /// The `_pg_key`.
    Key,
    /// A dropped column: NULL.
    History,
}

/// How rows of one relation version stand in the lake.
#[derive(Debug, Clone)]
pub struct Layout {
    arrow: SchemaRef,
    sources: Vec<Source>,
    key_arrow: SchemaRef,
    /// For each field of `key_arrow`: its place in `relation.key`; 0 for `_pg_key`.
    key_places: Vec<usize>,
    names: Vec<String>,
}

impl Layout {
    /// The layout of `relation`'s rows in a lake table of this schema.
    ///
    /// # Errors
    /// `LAYOUT` (fatal) where the schema lacks a column: it must be evolved first.
    pub fn new(schema: &Schema, relation: &Relation) -> Result<Self> {
        let place = |id: i32| relation.columns.iter().position(|c| c.field_id() == id);
        let lacking = relation.columns.iter().find(|c| schema.field_by_id(c.field_id()).is_none());
        if let Some(column) = lacking {
            return Err(layout_error("the lake schema lacks this column").with_column(&column.name));
        }
        let sources = schema.as_struct().fields().iter().map(|f| match (f.id, place(f.id)) {
            (RAW_FIELD_ID, _) => Source::Raw,
            (HIDDEN_KEY_FIELD_ID, _) => Source::Key,
            (_, Some(at)) => Source::Wire(at),
            (_, None) => Source::History,
        });
        let key = key_schema(schema)?;
        let key_places = key.as_struct().fields().iter().map(|f| {
            if f.id == HIDDEN_KEY_FIELD_ID && relation.has_hidden_key() {
                return Ok(0);
            }
            let at = place(f.id).and_then(|wire| relation.key.iter().position(|&k| k == wire));
            at.ok_or_else(|| layout_error("the lake's key is not the relation's"))
        });
        Ok(Self {
            sources: sources.collect(),
            key_places: key_places.collect::<Result<_>>()?,
            arrow: arrow_schema(schema)?,
            key_arrow: arrow_schema(&key)?,
            names: relation.columns.iter().map(|c| c.name.clone()).collect(),
        })
    }

    /// The Arrow schema of [`Layout::rows`].
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The lake's Arrow types of the columns in wire order, nested field ids included.
    pub fn wire_types(&self) -> Vec<DataType> {
        let field_of = |at: usize| {
            let mut fields = self.arrow.fields().iter().zip(&self.sources);
            fields.find(|(_, source)| **source == Source::Wire(at)).map(|(field, _)| field)
        };
        let types = (0..self.names.len()).filter_map(field_of);
        types.map(|field| field.data_type().clone()).collect()
    }

    /// As [`Layout::keyed_rows`], for a table without `_pg_key`.
    ///
    /// # Errors
    /// As [`Layout::keyed_rows`].
    pub fn rows(&self, columns: &[ArrayRef], raw: &[RawValue], rows: usize) -> Result<RecordBatch> {
        self.keyed_rows(columns, None, raw, rows)
    }

    /// Rows in lake order from `columns` in wire order and the values of `_pg_key`; `raw` in any
    /// order, empty where every value fits. A layout without `_pg_raw` refuses raw values.
    ///
    /// # Errors
    /// `LAYOUT` (fatal) where a column has another type than its field, or `_pg_raw` or the key is
    /// lacking.
    pub fn keyed_rows(
        &self,
        columns: &[ArrayRef],
        key: Option<&ArrayRef>,
        raw: &[RawValue],
        rows: usize,
    ) -> Result<RecordBatch> {
        if !raw.is_empty() && !self.sources.contains(&Source::Raw) {
            return Err(layout_error("a raw value came before the column `_pg_raw`"));
        }
        let fields = self.arrow.fields().iter().zip(&self.sources);
        let arrays = fields.map(|(field, source)| match *source {
            Source::Raw => self.raw_map(field, raw, rows),
            Source::Key => {
                let key = key.ok_or_else(|| layout_error("rows without `_pg_key`"))?;
                retype(key, field.data_type())
            }
            Source::History => Ok(new_null_array(field.data_type(), rows)),
            Source::Wire(at) => {
                let column = columns.get(at).ok_or_else(|| layout_error("too few columns"))?;
                retype(column, field.data_type()).map_err(|e| e.with_column(field.name()))
            }
        });
        record_batch(&self.arrow, arrays.collect::<Result<_>>()?, rows)
    }

    /// Key rows for an equality delete file, from columns in the order of `relation.key`, or from
    /// the `_pg_key` alone.
    ///
    /// # Errors
    /// As [`Layout::rows`].
    pub fn key_rows(&self, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let rows = keys.first().map_or(0, |k| k.len());
        let fields = self.key_arrow.fields().iter().zip(&self.key_places);
        let arrays = fields.map(|(field, &at)| {
            let column = keys.get(at).ok_or_else(|| layout_error("too few key columns"))?;
            retype(column, field.data_type()).map_err(|e| e.with_column(field.name()))
        });
        record_batch(&self.key_arrow, arrays.collect::<Result<_>>()?, rows)
    }

    fn raw_map(&self, field: &Field, raw: &[RawValue], rows: usize) -> Result<ArrayRef> {
        if raw.is_empty() {
            return Ok(new_null_array(field.data_type(), rows));
        }
        let mut by_row: HashMap<u32, Vec<(&str, &str)>> = HashMap::new();
        for (row, column, text) in raw {
            let name = self
                .names
                .get(*column)
                .ok_or_else(|| layout_error("a raw value without column"))?;
            by_row.entry(*row).or_default().push((name, text));
        }
        let mut builder =
            MapBuilder::new(None::<MapFieldNames>, StringBuilder::new(), StringBuilder::new());
        for row in 0..rows {
            let here = u32::try_from(row).ok().and_then(|r| by_row.remove(&r));
            for (name, text) in here.iter().flatten() {
                builder.keys().append_value(name);
                builder.values().append_value(text);
            }
            builder.append(here.is_some()).map_err(|e| layout_error("_pg_raw").with_source(e))?;
        }
        let built: ArrayRef = Arc::new(builder.finish());
        retype(&built, field.data_type())
    }
}

pub(crate) fn record_batch(
    schema: &SchemaRef,
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .map_err(|e| layout_error("columns do not make rows").with_source(e))
}

fn layout_error(what: &str) -> Error {
    Error::fatal("LAYOUT", what.to_owned())
        .with_cure("this is a defect of frazil; please report it")
}

/// The Arrow schema of a lake table: see the module.
///
/// # Errors
/// `LAKE_IO` where the crate can't express the schema.
pub fn arrow_schema(schema: &Schema) -> Result<SchemaRef> {
    let arrow = schema_to_arrow_schema(schema);
    arrow.map(Arc::new).map_err(|e| lake_error("the lake schema as Arrow", e))
}

/// The same values under the type `to`.
///
/// # Errors
/// `LAYOUT` (fatal) where the types are not two names of one thing.
pub(crate) fn retype(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    let failed =
        |e: arrow_schema::ArrowError| layout_error("a column could not be renamed").with_source(e);
    match (array.data_type(), to) {
        (
            DataType::Timestamp(TimeUnit::Microsecond, _),
            DataType::Timestamp(TimeUnit::Microsecond, zone),
        ) => {
            let values = array.as_primitive::<TimestampMicrosecondType>().clone();
            Ok(Arc::new(values.with_timezone_opt(zone.clone())))
        }
        // What Parquet gives back: it knows one kind of binary only.
        (DataType::Binary, DataType::LargeBinary) => {
            Ok(Arc::new(array.as_binary::<i32>().iter().collect::<LargeBinaryArray>()))
        }
        (DataType::List(_), DataType::List(element)) => {
            let list = array.as_list::<i32>();
            let values = retype(list.values(), element.data_type())?;
            let list = ListArray::try_new(
                element.clone(),
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            );
            Ok(Arc::new(list.map_err(failed)?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            Ok(Arc::new(retype_struct(array.as_struct(), fields)?))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(layout_error("a map without entries"));
            };
            let inner = retype_struct(map.entries(), fields)?;
            let map = MapArray::try_new(
                entries.clone(),
                map.offsets().clone(),
                inner,
                map.nulls().cloned(),
                *sorted,
            );
            Ok(Arc::new(map.map_err(failed)?))
        }
        // What a column was before its type was promoted.
        (DataType::Int32, DataType::Int64) => {
            Ok(Arc::new(array.as_primitive::<Int32Type>().unary::<_, Int64Type>(i64::from)))
        }
        (DataType::Float32, DataType::Float64) => {
            Ok(Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float64Type>(f64::from)))
        }
        (DataType::Decimal128(from, scale), DataType::Decimal128(to, same))
            if from < to && scale == same =>
        {
            let values = array.as_primitive::<Decimal128Type>().clone();
            Ok(Arc::new(values.with_precision_and_scale(*to, *same).map_err(failed)?))
        }
        (from, to) => {
            Err(layout_error(&format!("a column of type {from} where the lake has {to}")))
        }
    }
}

fn retype_struct(array: &StructArray, fields: &Fields) -> Result<StructArray> {
    if array.num_columns() != fields.len() {
        return Err(layout_error("a struct with other fields than the lake's"));
    }
    let columns = array.columns().iter().zip(fields).map(|(c, f)| retype(c, f.data_type()));
    StructArray::try_new(fields.clone(), columns.collect::<Result<_>>()?, array.nulls().cloned())
        .map_err(|e| layout_error("a struct could not be renamed").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::schema::table_schema;
    use crate::window::relation::{Column, KeyForm, PgType, ReplicaIdentity};

    fn relation(types: Vec<PgType>) -> Relation {
        let column = |(at, pg_type)| Column {
            name: format!("c{at}"),
            attnum: i16::try_from(at + 1).unwrap(),
            type_oid: 0,
            typmod: -1,
            pg_type,
            toastable: false,
            field_version: 0,
        };
        Relation {
            rules: crate::window::rules::ValueRules::default(),
            oid: 1,
            namespace: "app".into(),
            name: "t".into(),
            columns: types.into_iter().enumerate().map(column).collect(),
            key: vec![0],
            identity: ReplicaIdentity::Default,
            key_form: KeyForm::Columns,
        }
    }

    /// The decoder of tuples makes arrays of these very types.
    #[test]
    fn wire_types_are_what_the_decoder_makes() {
        let interval = ["months", "days", "micros"].map(|name| {
            let ty = if name == "micros" { DataType::Int64 } else { DataType::Int32 };
            Field::new(name, ty, true)
        });
        let list = |ty| DataType::List(Arc::new(Field::new("element", ty, true)));
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        let pairs = [
            (PgType::Int8, DataType::Int64),
            (PgType::Bytea, DataType::LargeBinary),
            (PgType::TimestampTz, zoned.clone()),
            (PgType::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, None)),
            (PgType::Time, DataType::Time64(TimeUnit::Microsecond)),
            (PgType::Xid8, DataType::Decimal128(20, 0)),
            (PgType::Uuid, DataType::FixedSizeBinary(16)),
            (PgType::Interval, DataType::Struct(interval.to_vec().into())),
            (PgType::Array(Box::new(PgType::TimestampTz)), list(zoned)),
            (PgType::Array(Box::new(PgType::Bytea)), list(DataType::LargeBinary)),
        ];
        let relation = relation(pairs.iter().map(|p| p.0.clone()).collect());
        let schema = table_schema(&relation, true).unwrap();
        let found = Layout::new(&schema, &relation).unwrap().wire_types();
        assert_eq!(found.len(), pairs.len());
        for ((pg_type, want), found) in pairs.iter().zip(&found) {
            assert!(found.equals_datatype(want), "{pg_type:?}: {found} is not {want}");
        }
    }

    #[test]
    fn another_type_is_refused() {
        let relation = relation(vec![PgType::Int8, PgType::Text]);
        let schema = table_schema(&relation, false).unwrap();
        let layout = Layout::new(&schema, &relation).unwrap();
        let ids: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![1]));
        let error = layout.rows(&[ids.clone(), ids.clone()], &[], 1).unwrap_err();
        assert_eq!(error.code(), "LAYOUT");
        let texts: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["x"]));
        let raw = [(0, 1, "infinity".to_owned())];
        assert_eq!(layout.rows(&[ids, texts], &raw, 1).unwrap_err().code(), "LAYOUT");
    }
}
