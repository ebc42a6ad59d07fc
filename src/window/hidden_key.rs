//! Values of `_pg_key`: what addresses a row whose key columns can't (`docs/types.md`, Keys).
//!
//! ```text
//!   key columns   3:1.02:ab                 length and text of each, in column order
//!   whole row     1:1:72:5:hello#6f0a…      the first bytes of attnum, length and text of each
//!                                           column that isn't NULL, and a hash over all of them
//! ```
//! The texts are Postgres's own, whichever form the value was sent in, so that COPY, a binary
//! stream and one in text mode give the same key, and values of different bytes give different keys
//! (case 68). A column that a row lacks and one that is NULL are the same, as they are in Postgres:
//! so a new column leaves the keys of older rows as they are.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use sha2::{Digest, Sha256};

use super::relation::{KeyForm, PgType, Relation};
use super::render::render;
use super::store::invalid_utf8;
use super::wire::{Field, Framing};
use crate::error::{Error, Result};

/// Bytes of a row's text that stand before its hash: rows that were written together have much in
/// common there, so that files can be skipped by their bounds.
const PREFIX_BYTES: usize = 16;
/// Bytes of the hash that are kept: 128 bits, written as hexadecimal digits.
const HASH_BYTES: usize = 16;

/// Makes the keys of one relation's tuples.
pub struct HiddenKey {
    /// In wire order, to the last that is needed; None: not part of the key.
    columns: Vec<Option<Part>>,
    whole_row: bool,
    keys: Vec<String>,
    /// The text of one value.
    text: Vec<u8>,
    /// The key in the making, or the beginning of the row's text.
    value: Vec<u8>,
    hash: Sha256,
}

struct Part {
    name: String,
    attnum: i16,
    pg_type: PgType,
}

impl HiddenKey {
    /// For tuples of `relation`; None where it has no hidden key.
    pub fn new(relation: &Relation) -> Option<Self> {
        let whole_row = match relation.key_form {
            KeyForm::Columns => return None,
            KeyForm::Hidden => false,
            KeyForm::WholeRow => true,
        };
        let part = |(at, column): (usize, &super::relation::Column)| {
            (whole_row || relation.key.binary_search(&at).is_ok()).then(|| Part {
                name: column.name.clone(),
                attnum: column.attnum,
                pg_type: column.pg_type.clone(),
            })
        };
        let mut columns: Vec<Option<Part>> =
            relation.columns.iter().enumerate().map(part).collect();
        while columns.last().is_some_and(Option::is_none) {
            columns.pop();
        }
        Some(Self {
            columns,
            whole_row,
            keys: Vec::new(),
            text: Vec::new(),
            value: Vec::new(),
            hash: Sha256::new(),
        })
    }

    /// Adds the keys of the tuples at `cursors`.
    ///
    /// # Errors
    /// `KEY_NULL`, `KEY_MISSING` where a value of the key is NULL or unchanged TOAST;
    /// `INVALID_UTF8`.
    pub(crate) fn fill<F: Framing>(&mut self, buf: &[u8], cursors: &[u32]) -> Result<()> {
        for &cursor in cursors {
            let key = self.key::<F>(buf, cursor)?;
            self.keys.push(key);
        }
        Ok(())
    }

    /// Takes the keys so far.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        Arc::new(StringArray::from(std::mem::take(&mut self.keys)))
    }

    fn key<F: Framing>(&mut self, buf: &[u8], mut cursor: u32) -> Result<String> {
        self.value.clear();
        for part in &self.columns {
            let field = F::next(buf, &mut cursor)?;
            let Some(part) = part else { continue };
            self.text.clear();
            let text = match field {
                Field::Null if self.whole_row => continue,
                Field::Null => return Err(lacking("KEY_NULL", "a key column is NULL", part)),
                Field::Unchanged => {
                    let what = "a value of the key arrived as unchanged TOAST";
                    return Err(lacking("KEY_MISSING", what, part));
                }
                Field::Text(text) => text,
                Field::Binary(text) if F::OPAQUE_IS_TEXT && !part.pg_type.has_binary_form() => text,
                Field::Binary(value) => {
                    render(&part.pg_type, value, &mut self.text)
                        .map_err(|e| e.with_column(&part.name))?;
                    &self.text
                }
            };
            if self.whole_row {
                let head = format!("{}:{}:", part.attnum, text.len());
                for bytes in [head.as_bytes(), text] {
                    self.hash.update(bytes);
                    let room = PREFIX_BYTES.saturating_sub(self.value.len());
                    self.value.extend(bytes.iter().take(room));
                }
            } else {
                self.value.extend_from_slice(format!("{}:", text.len()).as_bytes());
                self.value.extend_from_slice(text);
            }
        }
        if self.whole_row {
            return Ok(self.hashed());
        }
        String::from_utf8(self.value.clone()).map_err(invalid_utf8)
    }

    fn hashed(&mut self) -> String {
        let hash = self.hash.finalize_reset();
        let plain = self.value.iter().take_while(|byte| byte.is_ascii_graphic());
        let mut key: String = plain.map(|&byte| char::from(byte)).collect();
        key.push('#');
        for byte in hash.iter().take(HASH_BYTES) {
            for nibble in [byte >> 4, byte & 15] {
                key.extend(char::from_digit(u32::from(nibble), 16));
            }
        }
        key
    }
}

#[cold]
fn lacking(code: &'static str, what: &str, part: &Part) -> Error {
    Error::new(crate::error::Kind::Table, code, what).with_column(&part.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::relation::{Column, ReplicaIdentity};
    use crate::window::wire::{CopyTuple, WalTuple};

    fn relation(types: &[PgType], identity: ReplicaIdentity, key: Vec<usize>) -> Relation {
        let column = |(at, pg_type): (usize, &PgType)| Column {
            name: format!("c{at}"),
            attnum: i16::try_from(at + 1).unwrap(),
            type_oid: 0,
            typmod: -1,
            pg_type: pg_type.clone(),
            toastable: false,
            field_version: 0,
        };
        let columns: Vec<Column> = types.iter().enumerate().map(column).collect();
        Relation {
            oid: 1,
            namespace: "public".into(),
            name: "t".into(),
            rules: crate::window::rules::ValueRules::default(),
            key_form: KeyForm::of(&columns, &key, identity),
            columns,
            key,
            identity,
        }
    }

    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![kind];
        field.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        field.extend(value);
        field
    }

    fn key<F: Framing>(relation: &Relation, fields: &[Vec<u8>]) -> Result<String> {
        HiddenKey::new(relation).unwrap().key::<F>(&fields.concat(), 0)
    }

    /// Binary, text and COPY give one key.
    #[test]
    fn however_it_was_sent() {
        let relation =
            relation(&[PgType::Float8, PgType::Text], ReplicaIdentity::Default, vec![0, 1]);
        let negative_zero = (-0.0_f64).to_be_bytes();
        let binary = [field(b'b', &negative_zero), field(b'b', b"a:1")];
        assert_eq!(key::<WalTuple>(&relation, &binary).unwrap(), "2:-03:a:1");
        let text = [field(b't', b"-0"), field(b't', b"a:1")];
        assert_eq!(key::<WalTuple>(&relation, &text).unwrap(), "2:-03:a:1");
        let copied = binary.map(|field| field[1..].to_vec());
        assert_eq!(key::<CopyTuple>(&relation, &copied).unwrap(), "2:-03:a:1");
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let relation = relation(&[PgType::Float4], ReplicaIdentity::Default, vec![0]);
        let code = |kind: &[u8]| key::<WalTuple>(&relation, &[kind.to_vec()]).unwrap_err();
        assert_eq!(code(b"n").code(), "KEY_NULL");
        assert_eq!(code(b"u").code(), "KEY_MISSING");
        assert!(code(b"n").to_string().contains("c0"), "{}", code(b"n"));
    }

    #[test]
    fn rows_are_told_apart_by_every_value() {
        let types = [PgType::Text, PgType::Text, PgType::Text];
        let relation = relation(&types, ReplicaIdentity::Full, vec![]);
        let row = |values: [Option<&str>; 3]| {
            let one = |v: Option<&str>| v.map_or(b"n".to_vec(), |v| field(b't', v.as_bytes()));
            key::<WalTuple>(&relation, &values.map(one)).unwrap()
        };
        let rows = [
            row([Some("a"), Some("b"), None]),
            row([Some("a"), None, Some("b")]),
            row([Some("a"), Some("b"), Some("")]),
            row([Some(""), Some("ab"), None]),
            row([Some("a2:1:b"), None, None]),
            row([None, None, None]),
            row([Some("ä long value beyond"), None, None]),
        ];
        for (at, one) in rows.iter().enumerate() {
            assert!(rows[at + 1..].iter().all(|other| other != one), "{rows:?}");
        }
        assert!(rows[0].starts_with("1:1:a2:1:b#"), "{}", rows[0]);
        assert_eq!(rows[5].len(), 1 + 2 * HASH_BYTES, "{}", rows[5]);
    }

    /// The row's hash does not change when a column is added that it has no value in.
    #[test]
    fn a_new_column_leaves_older_rows_as_they_are() {
        let narrow = relation(&[PgType::Int2], ReplicaIdentity::Full, vec![]);
        let wide = relation(&[PgType::Int2, PgType::Text], ReplicaIdentity::Full, vec![]);
        let seven = field(b'b', &[0, 7]);
        let old = key::<WalTuple>(&narrow, std::slice::from_ref(&seven)).unwrap();
        assert_eq!(old, key::<WalTuple>(&wide, &[seven, b"n".to_vec()]).unwrap());
    }
}
