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

use arrow_array::ArrayRef;
use arrow_schema::DataType;

pub use super::arrow_types::arrow_type;
use super::hidden_key::HiddenKey;
use super::relation::PgType;
use super::render::render;
use super::rules::{Unrepresentable, ValueRules};
use super::store::{AnyStore, Store, dispatch};
use super::wire::{Field, Framing, size};
use super::{clamp, unchecked};
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
    /// Values that another one stands for (rule `clamp`).
    pub clamped: u64,
    /// Dates and timestamps outside of the years 1 to 9999, which many readers do not know.
    pub far: u64,
}

/// Decodes tuples of one relation, in one version, into columns.
pub struct TupleDecoder {
    columns: Vec<Option<Column>>,
    key: Option<HiddenKey>,
    raw: Vec<RawValue>,
    rows: usize,
    clamped: u64,
}

struct Column {
    rules: ValueRules,
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
        Ok(Self { columns, key: None, raw: Vec::new(), rows: 0, clamped: 0 })
    }

    /// The same, and it makes each row's `_pg_key`, where there is one to make.
    #[must_use]
    pub fn with_key(self, key: Option<HiddenKey>) -> Self {
        Self { key, ..self }
    }

    /// Has values without a place in their column treated by `rules`. Columns of the `key` are not
    /// clamped: two rows could become one.
    #[must_use]
    pub fn with_rules(mut self, rules: ValueRules, key: &[usize]) -> Self {
        for column in self.columns.iter_mut().flatten() {
            column.rules = rules;
            if key.contains(&column.index) && rules.unrepresentable == Unrepresentable::Clamp {
                column.rules.unrepresentable = Unrepresentable::Raw;
            }
        }
        self
    }

    /// Decodes the tuples at `cursors` into `buf`, each at its tuple's first field and left behind
    /// its last. Unchanged TOAST becomes NULL. After an error the decoder is of no more use.
    pub fn decode<F: Framing>(&mut self, buf: &[u8], cursors: &mut [u32]) -> Result<()> {
        for column in self.columns.iter_mut().flatten() {
            column.store.reserve(cursors.len());
        }
        for block in cursors.chunks_mut(BLOCK_ROWS) {
            let first_row = u32::try_from(self.rows).map_err(|_| too_many_rows())?;
            self.rows += block.len();
            if let Some(key) = &mut self.key {
                key.fill::<F>(buf, block)?;
            }
            for column in &mut self.columns {
                match column {
                    Some(column) => {
                        let raw = (&mut self.raw, &mut self.clamped);
                        column.fill::<F>(buf, block, first_row, raw)?;
                    }
                    None => block.iter_mut().try_for_each(|c| F::next(buf, c).map(drop))?,
                }
            }
        }
        Ok(())
    }

    /// Takes what was decoded; the decoder is empty then. `INVALID_UTF8` names the column whose
    /// text isn't.
    pub fn finish(&mut self) -> Result<Decoded> {
        let mut clamped = std::mem::take(&mut self.clamped);
        let mut far = 0;
        let mut finish = |column: &mut Column| {
            let array = column.store.finish(&column.about.data_type);
            let array = array.map_err(|e| e.with_column(&column.about.name))?;
            let outside = clamp::outside(&array);
            if outside == 0 || column.rules.unrepresentable != Unrepresentable::Clamp {
                far += outside;
                return Ok(array);
            }
            clamped += outside;
            Ok(clamp::inside(&array))
        };
        let columns = self.columns.iter_mut().flatten().map(&mut finish).collect::<Result<_>>()?;
        let (raw, rows) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.rows));
        let key = self.key.as_mut().map(HiddenKey::finish);
        Ok(Decoded { columns, key, raw, rows, clamped, far })
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
        Ok(Self { rules: ValueRules::default(), about, index, store })
    }

    /// Adds this column's field of each row, moving each cursor past it.
    fn fill<F: Framing>(
        &mut self,
        buf: &[u8],
        cursors: &mut [u32],
        first_row: u32,
        (raw, clamped): (&mut Vec<RawValue>, &mut u64),
    ) -> Result<()> {
        let (about, column, rules) = (&self.about, self.index, self.rules);
        let mut sink = RawSink { about, column, rules, raw, clamped };
        let (rows, sink) = (cursors, &mut sink);
        let is_cast = F::OPAQUE_IS_TEXT && !about.pg_type.has_binary_form();
        let filled = if rules.unchecked_encoding && unchecked::has_text(&about.pg_type) {
            let store = &mut self.store;
            let field = |cursor: &mut u32| match is_cast {
                true => AsText::<F>::next(buf, cursor),
                false => F::next(buf, cursor),
            };
            unchecked::fill(store, (rows, first_row), field, sink)
        } else if is_cast {
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
            sink.push(store, row, field)?;
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
pub(super) struct RawSink<'a> {
    about: &'a DecodedColumn,
    column: usize,
    rules: ValueRules,
    raw: &'a mut Vec<RawValue>,
    clamped: &'a mut u64,
}

impl RawSink<'_> {
    /// Treats the value of `row`, which `store` has as NULL, by the rule.
    #[cold]
    pub(super) fn push(
        &mut self,
        store: &mut impl Store,
        row: u32,
        field: Field<'_>,
    ) -> Result<()> {
        let text = self.text(field)?;
        match self.rules.unrepresentable {
            Unrepresentable::Raw => {}
            Unrepresentable::Error => return Err(self.unrepresentable(&text)),
            Unrepresentable::Clamp => {
                if let Some(nearest) = clamp::nearest(&self.about.pg_type, &text) {
                    store.truncate(size(row));
                    if store.text(&nearest)? {
                        *self.clamped += 1;
                        return Ok(());
                    }
                }
            }
        }
        let text = String::from_utf8(text).map_err(super::store::invalid_utf8)?;
        self.raw.push(RawValue { row, column: self.column, text });
        Ok(())
    }

    /// The value's Postgres text.
    pub(super) fn text(&self, field: Field<'_>) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        match field {
            Field::Binary(v) => render(&self.about.pg_type, v, &mut text)?,
            Field::Text(v) => text.extend_from_slice(v),
            Field::Null | Field::Unchanged => {}
        }
        Ok(text)
    }

    /// Gives `_pg_raw` the bytes of a text that is no UTF-8, as hex, where the rule allows that.
    pub(super) fn push_bytes(&mut self, row: u32, bytes: &[u8]) -> Result<()> {
        if self.rules.unrepresentable == Unrepresentable::Error {
            return Err(self.unrepresentable(bytes));
        }
        let mut text = String::from("\\x");
        bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        self.raw.push(RawValue { row, column: self.column, text });
        Ok(())
    }

    fn unrepresentable(&self, text: &[u8]) -> Error {
        let text: String = String::from_utf8_lossy(text).chars().take(SHOWN_MAX).collect();
        let t = &self.about.data_type;
        let message = format!("the value {text} has no place in the column's lake type {t}");
        Error::new(Kind::Table, "UNREPRESENTABLE", message).with_cure(
            "correct the value, or set values.on_unrepresentable to raw or clamp for this table",
        )
    }
}

/// Characters of a value that an error shows.
const SHOWN_MAX: usize = 100;

#[cold]
fn too_many_rows() -> Error {
    Error::fatal("TOO_MANY_ROWS", "more than 4,294,967,295 rows for one file")
        .with_cure("this is a defect of frazil: nothing was acknowledged; please report it")
}
