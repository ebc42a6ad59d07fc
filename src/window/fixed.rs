//! Stores of values that all have one width: numbers, booleans, uuids.

use std::mem;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, FixedSizeBinaryArray, PrimitiveArray};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, ScalarBuffer};
use arrow_schema::DataType;

use super::forms::bit;
use super::scalar::{Native, Scalar, bad_value, boolean, boolean_of_text, exact};
use super::store::{Store, defect};
use super::text;
use crate::error::Result;

/// Numbers.
pub(crate) struct Numbers<S: Scalar> {
    scalar: S,
    values: Vec<Native<S>>,
    nulls: NullBufferBuilder,
}

impl<S: Scalar> Numbers<S> {
    /// Empty.
    pub(crate) fn new(scalar: S) -> Self {
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

    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
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

/// Booleans: of `bool`, or of `bit(1)`.
pub(crate) struct Booleans {
    bit: bool,
    values: BooleanBufferBuilder,
    nulls: NullBufferBuilder,
}

impl Booleans {
    /// Empty; `bit`: the values are of `bit(1)`.
    pub(crate) fn new(bit: bool) -> Self {
        Self { bit, values: BooleanBufferBuilder::new(0), nulls: NullBufferBuilder::new(0) }
    }

    #[inline(always)]
    fn push(&mut self, value: Option<bool>) {
        self.values.append(value.unwrap_or_default());
        self.nulls.append(value.is_some());
    }
}

impl Store for Booleans {
    #[inline(always)]
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        self.push(Some(if self.bit { bit(v)? } else { boolean(v)? }));
        Ok(true)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        self.push(Some(match v {
            b"0" if self.bit => false,
            b"1" if self.bit => true,
            _ if self.bit => return Err(bad_value("bit(1)")),
            _ => boolean_of_text(v)?,
        }));
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

/// `uuid`.
pub(crate) struct Uuids {
    values: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Uuids {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

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

    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows.saturating_mul(16));
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
