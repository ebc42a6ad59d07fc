//! Stores of structs and maps: points, composite types, ranges, `hstore`.

use std::mem;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, MapArray, StructArray};
use arrow_buffer::{ArrowNativeType, NullBuffer, NullBufferBuilder};
use arrow_schema::{DataType, Fields};

use super::bytes::{Bytes, Text};
use super::forms::{Range, RangeText, point, point_of_text};
use super::hstore;
use super::record;
use super::relation::Attribute;
use super::store::{AnyStore, Store, defect, end, offsets};
use crate::error::Result;

/// `NULL`s, where there are any.
fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    valid.contains(&false).then(|| NullBuffer::from(valid))
}

fn fields(data_type: &DataType) -> Result<&Fields> {
    match data_type {
        DataType::Struct(fields) => Ok(fields),
        _ => Err(defect(data_type)),
    }
}

/// `point`.
#[derive(Default)]
pub(crate) struct Points {
    x: Vec<f64>,
    y: Vec<f64>,
    valid: Vec<bool>,
}

impl Points {
    fn push(&mut self, point: Option<(f64, f64)>) -> bool {
        let (x, y) = point.unwrap_or_default();
        self.x.push(x);
        self.y.push(y);
        self.valid.push(point.is_some());
        true
    }
}

impl Store for Points {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let point = point(v)?;
        Ok(self.push(Some(point)))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let point = point_of_text(v)?;
        Ok(self.push(Some(point)))
    }

    fn null(&mut self) {
        self.push(None);
    }

    fn truncate(&mut self, len: usize) {
        self.x.truncate(len);
        self.y.truncate(len);
        self.valid.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let Self { x, y, valid } = mem::take(self);
        let nulls = nulls(valid);
        let part = |values: Vec<f64>| -> ArrayRef {
            Arc::new(Float64Array::new(values.into(), nulls.clone()))
        };
        let parts = vec![part(x), part(y)];
        let array = StructArray::try_new(fields(data_type)?.clone(), parts, nulls);
        Ok(Arc::new(array.map_err(defect)?))
    }
}

/// A composite type: a store of each attribute.
pub(crate) struct Structs {
    attributes: Vec<Attribute>,
    stores: Vec<AnyStore>,
    valid: Vec<bool>,
}

impl Structs {
    /// Empty.
    pub(crate) fn new(attributes: &[Attribute]) -> Self {
        let stores = attributes.iter().map(|attribute| AnyStore::new(&attribute.pg_type)).collect();
        Self { attributes: attributes.to_vec(), stores, valid: Vec::new() }
    }

    /// Ends a value; where it doesn't fit, each store gets a NULL in its place.
    fn push(&mut self, fits: bool) -> bool {
        if !fits {
            let len = self.valid.len();
            for store in &mut self.stores {
                store.truncate(len);
                store.null();
            }
        }
        self.valid.push(fits);
        fits
    }
}

/// Adds one attribute's value to its store.
fn add(
    stores: &mut [AnyStore],
    n: usize,
    value: Option<&[u8]>,
    into: impl FnOnce(&mut AnyStore, &[u8]) -> Result<bool>,
) -> Result<bool> {
    match (stores.get_mut(n), value) {
        (Some(store), Some(v)) => into(store, v),
        (Some(store), None) => {
            store.null();
            Ok(true)
        }
        (None, _) => Err(defect("attributes")),
    }
}

impl Store for Structs {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let stores = &mut self.stores;
        let fits = record::try_each(&self.attributes, v, |n, _, value| {
            add(stores, n, value, |store, v| store.binary(v))
        })?;
        Ok(self.push(fits))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let stores = &mut self.stores;
        let fits = record::try_each_of_text(&self.attributes, v, |n, _, value| {
            add(stores, n, value, |store, v| store.text(v))
        })?;
        Ok(self.push(fits))
    }

    fn null(&mut self) {
        self.push(false);
    }

    fn truncate(&mut self, len: usize) {
        self.stores.iter_mut().for_each(|store| store.truncate(len));
        self.valid.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let fields = fields(data_type)?;
        let parts = self.stores.iter_mut().zip(fields.iter());
        let parts = parts.map(|(store, field)| store.finish(field.data_type()));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let nulls = nulls(mem::take(&mut self.valid));
        let array = StructArray::try_new(fields.clone(), parts, nulls);
        Ok(Arc::new(array.map_err(defect)?))
    }
}

/// A range: its bounds, and what kind they are.
pub(crate) struct Ranges {
    lower: Box<AnyStore>,
    upper: Box<AnyStore>,
    /// Empty, lower bound inclusive, upper bound inclusive.
    flags: Vec<[bool; 3]>,
    valid: Vec<bool>,
}

impl Ranges {
    /// Empty, with stores for the bounds.
    pub(crate) fn new(lower: AnyStore, upper: AnyStore) -> Self {
        let (lower, upper) = (Box::new(lower), Box::new(upper));
        Self { lower, upper, flags: Vec::new(), valid: Vec::new() }
    }

    fn push(&mut self, flags: [bool; 3], fits: bool) -> bool {
        if !fits {
            let len = self.valid.len();
            for store in [&mut self.lower, &mut self.upper] {
                store.truncate(len);
                store.null();
            }
        }
        self.flags.push(flags);
        self.valid.push(fits);
        fits
    }
}

impl Store for Ranges {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let range = Range::read(v)?;
        let mut fits = true;
        for (store, bound) in [(&mut self.lower, range.lower), (&mut self.upper, range.upper)] {
            match bound {
                Some(v) => fits &= store.binary(v)?,
                None => store.null(),
            }
        }
        Ok(self.push([range.empty, range.lower_inclusive, range.upper_inclusive], fits))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let range = RangeText::read(v)?;
        let mut fits = true;
        for (store, bound) in [(&mut self.lower, range.lower), (&mut self.upper, range.upper)] {
            match bound {
                Some(v) => fits &= store.text(&v)?,
                None => store.null(),
            }
        }
        Ok(self.push([range.empty, range.lower_inclusive, range.upper_inclusive], fits))
    }

    fn null(&mut self) {
        self.push([false; 3], false);
    }

    fn truncate(&mut self, len: usize) {
        self.lower.truncate(len);
        self.upper.truncate(len);
        self.flags.truncate(len);
        self.valid.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let fields = fields(data_type)?;
        let [_, lower, upper, ..] = fields.as_ref() else { return Err(defect(data_type)) };
        let (lower, upper) =
            (self.lower.finish(lower.data_type())?, self.upper.finish(upper.data_type())?);
        let nulls = nulls(mem::take(&mut self.valid));
        let flags = mem::take(&mut self.flags);
        let flag = |of: fn(&[bool; 3]) -> bool| -> ArrayRef {
            let values = flags.iter().map(of).collect::<Vec<_>>();
            Arc::new(BooleanArray::new(values.into(), nulls.clone()))
        };
        let parts =
            vec![flag(|[n, ..]| *n), lower, upper, flag(|[_, n, _]| *n), flag(|[.., n]| *n)];
        let array = StructArray::try_new(fields.clone(), parts, nulls.clone());
        Ok(Arc::new(array.map_err(defect)?))
    }
}

/// `hstore`.
pub(crate) struct Maps {
    keys: Bytes<Text>,
    values: Bytes<Text>,
    count: usize,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Maps {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            keys: Bytes::new(Text),
            values: Bytes::new(Text),
            count: 0,
            ends: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }

    fn pair(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.count += 1;
        self.keys.text(key)?;
        match value {
            Some(value) => self.values.text(value).map(drop),
            None => {
                self.values.null();
                Ok(())
            }
        }
    }

    fn push(&mut self) -> Result<bool> {
        self.ends.push(end(self.count)?);
        self.nulls.append(true);
        Ok(true)
    }
}

impl Store for Maps {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        hstore::try_each(v, |key, value| self.pair(key, value))?;
        self.push()
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        hstore::try_each_of_text(v, |key, value| self.pair(key, value))?;
        self.push()
    }

    fn null(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or_default());
        self.nulls.append(false);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.count = self.ends.last().map_or(0, |end| end.as_usize());
        self.keys.truncate(self.count);
        self.values.truncate(self.count);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let DataType::Map(entries, sorted) = data_type else { return Err(defect(data_type)) };
        let fields = fields(entries.data_type())?;
        let [key, value] = fields.as_ref() else { return Err(defect(data_type)) };
        let pairs =
            vec![self.keys.finish(key.data_type())?, self.values.finish(value.data_type())?];
        self.count = 0;
        let pairs = StructArray::try_new(fields.clone(), pairs, None).map_err(defect)?;
        let ends = offsets(mem::take(&mut self.ends));
        let nulls = self.nulls.finish();
        let map = MapArray::try_new(Arc::clone(entries), ends, pairs, nulls, *sorted);
        Ok(Arc::new(map.map_err(defect)?))
    }
}
