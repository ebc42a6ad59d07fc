//! A column while it is being filled: one store per shape of Arrow array.
//!
//! The stores are vectors of our own rather than Arrow's builders, because an array with an element
//! that can't be held takes back the elements before it.

use arrow_array::types::{Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{ArrayRef, OffsetSizeTrait};
use arrow_buffer::OffsetBuffer;
use arrow_schema::DataType;

use super::bytes::{
    Bytea, Bytes, Geometry, IntervalIso, Jsonb, NumericText, Object, Opaque, Text, TimeTz, Trimmed,
    Written,
};
use super::fixed::{Booleans, Numbers, Uuids};
use super::lists::{NestedLists, Vectors};
use super::nested::{Intervals, Lists};
use super::relation::PgType;
use super::scalar::{Date, Decimal, Money, Plain, Time, Timestamp};
use super::structs::{Maps, Points, Ranges, Structs};
use crate::error::{Error, Kind, Result};

/// A column's values so far. Each call adds one slot.
pub(crate) trait Store {
    /// Adds a value in its type's binary form. False: the column can't hold it and got a NULL.
    fn binary(&mut self, v: &[u8]) -> Result<bool>;

    /// Adds a value in its type's text form, as [`Store::binary`].
    fn text(&mut self, v: &[u8]) -> Result<bool>;

    /// Adds a NULL.
    fn null(&mut self);

    /// Makes room for so many slots more, where that is known to save copies.
    fn reserve(&mut self, _rows: usize) {}

    /// Takes back the slots from `len` on.
    fn truncate(&mut self, len: usize);

    /// Takes all slots, as an array of exactly `data_type`.
    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef>;
}

/// The same `$body` for the store inside, whichever it is: one choice for many values.
macro_rules! dispatch {
    ($any:expr, $store:ident => $body:expr) => {{
        use $crate::window::store::AnyStore;
        match $any {
            AnyStore::Booleans($store) => $body,
            AnyStore::Int2($store) => $body,
            AnyStore::Int4($store) => $body,
            AnyStore::Int8($store) => $body,
            AnyStore::Oid($store) => $body,
            AnyStore::Xid8($store) => $body,
            AnyStore::Float4($store) => $body,
            AnyStore::Float8($store) => $body,
            AnyStore::Decimal($store) => $body,
            AnyStore::Date($store) => $body,
            AnyStore::Time($store) => $body,
            AnyStore::Timestamp($store) => $body,
            AnyStore::Text($store) => $body,
            AnyStore::Jsonb($store) => $body,
            AnyStore::NumericText($store) => $body,
            AnyStore::TimeTz($store) => $body,
            AnyStore::Opaque($store) => $body,
            AnyStore::Bytea($store) => $body,
            AnyStore::Uuids($store) => $body,
            AnyStore::Intervals($store) => $body,
            AnyStore::Lists($store) => $body,
            AnyStore::Money($store) => $body,
            AnyStore::Points($store) => $body,
            AnyStore::Maps($store) => $body,
            AnyStore::Vectors($store) => $body,
            AnyStore::Structs($store) => $body,
            AnyStore::Ranges($store) => $body,
            AnyStore::NestedLists($store) => $body,
            AnyStore::Written($store) => $body,
            AnyStore::Object($store) => $body,
            AnyStore::Trimmed($store) => $body,
            AnyStore::IntervalIso($store) => $body,
            AnyStore::Geometry($store) => $body,
        }
    }};
}
pub(crate) use dispatch;

/// A store of any type.
pub(crate) enum AnyStore {
    Booleans(Booleans),
    Int2(Numbers<Plain<i16, Int32Type>>),
    Int4(Numbers<Plain<i32, Int32Type>>),
    Int8(Numbers<Plain<i64, Int64Type>>),
    Oid(Numbers<Plain<u32, Int64Type>>),
    Xid8(Numbers<Plain<u64, Decimal128Type>>),
    Float4(Numbers<Plain<f32, Float32Type>>),
    Float8(Numbers<Plain<f64, Float64Type>>),
    Decimal(Numbers<Decimal>),
    Date(Numbers<Date>),
    Time(Numbers<Time>),
    Timestamp(Numbers<Timestamp>),
    Text(Bytes<Text>),
    Jsonb(Bytes<Jsonb>),
    NumericText(Bytes<NumericText>),
    TimeTz(Bytes<TimeTz>),
    Opaque(Bytes<Opaque>),
    Bytea(Bytes<Bytea>),
    Uuids(Uuids),
    Intervals(Intervals),
    Lists(Lists),
    Money(Numbers<Money>),
    Points(Points),
    Maps(Maps),
    Vectors(Vectors),
    Structs(Structs),
    Ranges(Ranges),
    NestedLists(NestedLists),
    Written(Bytes<Written>),
    Object(Bytes<Object>),
    Trimmed(Bytes<Trimmed>),
    IntervalIso(Bytes<IntervalIso>),
    Geometry(Bytes<Geometry>),
}

impl AnyStore {
    /// An empty store for values of `t`.
    pub(crate) fn new(t: &PgType) -> Self {
        match t {
            PgType::Bool => Self::Booleans(Booleans::new(false)),
            PgType::Int2 => Self::Int2(Numbers::new(Plain::NEW)),
            PgType::Int4 => Self::Int4(Numbers::new(Plain::NEW)),
            PgType::Int8 => Self::Int8(Numbers::new(Plain::NEW)),
            PgType::Oid => Self::Oid(Numbers::new(Plain::NEW)),
            PgType::Xid8 => Self::Xid8(Numbers::new(Plain::NEW)),
            PgType::Float4 => Self::Float4(Numbers::new(Plain::NEW)),
            PgType::Float8 => Self::Float8(Numbers::new(Plain::NEW)),
            &PgType::Numeric { precision, scale } => {
                Self::Decimal(Numbers::new(Decimal { precision, scale }))
            }
            PgType::NumericText => Self::NumericText(Bytes::new(NumericText)),
            PgType::Text | PgType::Json => Self::Text(Bytes::new(Text)),
            PgType::Jsonb => Self::Jsonb(Bytes::new(Jsonb)),
            PgType::Bytea => Self::Bytea(Bytes::new(Bytea)),
            PgType::Date => Self::Date(Numbers::new(Date)),
            PgType::Time => Self::Time(Numbers::new(Time)),
            PgType::TimeTz => Self::TimeTz(Bytes::new(TimeTz)),
            PgType::Timestamp | PgType::TimestampTz => Self::Timestamp(Numbers::new(Timestamp)),
            PgType::Interval => Self::Intervals(Intervals::default()),
            PgType::Uuid => Self::Uuids(Uuids::new()),
            PgType::Array(element) => {
                Self::Lists(Lists::new(Self::new(element), element.delimiter()))
            }
            PgType::Nested(element, depth) => {
                let elements = Self::new(element);
                Self::NestedLists(NestedLists::new(elements, *depth, element.delimiter()))
            }
            PgType::Money { .. } => Self::Money(Numbers::new(Money)),
            PgType::BitBoolean => Self::Booleans(Booleans::new(true)),
            PgType::Point => Self::Points(Points::default()),
            PgType::Hstore => Self::Maps(Maps::new()),
            PgType::Vector => Self::Vectors(Vectors::new(false)),
            PgType::HalfVector => Self::Vectors(Vectors::new(true)),
            PgType::Geometry { srid } => {
                Self::Geometry(Bytes::new(Geometry { iso: srid.is_some() }))
            }
            PgType::Trimmed => Self::Trimmed(Bytes::new(Trimmed)),
            PgType::IntervalIso => Self::IntervalIso(Bytes::new(IntervalIso)),
            PgType::Composite(_) => Self::Object(Bytes::new(Object(t.clone()))),
            PgType::Struct(attributes) => Self::Structs(Structs::new(attributes)),
            PgType::RangeStruct(element) => {
                Self::Ranges(Ranges::new(Self::new(element), Self::new(element)))
            }
            PgType::Written(_) | PgType::AsText(_) => Self::Written(Bytes::new(Written(t.clone()))),
            PgType::Opaque => Self::Opaque(Bytes::new(Opaque)),
        }
    }
}

impl Store for AnyStore {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        dispatch!(self, store => store.binary(v))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        dispatch!(self, store => store.text(v))
    }

    fn null(&mut self) {
        dispatch!(self, store => store.null());
    }

    fn reserve(&mut self, rows: usize) {
        dispatch!(self, store => store.reserve(rows));
    }

    fn truncate(&mut self, len: usize) {
        dispatch!(self, store => store.truncate(len));
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        dispatch!(self, store => store.finish(data_type))
    }
}

/// Arrow's offsets from the ends of the slots.
pub(crate) fn offsets<O: OffsetSizeTrait>(mut ends: Vec<O>) -> OffsetBuffer<O> {
    ends.insert(0, O::default());
    OffsetBuffer::new(ends.into())
}

/// The end of a slot as an Arrow offset.
#[inline(always)]
pub(crate) fn end<O: OffsetSizeTrait>(n: usize) -> Result<O> {
    O::from_usize(n).ok_or_else(|| {
        Error::fatal("COLUMN_TOO_LARGE", "the values of one column in a row group exceed 2 GiB")
            .with_cure("lower `window_bytes_max`")
    })
}

#[cold]
pub(crate) fn invalid_utf8(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Kind::Table, "INVALID_UTF8", "a text is not valid UTF-8")
        .with_source(error)
        .with_cure("correct the value in the source, or leave the column out of the publication")
}

#[cold]
pub(crate) fn defect(cause: impl std::fmt::Display) -> Error {
    Error::fatal("DECODED_COLUMN", format!("a column does not make an array: {cause}"))
        .with_cure("this is a defect of frazil: nothing was acknowledged; please report it")
}
