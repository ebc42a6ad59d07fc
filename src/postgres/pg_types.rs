//! From a column's type oid and modifier to how frazil stores it.
//!
//! Source of the rules: Postgres manual, `pg_type`; the mapping is `docs/types.md`. Domains go to
//! their base and its type modifier, enums and citext to text, arrays to their element; whatever
//! has no known binary form is opaque, and so is an array of it.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::server_error::from_sql;
use crate::window::relation::PgType;

/// `pg_type`, as far as the asked-for types reach.
#[derive(Debug, Clone, Default)]
pub struct PgTypes(HashMap<u32, TypeRow>);

/// One row of `pg_type`.
#[derive(Debug, Clone)]
struct TypeRow {
    name: String,
    /// `pg_type.typtype`: `b`, `d`, `e`, ...
    kind: String,
    /// A true array type: its element.
    element: Option<u32>,
    /// A domain: what it is made of.
    base: Option<(u32, i32)>,
    /// Made by Postgres itself, so the oid says what it is.
    built_in: bool,
}

/// The rows of `oids` and of everything they are made of.
pub async fn load_types(client: &Client, oids: impl Iterator<Item = u32>) -> Result<PgTypes> {
    let mut oids: Vec<u32> = oids.collect();
    oids.sort_unstable();
    oids.dedup();
    let rows = client.query(TYPES, &[&oids]).await.map_err(from_sql)?;
    let types = rows.iter().map(|row| {
        let (element, base): (u32, u32) = (row.get("element"), row.get("base"));
        let kind: String = row.get("kind");
        let type_row = TypeRow {
            name: row.get("name"),
            element: (element != 0 && row.get("is_array")).then_some(element),
            base: (kind == "d").then(|| (base, row.get("typmod"))),
            built_in: row.get("built_in"),
            kind,
        };
        (row.get("oid"), type_row)
    });
    Ok(PgTypes(types.collect()))
}

/// A true array is one whose element names it as its array type; `name`, `point` and the like have
/// a `typelem` too.
const TYPES: &str = "\
    WITH RECURSIVE made_of(oid) AS ( \
        SELECT unnest($1::oid[]) \
      UNION \
        SELECT part FROM made_of m JOIN pg_catalog.pg_type t ON t.oid = m.oid, \
               LATERAL (VALUES (t.typelem), (t.typbasetype)) AS parts(part) \
        WHERE part <> 0) \
    SELECT t.oid, t.typname::text AS name, t.typtype::text AS kind, t.typelem AS element, \
           t.typbasetype AS base, t.typtypmod AS typmod, \
           n.nspname = 'pg_catalog' AND t.oid < 16384 AS built_in, \
           EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem \
                    AND e.typarray = t.oid) \
             AS is_array \
    FROM made_of m JOIN pg_catalog.pg_type t ON t.oid = m.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace";

/// Domains over domains end sooner than this; a deeper chain is treated as unknown.
const DEPTH_MAX: usize = 32;

impl PgTypes {
    /// How a column of this type is stored.
    pub fn resolve(&self, oid: u32, typmod: i32) -> PgType {
        self.resolve_within(oid, typmod, DEPTH_MAX)
    }

    /// The type's name in `pg_type`, for messages.
    pub fn name(&self, oid: u32) -> &str {
        self.0.get(&oid).map_or("unknown", |row| &row.name)
    }

    fn resolve_within(&self, oid: u32, typmod: i32, depth: usize) -> PgType {
        let Some((row, depth)) = self.0.get(&oid).zip(depth.checked_sub(1)) else {
            return PgType::Opaque;
        };
        if let Some((base, base_typmod)) = row.base {
            return self.resolve_within(base, base_typmod, depth);
        }
        if let Some(element) = row.element {
            // The array's modifier is its element's. Arrays do not nest (a domain can make them).
            return match self.resolve_within(element, typmod, depth) {
                PgType::Opaque | PgType::Array(_) => PgType::Opaque,
                element => PgType::Array(Box::new(element)),
            };
        }
        match row.kind.as_str() {
            "e" => PgType::Text,
            "b" if row.built_in => scalar(oid, typmod),
            "b" if row.name == "citext" => PgType::Text,
            _ => PgType::Opaque,
        }
    }
}

/// Built-in types by oid (`pg_type.dat`), which are the same on every server.
fn scalar(oid: u32, typmod: i32) -> PgType {
    match oid {
        16 => PgType::Bool,
        17 => PgType::Bytea,
        20 => PgType::Int8,
        21 => PgType::Int2,
        23 => PgType::Int4,
        // oid, xid, cid
        26 | 28 | 29 => PgType::Oid,
        5069 => PgType::Xid8,
        700 => PgType::Float4,
        701 => PgType::Float8,
        1700 => numeric(typmod),
        // "char", name, text, json, xml, unknown, bpchar, varchar, refcursor
        18 | 19 | 25 | 114 | 142 | 705 | 1042 | 1043 | 1790 => PgType::Text,
        3802 => PgType::Jsonb,
        1082 => PgType::Date,
        1083 => PgType::Time,
        1266 => PgType::TimeTz,
        1114 => PgType::Timestamp,
        1184 => PgType::TimestampTz,
        1186 => PgType::Interval,
        2950 => PgType::Uuid,
        _ => PgType::Opaque,
    }
}

/// `numeric`'s type modifier: -1, or 4 + (precision << 16 | scale in 11 bits with a sign). A
/// negative scale widens the decimal, a scale above the precision is both (`numeric(3,5)`).
fn numeric(typmod: i32) -> PgType {
    const UNLIMITED: PgType = PgType::NumericText;
    let Some(packed) = typmod.checked_sub(4).filter(|packed| *packed >= 0) else {
        return UNLIMITED;
    };
    let precision = (packed >> 16) & 0xffff;
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    let (precision, scale) = match scale {
        ..0 => (precision - scale, 0),
        scale => (precision.max(scale), scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) => PgType::Numeric { precision, scale },
        _ => UNLIMITED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typmod(precision: i32, scale: i32) -> i32 {
        (precision << 16 | (scale & 0x7ff)) + 4
    }

    #[test]
    fn numeric_modifiers() {
        let of = |p, s| numeric(typmod(p, s));
        assert_eq!(of(12, 2), PgType::Numeric { precision: 12, scale: 2 });
        assert_eq!(of(3, -2), PgType::Numeric { precision: 5, scale: 0 });
        assert_eq!(of(3, 5), PgType::Numeric { precision: 5, scale: 5 });
        assert_eq!(of(38, 0), PgType::Numeric { precision: 38, scale: 0 });
        assert_eq!(of(39, 0), PgType::NumericText);
        assert_eq!(of(37, -2), PgType::NumericText);
        assert_eq!(of(1000, -1000), PgType::NumericText);
        assert_eq!(numeric(-1), PgType::NumericText);
        assert_eq!(numeric(i32::MIN), PgType::NumericText);
    }
}
