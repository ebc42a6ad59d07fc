//! A source table's columns as an Iceberg schema (`docs/types.md`; Iceberg spec, Schemas).
//!
//! A field's id is the column's attnum, which Postgres never gives twice in one table: renames keep
//! it, a column dropped and added again gets another one. Nested fields and `_pg_raw` have ids in
//! ranges of their own, so that every id can be derived and none is ever assigned by a counter.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type,
};

use crate::error::{Error, Result};
use crate::iceberg::lake_error;
use crate::window::relation::{Column, HIDDEN_KEY, HIDDEN_KEY_FIELD_ID, KeyForm, PgType, Relation};

/// Name of the map that holds the Postgres text of values which their type can't hold.
pub const RAW_COLUMN: &str = "_pg_raw";

/// Field id of [`RAW_COLUMN`]; its key and value have the next two.
pub const RAW_FIELD_ID: i32 = 1_000_000;

const NESTED_BASE: i32 = 10_000;
const NESTED_PER_COLUMN: i32 = 8;

/// The field id of a column.
pub fn field_id(attnum: i16) -> i32 {
    i32::from(attnum)
}

fn nested_id(attnum: i16, k: i32) -> i32 {
    NESTED_BASE + field_id(attnum) * NESTED_PER_COLUMN + k
}

/// The Iceberg type of a column.
pub fn iceberg_type(attnum: i16, pg_type: &PgType) -> Type {
    let primitive = match pg_type {
        PgType::Array(element) => return list_type(attnum, element),
        PgType::Interval => return interval_type(attnum),
        PgType::Bool => PrimitiveType::Boolean,
        PgType::Int2 | PgType::Int4 => PrimitiveType::Int,
        PgType::Int8 | PgType::Oid => PrimitiveType::Long,
        PgType::Xid8 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        PgType::Float4 => PrimitiveType::Float,
        PgType::Float8 => PrimitiveType::Double,
        PgType::Numeric { precision, scale } => PrimitiveType::Decimal {
            precision: u32::from(*precision),
            scale: u32::try_from(*scale).unwrap_or(0),
        },
        PgType::Bytea => PrimitiveType::Binary,
        PgType::Date => PrimitiveType::Date,
        PgType::Time => PrimitiveType::Time,
        PgType::Timestamp => PrimitiveType::Timestamp,
        PgType::TimestampTz => PrimitiveType::Timestamptz,
        PgType::Uuid => PrimitiveType::Uuid,
        PgType::NumericText | PgType::Text | PgType::Jsonb | PgType::TimeTz | PgType::Opaque => {
            PrimitiveType::String
        }
    };
    Type::Primitive(primitive)
}

fn list_type(attnum: i16, element: &PgType) -> Type {
    let element = iceberg_type(attnum, element);
    Type::List(ListType::new(
        NestedField::list_element(nested_id(attnum, 0), element, false).into(),
    ))
}

fn interval_type(attnum: i16) -> Type {
    let field = |k, name: &str, primitive| -> NestedFieldRef {
        NestedField::optional(nested_id(attnum, k), name, Type::Primitive(primitive)).into()
    };
    Type::Struct(StructType::new(vec![
        field(1, "months", PrimitiveType::Int),
        field(2, "days", PrimitiveType::Int),
        field(3, "micros", PrimitiveType::Long),
    ]))
}

fn raw_field() -> NestedFieldRef {
    let string = || Type::Primitive(PrimitiveType::String);
    let map = MapType::new(
        NestedField::map_key_element(RAW_FIELD_ID + 1, string()).into(),
        NestedField::map_value_element(RAW_FIELD_ID + 2, string(), true).into(),
    );
    NestedField::optional(RAW_FIELD_ID, RAW_COLUMN, Type::Map(map))
        .with_doc("Postgres text of values that their column's type can't hold, by column name")
        .into()
}

/// Required, for it is an identifier field.
fn hidden_key_field() -> NestedFieldRef {
    let string = Type::Primitive(PrimitiveType::String);
    NestedField::required(HIDDEN_KEY_FIELD_ID, HIDDEN_KEY, string)
        .with_doc("Made by frazil from the texts of the key columns, to address rows by")
        .into()
}

/// The schema of a new lake table: identity columns required and identifier fields, all other
/// columns optional (a NOT NULL may be dropped any day).
///
/// # Errors
/// `COLUMN_NAME` where a column is called `_pg_raw` or `_pg_key`.
pub fn table_schema(relation: &Relation, raw: bool) -> Result<Schema> {
    check_names(relation)?;
    let key: HashSet<i32> = relation.key_field_ids().into_iter().collect();
    let mut fields: Vec<NestedFieldRef> =
        relation.columns.iter().map(|c| new_field(c, key.contains(&field_id(c.attnum)))).collect();
    if relation.has_hidden_key() {
        fields.push(hidden_key_field());
    }
    // A Parquet file without columns has no rows, a Postgres table without columns may have some.
    if raw || fields.is_empty() {
        fields.push(raw_field());
    }
    build(fields, &key, 0)
}

fn new_field(column: &Column, required: bool) -> NestedFieldRef {
    let id = field_id(column.attnum);
    let ty = iceberg_type(column.attnum, &column.pg_type);
    NestedField::new(id, &column.name, ty, required).into()
}

fn build(fields: Vec<NestedFieldRef>, key: &HashSet<i32>, schema_id: i32) -> Result<Schema> {
    Schema::builder()
        .with_schema_id(schema_id)
        .with_fields(fields)
        .with_identifier_field_ids(key.iter().copied())
        .build()
        .map_err(|e| lake_error("the lake schema could not be built", e))
}

fn check_names(relation: &Relation) -> Result<()> {
    match relation.columns.iter().find(|c| c.name == RAW_COLUMN || c.name == HIDDEN_KEY) {
        None => Ok(()),
        Some(column) => Err(Error::table(
            "COLUMN_NAME",
            relation.display(),
            "frazil needs this column name for itself",
        )
        .with_column(&column.name)
        .with_cure("rename the column, or leave it out by a publication column list")),
    }
}

/// The schema that `current` becomes when the source table looks like `relation`: missing fields
/// are added, names follow, dropped columns stay as optional history. `None` if nothing changes.
///
/// # Errors
/// `SCHEMA_CHANGED` where a type or the identity changed, or where a new column has the name of a
/// historical one; otherwise as [`table_schema`].
pub fn evolve(current: &Schema, relation: &Relation, raw: bool) -> Result<Option<Schema>> {
    check_names(relation)?;
    let key: HashSet<i32> = relation.key_field_ids().into_iter().collect();
    let before: HashSet<i32> = current.identifier_field_ids().collect();
    if key != before {
        return Err(schema_changed(relation, "the key of the table changed"));
    }
    let mut fields = Vec::with_capacity(relation.columns.len());
    for field in current.as_struct().fields() {
        fields.push(follow(field, relation)?);
    }
    let known = |id| current.field_by_id(id).is_some();
    let added = relation.columns.iter().filter(|c| !known(field_id(c.attnum)));
    fields.extend(added.map(|c| new_field(c, false)));
    if raw && !known(RAW_FIELD_ID) {
        fields.push(raw_field());
    }
    check_clash(&fields, relation)?;
    check_whole_rows(&fields, relation)?;
    let next = build(fields, &key, current.schema_id())?;
    Ok((next.as_struct() != current.as_struct()).then_some(next))
}

/// A field that stands already: history, or a column under its present name.
fn follow(field: &NestedFieldRef, relation: &Relation) -> Result<NestedFieldRef> {
    let Some(column) = relation.columns.iter().find(|c| field_id(c.attnum) == field.id) else {
        return Ok(field.clone());
    };
    if *field.field_type != iceberg_type(column.attnum, &column.pg_type) {
        let what = format!("its type was {} in the lake", field.field_type);
        return Err(schema_changed(relation, &what).with_column(&column.name));
    }
    let mut next = NestedField::clone(field);
    next.name.clone_from(&column.name);
    Ok(Arc::new(next))
}

fn check_clash(fields: &[NestedFieldRef], relation: &Relation) -> Result<()> {
    let mut names = HashSet::new();
    match fields.iter().find(|f| !names.insert(f.name.as_str())) {
        None => Ok(()),
        Some(field) => {
            let what = "a dropped column of this name is kept in the lake as history";
            Err(schema_changed(relation, what).with_column(&field.name))
        }
    }
}

/// Older rows are addressed by values that a dropped column takes with it.
fn check_whole_rows(fields: &[NestedFieldRef], relation: &Relation) -> Result<()> {
    let is_own = |id: i32| id == RAW_FIELD_ID || id == HIDDEN_KEY_FIELD_ID;
    let stands = |id: i32| relation.columns.iter().any(|c| field_id(c.attnum) == id);
    match fields.iter().find(|f| !is_own(f.id) && !stands(f.id)) {
        Some(field) if relation.key_form == KeyForm::WholeRow => {
            let what = "a column of a table without a key was dropped";
            Err(schema_changed(relation, what).with_column(&field.name))
        }
        _ => Ok(()),
    }
}

fn schema_changed(relation: &Relation, what: &str) -> Error {
    Error::table("SCHEMA_CHANGED", relation.display(), format!("{what}; nothing was applied"))
        .with_cure("drop the lake's table and let frazil copy it afresh, or undo the change")
}

/// The projection of `schema` on its identifier fields, in schema order: the schema of equality
/// delete files.
pub fn key_schema(schema: &Schema) -> Result<Schema> {
    let key: HashSet<i32> = schema.identifier_field_ids().collect();
    let fields = schema.as_struct().fields().iter().filter(|f| key.contains(&f.id));
    build(fields.cloned().collect(), &key, schema.schema_id())
}
