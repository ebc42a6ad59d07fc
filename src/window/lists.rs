//! Stores of lists of lists and of vectors.

use std::mem;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, ListArray};
use arrow_buffer::{ArrowNativeType, NullBufferBuilder};
use arrow_schema::DataType;

use super::array::{Array, ArrayText};
use super::forms::vector;
use super::store::{AnyStore, Store, defect, dispatch, end, offsets};
use crate::error::Result;

/// Arrays of a fixed count of dimensions.
pub(crate) struct NestedLists {
    delimiter: u8,
    elements: Box<AnyStore>,
    /// Of each dimension, the outermost first: where its lists end.
    ends: Vec<Vec<i32>>,
    count: usize,
    nulls: NullBufferBuilder,
}

impl NestedLists {
    /// Empty, of `depth` dimensions, with a store for elements, whose texts are parted by
    /// `delimiter`.
    pub(crate) fn new(elements: AnyStore, depth: u8, delimiter: u8) -> Self {
        Self {
            delimiter,
            elements: Box::new(elements),
            ends: vec![Vec::new(); usize::from(depth)],
            count: 0,
            nulls: NullBufferBuilder::new(0),
        }
    }

    /// Adds a value whose elements (`added` of them) are in the store already; `lengths` of its
    /// dimensions, none for an empty array. Takes the elements back where it doesn't fit.
    fn push(&mut self, lengths: &[usize], added: usize, fits: bool) -> Result<bool> {
        if fits {
            self.count += added;
            self.push_lengths(lengths)?;
        } else {
            self.elements.truncate(self.count);
            self.null_end();
        }
        self.nulls.append(fits);
        Ok(fits)
    }

    fn push_lengths(&mut self, lengths: &[usize]) -> Result<()> {
        let mut lists = 1;
        for (depth, ends) in self.ends.iter_mut().enumerate() {
            let length = lengths.get(depth).copied().unwrap_or(0);
            let before = ends.last().map_or(0, |end| end.as_usize());
            for nth in 1..=lists {
                ends.push(end(before + nth * length)?);
            }
            lists *= length;
        }
        Ok(())
    }

    fn null_end(&mut self) {
        if let Some(ends) = self.ends.first_mut() {
            ends.push(ends.last().copied().unwrap_or_default());
        }
    }

    fn depth(&self) -> usize {
        self.ends.len()
    }
}

impl Store for NestedLists {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        let array = Array::read(v)?;
        let Some(lengths) = array.shape(self.depth()) else { return self.push(&[], 0, false) };
        let (elements, mut added) = (&mut self.elements, 0);
        let fits = dispatch!(elements.as_mut(), store => array.try_each(|element| {
            added += 1;
            match element {
                Some(v) => store.binary(v),
                None => {
                    store.null();
                    Ok(true)
                }
            }
        }))?;
        self.push(&lengths, added, fits)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        let array = ArrayText::read(v, self.delimiter)?;
        let Some(lengths) = array.shape(self.depth()) else { return self.push(&[], 0, false) };
        let mut fits = true;
        for element in &array.elements {
            match element {
                Some(v) => fits &= self.elements.text(v)?,
                None => self.elements.null(),
            }
        }
        self.push(&lengths, array.elements.len(), fits)
    }

    fn null(&mut self) {
        self.null_end();
        self.nulls.append(false);
    }

    fn truncate(&mut self, len: usize) {
        let mut len = len;
        for ends in &mut self.ends {
            ends.truncate(len);
            len = ends.last().map_or(0, |end| end.as_usize());
        }
        self.count = len;
        self.elements.truncate(len);
        let rows = self.ends.first().map_or(0, Vec::len);
        self.nulls.truncate(rows);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let mut fields = Vec::new();
        let mut at = data_type;
        for _ in 0..self.depth() {
            let DataType::List(field) = at else { return Err(defect(data_type)) };
            fields.push(field);
            at = field.data_type();
        }
        let mut array = self.elements.finish(at)?;
        self.count = 0;
        let mut nulls = Some(self.nulls.finish());
        for (depth, field) in fields.into_iter().enumerate().rev() {
            let ends = self.ends.get_mut(depth).map(mem::take).unwrap_or_default();
            let nulls = if depth == 0 { nulls.take().flatten() } else { None };
            let list = ListArray::try_new(Arc::clone(field), offsets(ends), array, nulls);
            array = Arc::new(list.map_err(defect)?);
        }
        Ok(array)
    }
}

/// pgvector's vectors.
pub(crate) struct Vectors {
    half: bool,
    values: Vec<f32>,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Vectors {
    /// Empty; `half`: of `halfvec`.
    pub(crate) fn new(half: bool) -> Self {
        Self { half, values: Vec::new(), ends: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    fn push(&mut self, valid: bool) -> Result<bool> {
        self.ends.push(end(self.values.len())?);
        self.nulls.append(valid);
        Ok(true)
    }
}

impl Store for Vectors {
    fn binary(&mut self, v: &[u8]) -> Result<bool> {
        vector::try_each(v, self.half, |element| self.values.push(element))?;
        self.push(true)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        vector::try_each_of_text(v, |element| self.values.push(element))?;
        self.push(true)
    }

    fn null(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or_default());
        self.nulls.append(false);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.values.truncate(self.ends.last().map_or(0, |end| end.as_usize()));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let DataType::List(field) = data_type else { return Err(defect(data_type)) };
        let values = Arc::new(Float32Array::from(mem::take(&mut self.values)));
        let ends = offsets(mem::take(&mut self.ends));
        let list = ListArray::try_new(field.clone(), ends, values, self.nulls.finish());
        Ok(Arc::new(list.map_err(defect)?))
    }
}
