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
use crate::window::relation::{
    Attribute, Column, FIELD_VERSION_IDS, HIDDEN_KEY, HIDDEN_KEY_FIELD_ID, OWN_FIELD_IDS, PgType,
    Relation,
};

/// Name of the map that holds the Postgres text of values which their type can't hold.
pub const RAW_COLUMN: &str = "_pg_raw";

/// Field id of [`RAW_COLUMN`]; its key and value have the next two.
pub const RAW_FIELD_ID: i32 = OWN_FIELD_IDS;

const NESTED_BASE: i32 = 10_000;
const NESTED_PER_COLUMN: i32 = 8;

/// The most fields inside a struct that is as large as the user's type: what fits into the ids of
/// one version for 1,600 columns.
pub const LARGE_FIELDS_MAX: i32 = 40;
const LARGE_BASE: i32 = 30_000;

/// The id of the `k`th nested field of the field `id`, in the ids of the same version.
fn nested_id(id: i32, k: i32) -> i32 {
    let attnum = id % FIELD_VERSION_IDS;
    id - attnum + NESTED_BASE + attnum * NESTED_PER_COLUMN + k
}

/// The Iceberg type of the column whose field is `id`.
pub fn iceberg_type(id: i32, pg_type: &PgType) -> Type {
    let primitive = match pg_type {
        PgType::Bool | PgType::BitBoolean => PrimitiveType::Boolean,
        PgType::Int2 | PgType::Int4 => PrimitiveType::Int,
        PgType::Int8 | PgType::Oid => PrimitiveType::Long,
        PgType::Xid8 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        PgType::Float4 => PrimitiveType::Float,
        PgType::Float8 => PrimitiveType::Double,
        PgType::Numeric { precision, scale } => PrimitiveType::Decimal {
            precision: u32::from(*precision),
            scale: u32::try_from(*scale).unwrap_or(0),
        },
        PgType::Money { scale } => {
            PrimitiveType::Decimal { precision: 19, scale: u32::try_from(*scale).unwrap_or(0) }
        }
        PgType::Bytea | PgType::Geometry { .. } => PrimitiveType::Binary,
        PgType::Date => PrimitiveType::Date,
        PgType::Time => PrimitiveType::Time,
        PgType::Timestamp => PrimitiveType::Timestamp,
        PgType::TimestampTz => PrimitiveType::Timestamptz,
        PgType::Uuid => PrimitiveType::Uuid,
        PgType::NumericText | PgType::Text | PgType::Json | PgType::Jsonb | PgType::TimeTz => {
            PrimitiveType::String
        }
        PgType::Trimmed | PgType::IntervalIso | PgType::Composite(_) => PrimitiveType::String,
        PgType::Written(_) | PgType::AsText(_) | PgType::Opaque => PrimitiveType::String,
        _ => return nested_type(&mut NestedIds::new(id, pg_type), pg_type),
    };
    Type::Primitive(primitive)
}

/// Gives the ids of the fields inside one column.
struct NestedIds {
    id: i32,
    /// How many were given; `None` where each has a number by what it is.
    counted: Option<i32>,
}

impl NestedIds {
    /// For the column `id`. Types that were there first have eight ids, of which each field has one
    /// of its own; structs that are as large as the user's type, and lists of lists, are counted
    /// through.
    fn new(id: i32, pg_type: &PgType) -> Self {
        let is_list = |ty: &PgType| matches!(ty, PgType::Vector | PgType::HalfVector);
        let large = match pg_type {
            PgType::Struct(_) | PgType::RangeStruct(_) | PgType::Nested(..) => true,
            PgType::Array(element) => is_list(element),
            _ => false,
        };
        Self { id, counted: large.then_some(0) }
    }

    /// The id of the field that has the number `k` (1 to 8) in a small type.
    fn next(&mut self, k: i32) -> i32 {
        let Some(counted) = &mut self.counted else { return nested_id(self.id, k) };
        *counted += 1;
        let attnum = self.id % FIELD_VERSION_IDS;
        self.id - attnum + LARGE_BASE + attnum * LARGE_FIELDS_MAX + *counted - 1
    }
}

/// How many fields there are inside a column of this type.
pub fn nested_fields(pg_type: &PgType) -> usize {
    match pg_type {
        PgType::Interval => 3,
        PgType::Point | PgType::Hstore => 2,
        PgType::Vector | PgType::HalfVector => 1,
        PgType::Array(element) => 1 + nested_fields(element),
        PgType::Nested(element, depth) => usize::from(*depth) + nested_fields(element),
        PgType::RangeStruct(element) => 5 + 2 * nested_fields(element),
        PgType::Struct(attributes) => {
            attributes.iter().map(|attribute| 1 + nested_fields(&attribute.pg_type)).sum()
        }
        _ => 0,
    }
}

/// A type with fields inside.
fn nested_type(ids: &mut NestedIds, pg_type: &PgType) -> Type {
    let primitive = |p| move |_: &mut NestedIds| Type::Primitive(p);
    match pg_type {
        PgType::Array(element) => list_type(ids, |ids| nested_type(ids, element)),
        PgType::Nested(element, depth) => list_type(ids, |ids| match depth {
            0..=2 => list_type(ids, |ids| nested_type(ids, element)),
            _ => nested_type(ids, &PgType::Nested(element.clone(), depth - 1)),
        }),
        PgType::Vector | PgType::HalfVector => list_type(ids, primitive(PrimitiveType::Float)),
        PgType::Interval => {
            let (int, long) = (PrimitiveType::Int, PrimitiveType::Long);
            let part = |ids: &mut NestedIds, k, name: &str, p: &PrimitiveType| {
                optional(ids.next(k), name, Type::Primitive(p.clone()))
            };
            Type::Struct(StructType::new(vec![
                part(ids, 1, "months", &int),
                part(ids, 2, "days", &int),
                part(ids, 3, "micros", &long),
            ]))
        }
        PgType::Point => {
            let double = || Type::Primitive(PrimitiveType::Double);
            let fields =
                vec![optional(ids.next(1), "x", double()), optional(ids.next(2), "y", double())];
            Type::Struct(StructType::new(fields))
        }
        PgType::Hstore => {
            let string = || Type::Primitive(PrimitiveType::String);
            let key = NestedField::map_key_element(ids.next(1), string());
            let value = NestedField::map_value_element(ids.next(2), string(), false);
            Type::Map(MapType::new(key.into(), value.into()))
        }
        PgType::Struct(attributes) => {
            let field = |a: &Attribute| {
                let id = ids.next(1);
                optional(id, &a.name, nested_type(ids, &a.pg_type))
            };
            Type::Struct(StructType::new(attributes.iter().map(field).collect()))
        }
        PgType::RangeStruct(element) => {
            let mut field = |name: &str, t: &PgType| {
                let id = ids.next(1);
                optional(id, name, nested_type(ids, t))
            };
            Type::Struct(StructType::new(vec![
                field("empty", &PgType::Bool),
                field("lower", element),
                field("upper", element),
                field("lower_inc", &PgType::Bool),
                field("upper_inc", &PgType::Bool),
            ]))
        }
        _ => iceberg_type(ids.id, pg_type),
    }
}

fn list_type(ids: &mut NestedIds, element: impl FnOnce(&mut NestedIds) -> Type) -> Type {
    let id = ids.next(0);
    let element = element(ids);
    Type::List(ListType::new(NestedField::list_element(id, element, false).into()))
}

fn optional(id: i32, name: &str, t: Type) -> NestedFieldRef {
    NestedField::optional(id, name, t).into()
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
        relation.columns.iter().map(|c| new_field(c, key.contains(&c.field_id()))).collect();
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
    let id = column.field_id();
    let ty = iceberg_type(id, &column.pg_type);
    let field = NestedField::new(id, &column.name, ty, required);
    match &column.pg_type {
        PgType::Geometry { srid: Some(srid) } => {
            field.with_doc(format!("ISO WKB, SRID {srid}")).into()
        }
        PgType::Geometry { srid: None } => field.with_doc("EWKB, each value with its SRID").into(),
        _ => field.into(),
    }
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

/// How a lake table goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoOn {
    /// Its rows stay.
    Keep,
    /// All its rows are replaced: the key may change as well.
    Replace,
    /// Another source table takes it over, rows and columns.
    TakeOver,
}

/// Gives each column of `relation` the version that its field has in the lake table's `current`
/// schema; the next one where the type became another that Iceberg can't promote to (case 97), or
/// where another source table takes the lake table over (case 103).
pub fn assign_versions(current: &Schema, relation: &mut Relation, go_on: GoOn) {
    let columns = || current.as_struct().fields().iter().filter(|f| is_column(f.id));
    let newest = columns().map(|f| version_of(f.id)).max().unwrap_or(0);
    for column in &mut relation.columns {
        let same = columns().filter(|f| attnum_of(f.id) == i32::from(column.attnum));
        let standing = same.max_by_key(|f| version_of(f.id));
        column.field_version = match standing {
            _ if go_on == GoOn::TakeOver => newest.saturating_add(1),
            None => 0,
            Some(field) => {
                let ty = iceberg_type(field.id, &column.pg_type);
                let fits = *field.field_type == ty || promotes(&field.field_type, &ty);
                version_of(field.id).saturating_add(u16::from(!fits))
            }
        };
    }
}

fn is_column(id: i32) -> bool {
    !(OWN_FIELD_IDS..2 * OWN_FIELD_IDS).contains(&id)
}

fn attnum_of(id: i32) -> i32 {
    id % FIELD_VERSION_IDS
}

fn version_of(id: i32) -> u16 {
    let beyond = if id >= OWN_FIELD_IDS { OWN_FIELD_IDS } else { 0 };
    u16::try_from((id - beyond) / FIELD_VERSION_IDS).unwrap_or(0)
}

/// Whether a field may go from one type to the other (Iceberg spec, Schema Evolution).
pub fn promotes(from: &Type, to: &Type) -> bool {
    use PrimitiveType::{Decimal, Double, Float, Int, Long};
    match (from, to) {
        (Type::Primitive(from), Type::Primitive(to)) => match (from, to) {
            (Int, Long) | (Float, Double) => true,
            (Decimal { precision, scale }, Decimal { precision: wider, scale: same }) => {
                wider > precision && scale == same
            }
            _ => false,
        },
        _ => false,
    }
}

/// A column whose name means another field than in `current`: texts in `_pg_raw` stand under the
/// names of columns, so those of older rows would be taken for the wrong column's.
pub fn moved_name(current: &Schema, relation: &Relation) -> Option<String> {
    let mut fields = current.as_struct().fields().iter().filter(|field| is_column(field.id));
    let found = fields.find(|f| is_moved((f.id, &f.name), &f.field_type, relation));
    found.map(|field| field.name.clone())
}

/// As [`moved_name`], for rows that were written while the table was `before`.
pub fn moved_name_since(before: &Relation, relation: &Relation) -> Option<String> {
    let is_moved = |column: &&Column| {
        let id = column.field_id();
        is_moved((id, &column.name), &iceberg_type(id, &column.pg_type), relation)
    };
    before.columns.iter().find(is_moved).map(|column| column.name.clone())
}

fn is_moved((id, name): (i32, &str), ty: &Type, relation: &Relation) -> bool {
    let can_be_raw = match ty {
        Type::Primitive(primitive) => matches!(
            primitive,
            PrimitiveType::Date
                | PrimitiveType::Time
                | PrimitiveType::Timestamp
                | PrimitiveType::Timestamptz
                | PrimitiveType::Decimal { .. }
                | PrimitiveType::String
        ),
        _ => true,
    };
    let now = relation.columns.iter().find(|column| column.field_id() == id);
    let is_renamed = now.is_some_and(|column| column.name != name);
    let is_reused = now.is_none() && relation.columns.iter().any(|column| column.name == name);
    can_be_raw && (is_renamed || is_reused)
}

/// The schema that `current` becomes when the source table looks like `relation`: missing fields
/// are added, names follow, dropped columns stay as optional history. A field of the past gives its
/// name to a column of the present and is called `name__v1` from then on. `None` where nothing
/// changes.
///
/// # Errors
/// `SCHEMA_CHANGED` where rows stay although a type or the identity changed; otherwise as
/// [`table_schema`].
pub fn evolve(
    current: &Schema,
    relation: &Relation,
    raw: bool,
    go_on: GoOn,
) -> Result<Option<Schema>> {
    check_names(relation)?;
    let key: HashSet<i32> = relation.key_field_ids().into_iter().collect();
    let before: HashSet<i32> = current.identifier_field_ids().collect();
    if key != before && go_on == GoOn::Keep {
        return Err(schema_changed(relation, "the key of the table changed"));
    }
    let mut fields = Vec::with_capacity(relation.columns.len());
    for field in current.as_struct().fields() {
        let of_the_past = is_column(field.id) && !has_column(relation, field.id);
        // Rows that are replaced by such without it can't have it.
        let unused_key = field.id == HIDDEN_KEY_FIELD_ID && !relation.has_hidden_key();
        let is_left_behind = of_the_past && go_on == GoOn::TakeOver;
        if !unused_key && !is_left_behind {
            fields.push(follow(field, relation, key.contains(&field.id), go_on)?);
        }
    }
    let known = |id: i32| fields.iter().any(|field| field.id == id);
    let added = relation.columns.iter().filter(|c| !known(c.field_id()));
    let added: Vec<_> =
        added.map(|c| new_field(c, go_on != GoOn::Keep && key.contains(&c.field_id()))).collect();
    let lacks_raw = raw && !known(RAW_FIELD_ID);
    let lacks_key = relation.has_hidden_key() && !known(HIDDEN_KEY_FIELD_ID);
    fields.extend(added);
    if lacks_key {
        fields.push(hidden_key_field());
    }
    if lacks_raw {
        fields.push(raw_field());
    }
    rename_history(&mut fields, relation);
    let next = build(fields, &key, current.schema_id())?;
    let same = next.as_struct() == current.as_struct() && key == before;
    Ok((!same).then_some(next))
}

fn has_column(relation: &Relation, id: i32) -> bool {
    relation.columns.iter().any(|column| column.field_id() == id)
}

/// A field that stands already: history, or a column under its present name.
fn follow(
    field: &NestedFieldRef,
    relation: &Relation,
    is_key: bool,
    go_on: GoOn,
) -> Result<NestedFieldRef> {
    let mut next = NestedField::clone(field);
    let mut columns = relation.columns.iter().enumerate();
    let column = columns.find(|(_, column)| column.field_id() == field.id);
    if is_column(field.id) {
        next.required = is_key;
    }
    let Some((at, column)) = column else { return Ok(Arc::new(next)) };
    let ty = iceberg_type(field.id, &column.pg_type);
    if *field.field_type != ty && !promotes(&field.field_type, &ty) {
        let what = format!("its type was {} in the lake", field.field_type);
        return Err(schema_changed(relation, &what).with_column(&column.name));
    }
    // The same number has another text then: 0.1 is 0.10000000149011612.
    let is_float = *field.field_type == Type::Primitive(PrimitiveType::Float);
    let stays = go_on == GoOn::Keep;
    if *field.field_type != ty && is_float && stays && relation.is_in_hidden_key(at) {
        let what = "a float in the key became a double";
        return Err(schema_changed(relation, what).with_column(&column.name));
    }
    next.field_type = Box::new(ty);
    next.name.clone_from(&column.name);
    Ok(Arc::new(next))
}

/// A column of the present has the right to its name: a field of the past goes out of its way.
fn rename_history(fields: &mut [NestedFieldRef], relation: &Relation) {
    let mut names: HashSet<String> = relation.columns.iter().map(|c| c.name.clone()).collect();
    names.extend([RAW_COLUMN.to_owned(), HIDDEN_KEY.to_owned()]);
    let is_past = |id: i32| is_column(id) && !has_column(relation, id);
    for field in fields.iter_mut().filter(|field| is_past(field.id)) {
        let mut name = field.name.clone();
        let mut nth = 0;
        while !names.insert(name.clone()) {
            nth += 1;
            name = format!("{}__v{nth}", field.name);
        }
        if name != field.name {
            *field = Arc::new(NestedField { name, ..NestedField::clone(field) });
        }
    }
}

fn schema_changed(relation: &Relation, what: &str) -> Error {
    Error::table("SCHEMA_CHANGED", relation.display(), format!("{what}; nothing was applied"))
        .with_cure("frazil resync copies the table afresh")
}

/// The projection of `schema` on its identifier fields, in schema order: the schema of equality
/// delete files.
pub fn key_schema(schema: &Schema) -> Result<Schema> {
    let key: HashSet<i32> = schema.identifier_field_ids().collect();
    let fields = schema.as_struct().fields().iter().filter(|f| key.contains(&f.id));
    build(fields.cloned().collect(), &key, schema.schema_id())
}
