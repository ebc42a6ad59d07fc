//! Databases of encoding SQL_ASCII, whose texts may be no UTF-8 (case 58): such a text is stored
//! with U+FFFD for what is none, and its bytes stand in `_pg_raw` as hex. A value with parts has
//! its bytes only.

use super::decode::RawSink;
use super::relation::{PgType, TextForm};
use super::store::{AnyStore, Store};
use super::wire::Field;
use crate::error::Result;

/// Whether values of the type hold text of the user's.
pub(super) fn has_text(t: &PgType) -> bool {
    match t {
        PgType::Text | PgType::Json | PgType::Jsonb | PgType::Trimmed | PgType::Opaque => true,
        PgType::Hstore => true,
        PgType::Array(t) | PgType::Nested(t, _) | PgType::RangeStruct(t) | PgType::AsText(t) => {
            has_text(t)
        }
        PgType::Composite(attributes) | PgType::Struct(attributes) => {
            attributes.iter().any(|attribute| has_text(&attribute.pg_type))
        }
        PgType::Written(form) => match form.as_ref() {
            TextForm::TsVector | TextForm::TsQuery | TextForm::Versioned => true,
            TextForm::Range(t) | TextForm::Multirange(t) => has_text(t),
            _ => false,
        },
        _ => false,
    }
}

/// The loop over the rows of a block, as for other encodings, with a look at each text.
pub(super) fn fill<'a>(
    store: &mut AnyStore,
    (cursors, first_row): (&mut [u32], u32),
    next: impl Fn(&mut u32) -> Result<Field<'a>>,
    sink: &mut RawSink<'_>,
) -> Result<()> {
    for (cursor, row) in cursors.iter_mut().zip(first_row..) {
        let field = next(cursor)?;
        let text = sink.text(field)?;
        if str::from_utf8(&text).is_ok() {
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
            continue;
        }
        match store {
            AnyStore::Text(_) | AnyStore::Trimmed(_) | AnyStore::Opaque(_) => {
                store.text(String::from_utf8_lossy(&text).as_bytes())?;
            }
            _ => store.null(),
        }
        sink.push_bytes(row, &text)?;
    }
    Ok(())
}
