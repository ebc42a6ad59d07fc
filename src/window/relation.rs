//! A source table as the stream and the catalog describe it together.

use serde::{Deserialize, Serialize};

use super::decode::arrow_type;
use super::rules::ValueRules;

/// A Postgres type as frazil stores it: domains are resolved to their base, enum labels are text.
/// The mapping is `docs/types.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PgType {
    /// `bool`
    Bool,
    /// `int2`: stored as a 32-bit integer
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `oid`, `xid`, `cid`: unsigned 32 bits, stored as a 64-bit integer
    Oid,
    /// `xid8`: unsigned 64 bits, stored as decimal(20,0)
    Xid8,
    /// `float4`
    Float4,
    /// `float8`
    Float8,
    /// `numeric(p,s)` that fits a decimal of at most 38 digits. These are the *lake's* numbers:
    /// `numeric(3,-2)` is decimal(5,0), `numeric(3,5)` is decimal(5,5).
    Numeric {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to 38.
        scale: i8,
    },
    /// `numeric` without a limit, or wider than 38 digits: its canonical text
    NumericText,
    /// Types whose binary form is their UTF-8 text: text, varchar, bpchar, name, xml, "char",
    /// citext, enum labels, refcursor, unknown
    Text,
    /// `json`: its text, byte for byte
    Json,
    /// `jsonb`: a version byte, then text
    Jsonb,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timetz`: its canonical text
    TimeTz,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    TimestampTz,
    /// `interval`: struct of months, days, microseconds
    Interval,
    /// `uuid`
    Uuid,
    /// A one-dimensional array of a non-array type
    Array(Box<PgType>),
    /// An array of this many dimensions, 2 to 6, as lists of lists (override `list<list<...>>`)
    Nested(Box<PgType>, u8),
    /// `money`: units of 10^-scale, stored as decimal(19,scale). The scale is that of
    /// `lc_monetary`; the text form is read under `lc_monetary = C` only.
    Money {
        /// Digits after the point, 0 to 10.
        scale: i8,
    },
    /// `point`: struct of x and y
    Point,
    /// `hstore`: map of string to optional string
    Hstore,
    /// pgvector's `vector`: list of floats
    Vector,
    /// pgvector's `halfvec`: list of floats
    HalfVector,
    /// PostGIS's `geometry` and `geography`: ISO WKB where the type modifier fixes the SRID, EWKB
    /// elsewhere
    Geometry {
        /// The SRID of every value.
        srid: Option<i32>,
    },
    /// `bit(1)` as a boolean (override)
    BitBoolean,
    /// `char(n)` without its padding (override `trim`)
    Trimmed,
    /// `interval` as ISO 8601 text (override `iso8601`)
    IntervalIso,
    /// A composite type: the JSON object that `row_to_json` makes of it
    Composite(Vec<Attribute>),
    /// A composite type as a struct of its attributes (override `struct`)
    Struct(Vec<Attribute>),
    /// A range as a struct of empty, lower, upper, lower_inc, upper_inc (override `struct`)
    RangeStruct(Box<PgType>),
    /// A type whose canonical text frazil writes from its binary form
    Written(Box<TextForm>),
    /// Any type as its Postgres text (override `string`)
    AsText(Box<PgType>),
    /// Any other type: stored as its Postgres text. Its binary form is not known, so a stream that
    /// has one of these runs in text mode, and a COPY casts the column to text.
    Opaque,
}

/// An attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `pg_attribute.attname`.
    pub name: String,
    /// `pg_attribute.atttypid`: each field of a binary value names it.
    pub type_oid: u32,
    /// How its values are stored.
    pub pg_type: PgType,
}

/// Types that are stored as their text, which frazil writes from the binary form exactly as the
/// type's output function does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextForm {
    /// `bit(n)`, `varbit`: zeros and ones
    Bits,
    /// `inet`, `cidr`
    Network,
    /// `macaddr`, `macaddr8`
    Mac,
    /// `pg_lsn`
    Lsn,
    /// `tid`
    Tid,
    /// `line`
    Line,
    /// `lseg`
    Segment,
    /// `box`
    Box,
    /// `path`
    Path,
    /// `polygon`
    Polygon,
    /// `circle`
    Circle,
    /// `int2vector`, `oidvector`: an array whose elements are parted by spaces
    Words(PgType),
    /// `tsvector`
    TsVector,
    /// `tsquery`
    TsQuery,
    /// `jsonpath`, `ltree`, `lquery`, `ltxtquery`: a version byte, then text
    Versioned,
    /// `pg_snapshot`, `txid_snapshot`
    Snapshot,
    /// pgvector's `sparsevec`
    SparseVector,
    /// A range over a type
    Range(PgType),
    /// A multirange over a type
    Multirange(PgType),
}

impl PgType {
    /// Whether the binary form is known, so that the stream may run in binary mode.
    pub fn has_binary_form(&self) -> bool {
        match self {
            PgType::Opaque => false,
            PgType::Array(t)
            | PgType::Nested(t, _)
            | PgType::RangeStruct(t)
            | PgType::AsText(t) => t.has_binary_form(),
            PgType::Composite(attributes) | PgType::Struct(attributes) => {
                attributes.iter().all(|attribute| attribute.pg_type.has_binary_form())
            }
            PgType::Written(form) => match form.as_ref() {
                TextForm::Range(t) | TextForm::Multirange(t) => t.has_binary_form(),
                _ => true,
            },
            _ => true,
        }
    }

    /// Whether a key column of this type can be an equality field as it stands. Iceberg forbids
    /// float, double and nested types there (Iceberg spec, Equality Delete Files).
    pub fn is_key_type(&self) -> bool {
        let is_float = matches!(self, PgType::Float4 | PgType::Float8);
        let is_nested = matches!(
            self,
            PgType::Interval
                | PgType::Array(_)
                | PgType::Nested(..)
                | PgType::Point
                | PgType::Hstore
                | PgType::Vector
                | PgType::HalfVector
                | PgType::Struct(_)
                | PgType::RangeStruct(_)
        );
        !is_float && !is_nested
    }

    /// What parts the elements of an array's text (`pg_type.typdelim`).
    pub fn delimiter(&self) -> u8 {
        match self {
            PgType::Written(form) if matches!(form.as_ref(), TextForm::Box) => b';',
            PgType::Geometry { .. } => b':',
            PgType::AsText(t) => t.delimiter(),
            _ => b',',
        }
    }

    /// `form`, which is known.
    pub fn written(form: TextForm) -> Self {
        PgType::Written(Box::new(form))
    }
}

/// One published column of a source table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name in Postgres.
    pub name: String,
    /// `pg_attribute.attnum`: unique in the table for ever, so the lake's field id is made from it.
    pub attnum: i16,
    /// The type oid that the Relation message and `pg_attribute.atttypid` show (a domain's own
    /// oid).
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, -1 where there is none.
    pub typmod: i32,
    /// How values are stored.
    pub pg_type: PgType,
    /// Whether values can be stored out of line (`attstorage <> 'p'`), and so arrive as
    /// `unchanged_toast`.
    pub toastable: bool,
    /// How many times its lake type became another one that Iceberg can't promote to, or its table
    /// was made anew under the same name: each time it gets another field.
    #[serde(default)]
    pub field_version: u16,
}

/// Field ids of a table from one version of a column to the next.
pub const FIELD_VERSION_IDS: i32 = 100_000;
/// The versions whose ids lie below those of frazil's own fields, `_pg_raw` and the like.
const LOW_VERSIONS: u16 = 10;
/// Field ids that are frazil's own begin here and end one million later.
pub const OWN_FIELD_IDS: i32 = 1_000_000;

impl Column {
    /// The lake's field id: the attribute number, which Postgres never gives twice in one table
    /// (`docs/adr/0003-field-ids-from-attnum.md`), in the ids of its version.
    pub fn field_id(&self) -> i32 {
        let version = i32::from(self.field_version);
        let beyond = if self.field_version < LOW_VERSIONS { 0 } else { OWN_FIELD_IDS };
        i32::from(self.attnum) + version * FIELD_VERSION_IDS + beyond
    }
}

/// `pg_class.relreplident` (Postgres manual, REPLICA IDENTITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaIdentity {
    /// `d`: the primary key
    Default,
    /// `n`: nothing
    Nothing,
    /// `f`: the whole old row
    Full,
    /// `i`: the columns of a unique index
    Index,
}

/// Name of the hidden column that rows are addressed by where their key columns can't be.
pub const HIDDEN_KEY: &str = "_pg_key";
/// Field id of [`HIDDEN_KEY`]: behind those of `_pg_raw`.
pub const HIDDEN_KEY_FIELD_ID: i32 = OWN_FIELD_IDS + 3;

/// How deletes name the rows of a lake table (`docs/types.md`, Keys). It holds for the whole life
/// of the table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyForm {
    /// By its key columns; by nothing where it has none: such a table is only appended to.
    #[default]
    Columns,
    /// By [`HIDDEN_KEY`], made of the texts of its key columns.
    Hidden,
    /// By [`HIDDEN_KEY`], made of the whole row: REPLICA IDENTITY FULL without a key, where rows
    /// may be equal (case 74).
    WholeRow,
}

impl KeyForm {
    /// What a table with this key needs.
    pub fn of(columns: &[Column], key: &[usize], identity: ReplicaIdentity) -> Self {
        let fits = |&at: &usize| columns.get(at).is_some_and(|c| c.pg_type.is_key_type());
        match identity {
            ReplicaIdentity::Full if key.is_empty() => Self::WholeRow,
            _ if key.iter().all(fits) => Self::Columns,
            _ => Self::Hidden,
        }
    }
}

/// A source table: its published columns in wire order and the key its rows are addressed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// `pg_class.oid`: the table's name for ever.
    pub oid: u32,
    /// Schema name in Postgres.
    pub namespace: String,
    /// Table name in Postgres.
    pub name: String,
    /// Published columns, in the order of tuples on the wire.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the key, ascending; empty for a table without a key (append only).
    /// With REPLICA IDENTITY FULL this is the primary key of the catalog (cases 71, 72).
    pub key: Vec<usize>,
    /// What an UPDATE or DELETE sends of the old row.
    pub identity: ReplicaIdentity,
    /// How deletes name rows in the lake.
    #[serde(default)]
    pub key_form: KeyForm,
    /// How its values are read; by the settings and the database, so not kept in the lake.
    #[serde(skip)]
    pub rules: ValueRules,
}

impl Relation {
    /// `namespace.name`, for messages.
    pub fn display(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// A column of `now` that is declared as before and stored as another type; `types:` was
    /// changed, or `lc_monetary`.
    pub fn stored_otherwise<'a>(&self, now: &'a Self) -> Option<&'a Column> {
        let is_other = |now: &&Column| {
            let same = |c: &&Column| {
                (c.attnum, c.type_oid, c.typmod) == (now.attnum, now.type_oid, now.typmod)
            };
            let before = self.columns.iter().find(same);
            before.is_some_and(|c| !is_stored_alike(&c.pg_type, &now.pg_type))
        };
        now.columns.iter().find(is_other)
    }

    /// Whether rows are addressed by [`HIDDEN_KEY`].
    pub fn has_hidden_key(&self) -> bool {
        self.key_form != KeyForm::Columns
    }

    /// Addresses rows by [`HIDDEN_KEY`] although the key columns would do: for keys with values
    /// that the lake's types can't hold (`tables.hidden_key`).
    pub fn hide_key(&mut self) {
        if self.key_form == KeyForm::Columns && !self.key.is_empty() {
            self.key_form = KeyForm::Hidden;
        }
    }

    /// Whether the values of this column are part of [`HIDDEN_KEY`].
    pub fn is_in_hidden_key(&self, column: usize) -> bool {
        match self.key_form {
            KeyForm::Columns => false,
            KeyForm::Hidden => self.key.contains(&column),
            KeyForm::WholeRow => true,
        }
    }

    /// Lake field ids of the fields that deletes name, in column order.
    pub fn key_field_ids(&self) -> Vec<i32> {
        if self.has_hidden_key() {
            return vec![HIDDEN_KEY_FIELD_ID];
        }
        self.key.iter().filter_map(|&at| self.columns.get(at)).map(Column::field_id).collect()
    }
}

/// Whether values of one column are the same in the lake by either type.
fn is_stored_alike(one: &PgType, other: &PgType) -> bool {
    let special = |t: &PgType| matches!(t, PgType::Trimmed | PgType::IntervalIso);
    arrow_type(one) == arrow_type(other) && (one == other || !special(one) && !special(other))
}

/// A tuple in a receive buffer (Postgres manual, logical replication message formats, TupleData).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Position of its first field.
    pub at: u32,
    /// How many fields it has.
    pub columns: u16,
}

/// What an old tuple holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple {
    /// `K`: the key columns; the others are NULL and mean nothing.
    Key,
    /// `O`: the whole row.
    Full,
}
