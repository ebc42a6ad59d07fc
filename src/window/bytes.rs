//! Stores of values of any length: text and bytes, one value behind the other.

use std::mem;
use std::sync::Arc;

use arrow_array::types::{ByteArrayType, LargeBinaryType, Utf8Type};
use arrow_array::{ArrayRef, GenericByteArray};
use arrow_buffer::{ArrowNativeType, Buffer, NullBufferBuilder};
use arrow_schema::DataType;

use super::geometry::iso_wkb;
use super::json::{push_json, push_json_of_text};
use super::relation::PgType;
use super::render::{self, binary_form_unknown, jsonb};
use super::store::{Store, end, invalid_utf8, offsets};
use super::{datetime, interval, numeric, text};
use crate::error::Result;

/// The most that is reserved for values on the word of those before them.
const RESERVE_BYTES: usize = 1 << 20;

/// Values of any length, one behind the other. Text is checked to be UTF-8 once, at the end.
pub(crate) struct Bytes<K: Kinded> {
    kind: K,
    values: Vec<u8>,
    ends: Vec<<K::Arrow as ByteArrayType>::Offset>,
    nulls: NullBufferBuilder,
    /// How many bytes the slots had that were taken last, and how many slots those were.
    last: (usize, usize),
}

/// A type that is stored as text or bytes.
pub(crate) trait Kinded {
    /// Text or bytes.
    type Arrow: ByteArrayType;

    /// Appends what is stored of a binary form.
    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Appends what is stored of a text form.
    #[inline(always)]
    fn text(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(v);
        Ok(())
    }
}

impl<K: Kinded> Bytes<K> {
    /// Empty, for values of `kind`.
    pub(crate) fn new(kind: K) -> Self {
        let (values, ends, nulls) = (Vec::new(), Vec::new(), NullBufferBuilder::new(0));
        Self { kind, values, ends, nulls, last: (0, 0) }
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
        self.kind.binary(v, &mut self.values)?;
        self.push(true).map(|()| true)
    }

    fn text(&mut self, v: &[u8]) -> Result<bool> {
        self.kind.text(v, &mut self.values)?;
        self.push(true).map(|()| true)
    }

    #[inline(always)]
    fn null(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or_default());
        self.nulls.append(false);
    }

    fn reserve(&mut self, rows: usize) {
        let (bytes, slots) = self.last;
        // One more: Arrow's offsets begin with a zero.
        self.ends.reserve(rows + 1);
        self.values.reserve((bytes / slots.max(1) + 1).saturating_mul(rows).min(RESERVE_BYTES));
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.values.truncate(self.ends.last().map_or(0, |end| end.as_usize()));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _: &DataType) -> Result<ArrayRef> {
        self.last = (self.values.len(), self.ends.len());
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
            fn binary(&self, $v: &[u8], $out: &mut Vec<u8>) -> Result<()> {
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
    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(v);
        Ok(())
    }

    fn text(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        text::bytea(v, out)
    }
}

/// A type that is stored as its Postgres text.
pub(crate) struct Written(pub(crate) PgType);

impl Kinded for Written {
    type Arrow = Utf8Type;

    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        render::render(&self.0, v, out)
    }
}

/// A composite type as a JSON object.
pub(crate) struct Object(pub(crate) PgType);

impl Kinded for Object {
    type Arrow = Utf8Type;

    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        push_json(&self.0, v, out)
    }

    fn text(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        push_json_of_text(&self.0, v, out)
    }
}

/// `char(n)` without its padding.
pub(crate) struct Trimmed;

impl Kinded for Trimmed {
    type Arrow = Utf8Type;

    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(trim(v));
        Ok(())
    }

    fn text(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(trim(v));
        Ok(())
    }
}

fn trim(v: &[u8]) -> &[u8] {
    let end = v.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    v.get(..end).unwrap_or_default()
}

/// `interval` as ISO 8601.
pub(crate) struct IntervalIso;

impl Kinded for IntervalIso {
    type Arrow = Utf8Type;

    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        interval::iso_8601(v, out)
    }

    fn text(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        interval::iso_8601_of_text(v, out)
    }
}

/// `geometry`, `geography`.
pub(crate) struct Geometry {
    /// As ISO WKB; else as EWKB.
    pub(crate) iso: bool,
}

impl Kinded for Geometry {
    type Arrow = LargeBinaryType;

    fn binary(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if self.iso {
            return iso_wkb(v, out);
        }
        out.extend_from_slice(v);
        Ok(())
    }

    fn text(&self, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut ewkb = Vec::with_capacity(v.len() / 2);
        text::hex(v, &mut ewkb)?;
        self.binary(&ewkb, out)
    }
}
