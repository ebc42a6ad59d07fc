//! From the bytes of tuples to Arrow columns; the same for the stream and the initial snapshot, for
//! binary and text.
//!
//! ```text
//! cursors into the receive buffer ─► blocks of 1,024 rows ─► column by column: Framing::next
//!                                      (stay in cache)          │ binary or text form
//!                                                               ▼
//!                                             Store ── fits ──► a slot of the Arrow array
//!                                               └── doesn't ──► NULL + RawValue (Postgres's text)
//! ```
//!
//! The mapping is `docs/types.md`: lossless or loud. The kind of each field is looked at per value,
//! as a type without a send function comes as text in a binary stream too.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field as ArrowField, TimeUnit};

use super::hidden_key::HiddenKey;
use super::relation::{Attribute, PgType};
use super::render::render;
use super::store::{AnyStore, Store, dispatch};
use super::wire::{Field, Framing};
use crate::error::{Error, Kind, Result};

/// Rows that are decoded column by column together: their tuples stay in the processor's cache.
const BLOCK_ROWS: usize = 1024;

/// A column to decode.
#[derive(Debug, Clone)]
pub struct DecodedColumn {
    /// Its name, for errors.
    pub name: String,
    /// How its values are written.
    pub pg_type: PgType,
    /// The lake's Arrow type: [`arrow_type`] with the lake's field ids in it. Arrays have exactly
    /// this type.
    pub data_type: DataType,
}

/// A value that its column can't hold: the column has NULL in that row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue {
    /// The row, from 0, among those decoded since the last [`TupleDecoder::finish`].
    pub row: u32,
    /// Index into the columns on the wire.
    pub column: usize,
    /// Postgres's own text for the value.
    pub text: String,
}

/// What was decoded.
#[derive(Debug)]
pub struct Decoded {
    /// One array for each column that isn't skipped, in wire order.
    pub columns: Vec<ArrayRef>,
    /// Values that don't stand in their arrays: by block of rows, then column, then row.
    pub raw: Vec<RawValue>,
    /// The `_pg_key` of each row, where the table has it.
    pub key: Option<ArrayRef>,
    /// Rows of each array.
    pub rows: usize,
}

/// Decodes tuples of one relation, in one version, into columns.
pub struct TupleDecoder {
    columns: Vec<Option<Column>>,
    key: Option<HiddenKey>,
    raw: Vec<RawValue>,
    rows: usize,
}

struct Column {
    about: DecodedColumn,
    /// Its position on the wire.
    index: usize,
    store: AnyStore,
}

impl TupleDecoder {
    /// A decoder for tuples with these columns in wire order; None: the field is skipped.
    /// `TYPE_MISMATCH` where a column's Arrow type is not [`arrow_type`] of its Postgres type,
    /// names and metadata aside.
    pub fn new(columns: Vec<Option<DecodedColumn>>) -> Result<Self> {
        let column = |(index, about): (usize, Option<DecodedColumn>)| {
            about.map(|about| Column::new(index, about)).transpose()
        };
        let columns = columns.into_iter().enumerate().map(column).collect::<Result<_>>()?;
        Ok(Self { columns, key: None, raw: Vec::new(), rows: 0 })
    }

    /// The same, and it makes each row's `_pg_key`, where there is one to make.
    #[must_use]
    pub fn with_key(self, key: Option<HiddenKey>) -> Self {
        Self { key, ..self }
    }

    /// Decodes the tuples at `cursors` into `buf`, each at its tuple's first field and left behind
    /// its last. Unchanged TOAST becomes NULL. After an error the decoder is of no more use.
    pub fn decode<F: Framing>(&mut self, buf: &[u8], cursors: &mut [u32]) -> Result<()> {
        for block in cursors.chunks_mut(BLOCK_ROWS) {
            let first_row = u32::try_from(self.rows).map_err(|_| too_many_rows())?;
            self.rows += block.len();
            if let Some(key) = &mut self.key {
                key.fill::<F>(buf, block)?;
            }
            for column in &mut self.columns {
                match column {
                    Some(column) => column.fill::<F>(buf, block, first_row, &mut self.raw)?,
                    None => block.iter_mut().try_for_each(|c| F::next(buf, c).map(drop))?,
                }
            }
        }
        Ok(())
    }

    /// Takes what was decoded; the decoder is empty then. `INVALID_UTF8` names the column whose
    /// text isn't.
    pub fn finish(&mut self) -> Result<Decoded> {
        let finish = |column: &mut Column| {
            let array = column.store.finish(&column.about.data_type);
            array.map_err(|e| e.with_column(&column.about.name))
        };
        let columns = self.columns.iter_mut().flatten().map(finish).collect::<Result<_>>()?;
        let (raw, rows) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.rows));
        let key = self.key.as_mut().map(HiddenKey::finish);
        Ok(Decoded { columns, key, raw, rows })
    }
}

impl Column {
    fn new(index: usize, about: DecodedColumn) -> Result<Self> {
        let expected = arrow_type(&about.pg_type);
        if !about.data_type.equals_datatype(&expected) {
            let message = format!("the lake has {}, the source {expected}", about.data_type);
            return Err(Error::new(Kind::Table, "TYPE_MISMATCH", message)
                .with_column(&about.name)
                .with_cure("resync the table"));
        }
        let store = AnyStore::new(&about.pg_type);
        Ok(Self { about, index, store })
    }

    /// Adds this column's field of each row, moving each cursor past it.
    fn fill<F: Framing>(
        &mut self,
        buf: &[u8],
        cursors: &mut [u32],
        first_row: u32,
        raw: &mut Vec<RawValue>,
    ) -> Result<()> {
        let mut sink = RawSink { about: &self.about, column: self.index, raw };
        let (rows, sink) = (cursors, &mut sink);
        let filled = if F::OPAQUE_IS_TEXT && !self.about.pg_type.has_binary_form() {
            dispatch!(&mut self.store, s => fill::<AsText<F>, _>(s, buf, rows, first_row, sink))
        } else {
            dispatch!(&mut self.store, s => fill::<F, _>(s, buf, rows, first_row, sink))
        };
        filled.map_err(|e| e.with_column(&self.about.name))
    }
}

/// The loop over the rows of a block.
fn fill<F: Framing, S: Store>(
    store: &mut S,
    buf: &[u8],
    cursors: &mut [u32],
    first_row: u32,
    sink: &mut RawSink<'_>,
) -> Result<()> {
    for (cursor, row) in cursors.iter_mut().zip(first_row..) {
        let field = F::next(buf, cursor)?;
        let fits = match field {
            Field::Null | Field::Unchanged => {
                store.null();
                true
            }
            Field::Binary(v) => store.binary(v)?,
            Field::Text(v) => store.text(v)?,
        };
        if !fits {
            sink.push(row, field)?;
        }
    }
    Ok(())
}

/// `F`, for a column that the query cast to text.
struct AsText<F>(F);

impl<F: Framing> Framing for AsText<F> {
    const OPAQUE_IS_TEXT: bool = F::OPAQUE_IS_TEXT;

    #[inline(always)]
    fn next<'a>(buf: &'a [u8], cursor: &mut u32) -> Result<Field<'a>> {
        Ok(match F::next(buf, cursor)? {
            Field::Binary(v) => Field::Text(v),
            other => other,
        })
    }
}

/// Where values go that a column can't hold.
struct RawSink<'a> {
    about: &'a DecodedColumn,
    column: usize,
    raw: &'a mut Vec<RawValue>,
}

impl RawSink<'_> {
    #[cold]
    fn push(&mut self, row: u32, field: Field<'_>) -> Result<()> {
        let mut text = Vec::new();
        match field {
            Field::Binary(v) => render(&self.about.pg_type, v, &mut text)?,
            Field::Text(v) => text.extend_from_slice(v),
            Field::Null | Field::Unchanged => {}
        }
        let text = String::from_utf8(text).map_err(super::store::invalid_utf8)?;
        self.raw.push(RawValue { row, column: self.column, text });
        Ok(())
    }
}

#[cold]
fn too_many_rows() -> Error {
    Error::fatal("TOO_MANY_ROWS", "more than 4,294,967,295 rows for one file")
        .with_cure("this is a defect of frazil: nothing was acknowledged; please report it")
}

/// The Arrow type of a Postgres type, without the lake's field ids. Times are in microseconds, as
/// Iceberg's.
pub fn arrow_type(t: &PgType) -> DataType {
    match t {
        PgType::Bool | PgType::BitBoolean => DataType::Boolean,
        PgType::Int2 | PgType::Int4 => DataType::Int32,
        PgType::Int8 | PgType::Oid => DataType::Int64,
        PgType::Xid8 => DataType::Decimal128(20, 0),
        PgType::Float4 => DataType::Float32,
        PgType::Float8 => DataType::Float64,
        &PgType::Numeric { precision, scale } => DataType::Decimal128(precision, scale),
        PgType::NumericText | PgType::Text | PgType::Json | PgType::Jsonb | PgType::TimeTz => {
            DataType::Utf8
        }
        PgType::Trimmed | PgType::IntervalIso | PgType::Composite(_) => DataType::Utf8,
        PgType::Written(_) | PgType::AsText(_) | PgType::Opaque => DataType::Utf8,
        PgType::Money { scale } => DataType::Decimal128(19, *scale),
        PgType::Bytea | PgType::Geometry { .. } => DataType::LargeBinary,
        PgType::Date => DataType::Date32,
        PgType::Time => DataType::Time64(TimeUnit::Microsecond),
        PgType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PgType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        PgType::Interval => structure(&[
            ("months", DataType::Int32),
            ("days", DataType::Int32),
            ("micros", DataType::Int64),
        ]),
        PgType::Point => structure(&[("x", DataType::Float64), ("y", DataType::Float64)]),
        PgType::Struct(attributes) => {
            let part = |a: &Attribute| ArrowField::new(&a.name, arrow_type(&a.pg_type), true);
            DataType::Struct(attributes.iter().map(part).collect())
        }
        PgType::RangeStruct(element) => structure(&[
            ("empty", DataType::Boolean),
            ("lower", arrow_type(element)),
            ("upper", arrow_type(element)),
            ("lower_inc", DataType::Boolean),
            ("upper_inc", DataType::Boolean),
        ]),
        PgType::Hstore => string_map(),
        PgType::Vector | PgType::HalfVector => list(DataType::Float32),
        PgType::Uuid => DataType::FixedSizeBinary(16),
        PgType::Array(element) => list(arrow_type(element)),
        PgType::Nested(element, depth) => {
            (0..*depth).fold(arrow_type(element), |inner, _| list(inner))
        }
    }
}

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(ArrowField::new("element", element, true)))
}

fn structure(parts: &[(&str, DataType)]) -> DataType {
    let part = |(name, t): &(&str, DataType)| ArrowField::new(*name, t.clone(), true);
    DataType::Struct(parts.iter().map(part).collect())
}

fn string_map() -> DataType {
    let pair = vec![
        ArrowField::new("key", DataType::Utf8, false),
        ArrowField::new("value", DataType::Utf8, true),
    ];
    let entries = ArrowField::new("key_value", DataType::Struct(pair.into()), false);
    DataType::Map(Arc::new(entries), false)
}
