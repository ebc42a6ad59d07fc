//! A column while it is being filled: one store per shape of Arrow array.
//!
//! The stores are vectors of our own rather than Arrow's builders, because an array with an element
//! that can't be held takes back the elements before it.

use std::mem;
use std::sync::Arc;

use arrow_array::types::{
    ByteArrayType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, LargeBinaryType,
    Utf8Type,
};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, GenericByteArray, Int32Array, Int64Array,
    ListArray, OffsetSizeTrait, PrimitiveArray, StructArray,
};
use arrow_buffer::{
    ArrowNativeType, BooleanBufferBuilder, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer,
    ScalarBuffer,
};
use arrow_schema::DataType;

use super::array::{Array, try_each_of_text};
use super::datetime;
use super::numeric;
use super::relation::PgType;
use super::render::{self, binary_form_unknown, jsonb};
use super::scalar::{
    Date, Decimal, Native, Plain, Scalar, Time, Timestamp, bad_value, boolean, boolean_of_text,
    exact,
};
use super::text;
use crate::error::{Error, Kind, Result};

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
        }
    }};
}
pub(crate) use dispatch;

/// A column's values so far. Each call adds one slot.
pub(crate) trait Store {
    /// Adds a value in its type's binary form. False: the column can't hold it and got a NULL.
    fn binary(&mut self, v: &[u8]) -> Result<bool>;

    /// Adds a value in its type's text form, as [`Store::binary`].
    fn text(&mut self, v: &[u8]) -> Result<bool>;

    /// Adds a NULL.
    fn null(&mut self);

    /// Takes back the slots from `len` on.
    fn truncate(&mut self, len: usize);

    /// Takes all slots, as an array of exactly `data_type`.
    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef>;
}

/// Numbers.
pub(crate) struct Numbers<S: Scalar> {
    scalar: S,
    values: Vec<Native<S>>,
    nulls: NullBufferBuilder,
}

impl<S: Scalar> Numbers<S> {
    fn new(scalar: S) -> Self {
        Self { scalar, values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    #[inline(always)]
    fn push(&mut self, value: Option<Native<S>>) -> bool {
        self.values.push(value.unwrap_or_default());
        self.nulls.append(value.is_some());
        value.is_some()
    }
}

impl<S: Scalar> Store for Numbers<S> {
    #[inline(always)]
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let value = self.scalar.binary(v)?;
        Ok(self.push(value))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let text = str::from_utf8(v).map_err(|_| bad_value("number or time"))?;
        let value = self.scalar.text(text)?;
        Ok(self.push(value))
    }

    #[inline(always)]
    fn null(&mut self) {
        self.push(None);
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let values = ScalarBuffer::from(mem::take(&mut self.values));
        let array = PrimitiveArray::<S::Arrow>::try_new(values, self.nulls.finish());
        Ok(Arc::new(array.map_err(defect)?.with_data_type(data_type.clone())))
    }
}

/// Booleans.
pub(crate) struct Booleans {
    values: BooleanBufferBuilder,
    nulls: NullBufferBuilder,
}

impl Booleans {
    #[inline(always)]
    fn push(&mut self, value: Option<bool>) {
        self.values.append(value.unwrap_or_default());
        self.nulls.append(value.is_some());
    }
}

impl Store for Booleans {
    #[inline(always)]
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        self.push(Some(boolean(v)?));
        Ok(true)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        self.push(Some(boolean_of_text(v)?));
        Ok(true)
    }

    #[inline(always)]
    fn null(&mut self) {
        self.push(None);
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::new(self.values.finish(), self.nulls.finish())))
    }
}

/// Values of any length, one behind the other. Text is checked to be UTF-8 once, at the end.
pub(crate) struct Bytes<K: Kinded> {
    values: Vec<u8>,
    ends: Vec<<K::Arrow as ByteArrayType>::Offset>,
    nulls: NullBufferBuilder,
}

/// A type that is stored as text or bytes.
pub(crate) trait Kinded {
    /// Text or bytes.
    type Arrow: ByteArrayType;

    /// Appends what is stored of a binary form.
    fn binary(v: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Appends what is stored of a text form.
    #[inline(always)]
    fn text(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(v);
        Ok(())
    }
}

impl<K: Kinded> Bytes<K> {
    fn new() -> Self {
        Self { values: Vec::new(), ends: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    #[inline(always)]
    fn push(&mut self, valid: bool) -> Result<()> {
        self.ends.push(end(self.values.len())?);
        self.nulls.append(valid);
        Ok(())
    }
}

impl<K: Kinded> Store for Bytes<K> {
    #[inline(always)]
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        K::binary(v, &mut self.values)?;
        self.push(true).map(|()| true)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        K::text(v, &mut self.values)?;
        self.push(true).map(|()| true)
    }

    #[inline(always)]
    fn null(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or_default());
        self.nulls.append(false);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.values.truncate(self.ends.last().map_or(0, |end| end.as_usize()));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _: &DataType) -> Result<ArrayRef> {
        let values = Buffer::from(mem::take(&mut self.values));
        let ends = offsets(mem::take(&mut self.ends));
        let array = GenericByteArray::<K::Arrow>::try_new(ends, values, self.nulls.finish());
        Ok(Arc::new(array.map_err(invalid_utf8)?))
    }
}

macro_rules! kinded {
    ($name:ident, $arrow:ty, $doc:literal, $v:ident, $out:ident => $binary:expr) => {
        #[doc = $doc]
        pub(crate) struct $name;

        impl Kinded for $name {
            type Arrow = $arrow;

            #[inline(always)]
            fn binary($v: &[u8], $out: &mut Vec<u8>) -> Result<()> {
                $binary
            }
        }
    };
}

kinded!(Text, Utf8Type, "Text, whose binary form is the text.", v, out => {
    out.extend_from_slice(render::text(v));
    Ok(())
});
kinded!(Jsonb, Utf8Type, "`jsonb`.", v, out => {
    out.extend_from_slice(jsonb(v)?);
    Ok(())
});
kinded!(NumericText, Utf8Type, "`numeric` as text.", v, out => numeric::render(v, out));
kinded!(TimeTz, Utf8Type, "`timetz` as text.", v, out => datetime::render_timetz(v, out));
kinded!(Opaque, Utf8Type, "Any other type as text.", _v, _out => Err(binary_form_unknown()));

/// `bytea`.
pub(crate) struct Bytea;

impl Kinded for Bytea {
    type Arrow = LargeBinaryType;

    #[inline(always)]
    fn binary(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(v);
        Ok(())
    }

    fn text(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        text::bytea(v, out)
    }
}

/// `uuid`.
pub(crate) struct Uuids {
    values: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Uuids {
    #[inline(always)]
    fn push(&mut self, value: Option<[u8; 16]>) {
        self.values.extend_from_slice(&value.unwrap_or_default());
        self.nulls.append(value.is_some());
    }
}

impl Store for Uuids {
    #[inline(always)]
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        self.push(Some(exact(v, "uuid")?));
        Ok(true)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        self.push(Some(text::uuid(v)?));
        Ok(true)
    }

    #[inline(always)]
    fn null(&mut self) {
        self.push(None);
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len.saturating_mul(16));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _: &DataType) -> Result<ArrayRef> {
        let values = Buffer::from(mem::take(&mut self.values));
        let array = FixedSizeBinaryArray::try_new(16, values, self.nulls.finish());
        Ok(Arc::new(array.map_err(defect)?))
    }
}

/// `interval`: three columns of numbers.
#[derive(Default)]
pub(crate) struct Intervals {
    months: Vec<i32>,
    days: Vec<i32>,
    micros: Vec<i64>,
    valid: Vec<bool>,
}

impl Intervals {
    fn push(&mut self, value: Option<datetime::Interval>) -> bool {
        self.months.push(value.map_or(0, |i| i.months));
        self.days.push(value.map_or(0, |i| i.days));
        self.micros.push(value.map_or(0, |i| i.micros));
        self.valid.push(value.is_some());
        value.is_some()
    }
}

impl Store for Intervals {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let value = datetime::interval(v)?;
        Ok(self.push(value))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let text = str::from_utf8(v).map_err(|_| bad_value("interval"))?;
        let value = datetime::interval_of_text(text)?;
        Ok(self.push(value))
    }

    fn null(&mut self) {
        self.push(None);
    }

    fn truncate(&mut self, len: usize) {
        self.months.truncate(len);
        self.days.truncate(len);
        self.micros.truncate(len);
        self.valid.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let Self { months, days, micros, valid } = mem::take(self);
        let DataType::Struct(fields) = data_type else { return Err(defect(data_type)) };
        // A part of a NULL is NULL too, for readers that look at the parts alone.
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        let int = |values: Vec<i32>| Int32Array::new(values.into(), nulls.clone());
        let micros = Int64Array::new(micros.into(), nulls.clone());
        let parts: Vec<ArrayRef> =
            vec![Arc::new(int(months)), Arc::new(int(days)), Arc::new(micros)];
        let array = StructArray::try_new(fields.clone(), parts, nulls);
        Ok(Arc::new(array.map_err(defect)?))
    }
}

/// Arrays: one store for all elements of all rows.
pub(crate) struct Lists {
    elements: Box<AnyStore>,
    count: usize,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Lists {
    /// Ends a list that began behind `self.count` elements and has `added`; takes them back if it
    /// can't be held.
    fn push(&mut self, added: usize, fits: bool) -> Result<bool> {
        if fits {
            self.count += added;
        } else {
            self.elements.truncate(self.count);
        }
        self.ends.push(end(self.count)?);
        self.nulls.append(fits);
        Ok(fits)
    }
}

impl Store for Lists {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let array = Array::read(v)?;
        let (elements, mut added) = (&mut self.elements, 0);
        let fits = array.is_list()
            && dispatch!(elements.as_mut(), store => array.try_each(|element| {
                added += 1;
                match element {
                    Some(v) => store.binary(v),
                    None => {
                        store.null();
                        Ok(true)
                    }
                }
            }))?;
        self.push(added, fits)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let (elements, mut added) = (&mut self.elements, 0);
        let fits = try_each_of_text(v, |element| {
            added += 1;
            match element {
                Some(v) => elements.text(v),
                None => {
                    elements.null();
                    Ok(true)
                }
            }
        })?;
        self.push(added, fits)
    }

    fn null(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or_default());
        self.nulls.append(false);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.count = self.ends.last().map_or(0, |end| end.as_usize());
        self.elements.truncate(self.count);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let DataType::List(field) = data_type else { return Err(defect(data_type)) };
        let elements = self.elements.finish(field.data_type())?;
        let ends = offsets(mem::take(&mut self.ends));
        self.count = 0;
        let array = ListArray::try_new(field.clone(), ends, elements, self.nulls.finish());
        Ok(Arc::new(array.map_err(defect)?))
    }
}

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
}

impl AnyStore {
    /// An empty store for values of `t`.
    pub(crate) fn new(t: &PgType) -> Self {
        let nulls = || NullBufferBuilder::new(0);
        match t {
            PgType::Bool => {
                Self::Booleans(Booleans { values: BooleanBufferBuilder::new(0), nulls: nulls() })
            }
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
            PgType::NumericText => Self::NumericText(Bytes::new()),
            PgType::Text => Self::Text(Bytes::new()),
            PgType::Jsonb => Self::Jsonb(Bytes::new()),
            PgType::Bytea => Self::Bytea(Bytes::new()),
            PgType::Date => Self::Date(Numbers::new(Date)),
            PgType::Time => Self::Time(Numbers::new(Time)),
            PgType::TimeTz => Self::TimeTz(Bytes::new()),
            PgType::Timestamp | PgType::TimestampTz => Self::Timestamp(Numbers::new(Timestamp)),
            PgType::Interval => Self::Intervals(Intervals::default()),
            PgType::Uuid => Self::Uuids(Uuids { values: Vec::new(), nulls: nulls() }),
            PgType::Array(element) => Self::Lists(Lists {
                elements: Box::new(Self::new(element)),
                count: 0,
                ends: Vec::new(),
                nulls: nulls(),
            }),
            PgType::Opaque => Self::Opaque(Bytes::new()),
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

    fn truncate(&mut self, len: usize) {
        dispatch!(self, store => store.truncate(len));
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        dispatch!(self, store => store.finish(data_type))
    }
}

/// Arrow's offsets from the ends of the slots.
fn offsets<O: OffsetSizeTrait>(mut ends: Vec<O>) -> OffsetBuffer<O> {
    ends.insert(0, O::default());
    OffsetBuffer::new(ends.into())
}

/// The end of a slot as an Arrow offset.
#[inline(always)]
fn end<O: OffsetSizeTrait>(n: usize) -> Result<O> {
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
fn defect(cause: impl std::fmt::Display) -> Error {
    Error::fatal("DECODED_COLUMN", format!("a column does not make an array: {cause}"))
        .with_cure("this is a defect of frazil: nothing was acknowledged; please report it")
}
