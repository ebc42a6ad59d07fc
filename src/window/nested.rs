//! Stores of values that are made of others: intervals and arrays.

use std::mem;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, ListArray, StructArray};
use arrow_buffer::{ArrowNativeType, NullBuffer, NullBufferBuilder};
use arrow_schema::DataType;

use super::array::{Array, try_each_of_text};
use super::interval::{Interval, interval, interval_of_text};
use super::scalar::bad_value;
use super::store::{AnyStore, Store, defect, dispatch, end, offsets};
use crate::error::Result;

/// `interval`: three columns of numbers.
#[derive(Default)]
pub(crate) struct Intervals {
    months: Vec<i32>,
    days: Vec<i32>,
    micros: Vec<i64>,
    valid: Vec<bool>,
}

impl Intervals {
    fn push(&mut self, value: Option<Interval>) -> bool {
        self.months.push(value.map_or(0, |i| i.months));
        self.days.push(value.map_or(0, |i| i.days));
        self.micros.push(value.map_or(0, |i| i.micros));
        self.valid.push(value.is_some());
        value.is_some()
    }
}

impl Store for Intervals {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let value = interval(v)?;
        Ok(self.push(value))
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let text = str::from_utf8(v).map_err(|_| bad_value("interval"))?;
        let value = interval_of_text(text)?;
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
    delimiter: u8,
    elements: Box<AnyStore>,
    count: usize,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Lists {
    /// Empty, with a store for elements, whose texts are parted by `delimiter`.
    pub(crate) fn new(elements: AnyStore, delimiter: u8) -> Self {
        let nulls = NullBufferBuilder::new(0);
        Self { delimiter, elements: Box::new(elements), count: 0, ends: Vec::new(), nulls }
    }

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
        let fits = try_each_of_text(v, self.delimiter, |element| {
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
