//! What the user says of types: another lake type for a column, and what happens to values that
//! their column's lake type can't hold (`docs/types.md`).

use std::collections::BTreeMap;

use crate::window::relation::{PgType, Relation, TextForm};

/// What happens to a value that its column's lake type can't hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unrepresentable {
    /// The column has NULL, `_pg_raw` the Postgres text.
    #[default]
    Raw,
    /// The table stops (`UNREPRESENTABLE`).
    Error,
    /// The nearest value that it can hold; dates and timestamps within the years 1 to 9999, which
    /// every reader knows. Where there is none (NaN, the shape of an array): as [`Self::Raw`].
    Clamp,
}

impl Unrepresentable {
    /// `raw`, `error`, `clamp`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "raw" => Some(Self::Raw),
            "error" => Some(Self::Error),
            "clamp" => Some(Self::Clamp),
            _ => None,
        }
    }
}

/// How the values of one table are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValueRules {
    /// Values without a place in their column.
    pub unrepresentable: Unrepresentable,
    /// The database is SQL_ASCII: texts may be no UTF-8 (case 58).
    pub unchecked_encoding: bool,
}

/// Another lake type for a column than the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// `decimal(p,s)`: of numeric, and of the elements of its arrays
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// `string`: of any type, its Postgres text
    String,
    /// `struct`: of composite types and ranges
    Struct,
    /// `boolean`: of bit(1)
    Boolean,
    /// `trim`: of char(n)
    Trim,
    /// `iso8601`: of interval
    Iso8601,
    /// `list<list>`: of arrays, with this many dimensions
    Lists(u8),
}

/// The most dimensions of an array in Postgres.
const DIMENSIONS_MAX: usize = 6;

/// `bpchar`
const BPCHAR: u32 = 1042;
/// `bit`
const BIT: u32 = 1560;

impl Override {
    /// As it is written in the settings. The error says why it isn't one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        match compact.as_str() {
            "string" => return Ok(Self::String),
            "struct" => return Ok(Self::Struct),
            "boolean" => return Ok(Self::Boolean),
            "trim" => return Ok(Self::Trim),
            "iso8601" => return Ok(Self::Iso8601),
            _ => {}
        }
        if let Some(inside) = compact.strip_prefix("decimal(").and_then(|t| t.strip_suffix(')')) {
            return decimal(inside);
        }
        if compact.starts_with("list") {
            return lists(&compact);
        }
        Err("is none of string, struct, boolean, trim, iso8601, decimal(p,s), list<list>".into())
    }

    /// The lake type of a column that would be `plain`, whose type comes down to the oid `base`
    /// with `typmod`. The error says why it can't have this one.
    pub fn apply(self, plain: PgType, base: u32, typmod: i32) -> Result<PgType, &'static str> {
        match (self, plain) {
            (Self::String, PgType::Numeric { .. }) => Ok(PgType::NumericText),
            (Self::String, plain) if is_text(&plain) => Ok(plain),
            (Self::String, plain) => Ok(PgType::AsText(Box::new(plain))),
            (Self::Decimal { precision, scale }, plain) => decimal_of(plain, precision, scale),
            (Self::Struct, PgType::Composite(attributes)) => Ok(PgType::Struct(attributes)),
            (Self::Struct, PgType::Written(form)) => match *form {
                TextForm::Range(element) => Ok(PgType::RangeStruct(Box::new(element))),
                _ => Err("only a composite type or a range can be a struct"),
            },
            (Self::Struct, _) => Err("only a composite type or a range can be a struct"),
            (Self::Boolean, _) if base == BIT && typmod == 1 => Ok(PgType::BitBoolean),
            (Self::Boolean, _) => Err("only bit(1) can be a boolean"),
            (Self::Trim, _) if base == BPCHAR => Ok(PgType::Trimmed),
            (Self::Trim, _) => Err("only char(n) can be trimmed"),
            (Self::Iso8601, PgType::Interval) => Ok(PgType::IntervalIso),
            (Self::Iso8601, _) => Err("only an interval can be ISO 8601 text"),
            (Self::Lists(depth), PgType::Array(element)) => Ok(PgType::Nested(element, depth)),
            (Self::Lists(_), _) => Err("only an array can be a list of lists"),
        }
    }
}

fn decimal_of(plain: PgType, precision: u8, scale: i8) -> Result<PgType, &'static str> {
    match plain {
        PgType::Numeric { .. } | PgType::NumericText => Ok(PgType::Numeric { precision, scale }),
        PgType::Array(element) => {
            Ok(PgType::Array(Box::new(decimal_of(*element, precision, scale)?)))
        }
        _ => Err("only a numeric can be a decimal"),
    }
}

/// Whether it is stored as exactly its Postgres text already.
fn is_text(t: &PgType) -> bool {
    matches!(
        t,
        PgType::Text
            | PgType::Json
            | PgType::Jsonb
            | PgType::TimeTz
            | PgType::NumericText
            | PgType::Written(_)
            | PgType::Opaque
    )
}

fn decimal(inside: &str) -> Result<Override, String> {
    let numbers = inside.split_once(',').and_then(|(p, s)| p.parse().ok().zip(s.parse().ok()));
    match numbers {
        Some((precision @ 1..=38, scale @ 0..=38)) if i16::from(precision) >= i16::from(scale) => {
            Ok(Override::Decimal { precision, scale })
        }
        Some(_) => {
            Err("is no decimal: 1 to 38 digits, of which so many stand behind the point".to_owned())
        }
        None => Err("is not written as decimal(38,9)".to_owned()),
    }
}

fn lists(text: &str) -> Result<Override, String> {
    let depth = text.matches("list").count();
    let inside = format!("{}list", "list<".repeat(depth.saturating_sub(1)));
    let close = ">".repeat(depth.saturating_sub(1));
    let well_formed =
        [format!("{inside}{close}"), format!("{inside}<..>{close}")].contains(&text.to_owned());
    match u8::try_from(depth) {
        Ok(depth) if well_formed && (2..=DIMENSIONS_MAX).contains(&usize::from(depth)) => {
            Ok(Override::Lists(depth))
        }
        _ => Err("is not written as list<list> with 2 to 6 dimensions".to_owned()),
    }
}

/// All of it: what the settings say of types.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeRules {
    /// By schema, table and column.
    pub overrides: BTreeMap<[String; 3], Override>,
    /// Of every table ...
    pub unrepresentable: Unrepresentable,
    /// ... but of these, by schema and table.
    pub tables: BTreeMap<[String; 2], Unrepresentable>,
}

impl TypeRules {
    /// What is said of a column.
    pub fn of_column(&self, namespace: &str, table: &str, column: &str) -> Option<Override> {
        self.overrides.get(&[namespace, table, column].map(str::to_owned)).copied()
    }

    /// What the settings name and `relations` don't have, as `schema.table[.column]`.
    pub fn unmatched<'a, I: Iterator<Item = &'a Relation>>(
        &self,
        relations: impl Fn() -> I,
    ) -> Vec<String> {
        let table =
            |r: &Relation, namespace: &str, name: &str| r.namespace == namespace && r.name == name;
        let has_column = |[namespace, name, column]: &&[String; 3]| {
            let mut relations = relations().filter(|r| table(r, namespace, name));
            relations.any(|r| r.columns.iter().any(|c| c.name == *column))
        };
        let columns = self.overrides.keys().filter(|place| !has_column(place));
        let has_table =
            |[namespace, name]: &&[String; 2]| relations().any(|r| table(r, namespace, name));
        let tables = self.tables.keys().filter(|place| !has_table(place));
        columns.map(|place| place.join(".")).chain(tables.map(|place| place.join("."))).collect()
    }

    /// What is said of a table.
    pub fn of_table(&self, namespace: &str, table: &str) -> Unrepresentable {
        let named = self.tables.get(&[namespace, table].map(str::to_owned));
        named.copied().unwrap_or(self.unrepresentable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let decimal = Override::Decimal { precision: 38, scale: 9 };
        assert_eq!(Override::parse("decimal(38, 9)"), Ok(decimal));
        assert_eq!(Override::parse("list<list>"), Ok(Override::Lists(2)));
        assert_eq!(Override::parse("list<list<list<..>>>"), Ok(Override::Lists(3)));
        let bad = [
            "decimal",
            "decimal(39,0)",
            "decimal(5,6)",
            "decimal(5)",
            "decimal(0,0)",
            "list",
            "list<list",
            "list<list<int>>",
            "list<list>>",
            "text",
            "",
            "list<list<list<list<list<list<list>>>>>>",
        ];
        for text in bad {
            assert!(Override::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_type_that_does_not_fit_is_refused() {
        let numeric = || PgType::NumericText;
        assert!(Override::Boolean.apply(PgType::written(TextForm::Bits), BIT, 1).is_ok());
        assert!(Override::Boolean.apply(PgType::written(TextForm::Bits), BIT, 2).is_err());
        assert!(Override::Trim.apply(PgType::Text, 25, -1).is_err());
        assert!(Override::Struct.apply(numeric(), 1700, -1).is_err());
        assert!(Override::Lists(2).apply(numeric(), 1700, -1).is_err());
        let decimal = Override::Decimal { precision: 9, scale: 2 };
        assert!(decimal.apply(PgType::Float8, 701, -1).is_err());
    }
}
