//! From a column's type oid and modifier to how frazil stores it.
//!
//! Source of the rules: Postgres manual, `pg_type`; the mapping is `docs/types.md`. Domains go to
//! their base and its type modifier, enums and citext to text, arrays to their element; whatever
//! has no known binary form is opaque, and so is an array of it.

use std::collections::HashMap;

use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::error::{Error, Result};
use crate::postgres::server_error::from_sql;
use crate::postgres::session::PIN_MONETARY;
use crate::window::relation::{Attribute, PgType, TextForm};

/// `pg_type`, as far as the asked-for types reach.
#[derive(Debug, Clone, Default)]
pub struct PgTypes {
    types: HashMap<u32, TypeRow>,
    /// Digits after the point of `money`.
    money_scale: i8,
    /// The database is SQL_ASCII: the server knows nothing of the encoding of its texts.
    pub(crate) unchecked_encoding: bool,
}

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
    /// A range or multirange: what it is over.
    subtype: Option<u32>,
    /// A composite type: its attributes by name, type and type modifier.
    attributes: Vec<(String, u32, i32)>,
    /// Made by Postgres itself, so the oid says what it is.
    built_in: bool,
    /// The extension that made it.
    extension: Option<String>,
}

/// The rows of `oids` and of everything they are made of; `version`: `server_version_num`.
pub async fn load_types(
    client: &Client,
    version: u32,
    oids: impl Iterator<Item = u32>,
) -> Result<PgTypes> {
    let mut oids: Vec<u32> = oids.collect();
    oids.sort_unstable();
    oids.dedup();
    // Multiranges came with 14.
    let multirange = if version >= 140_000 { " OR r.rngmultitypid = t.oid" } else { "" };
    let sql = TYPES.replace("/* or multirange */", multirange);
    let rows = client.query(&sql, &[&oids]).await.map_err(from_sql)?;
    let types: HashMap<u32, TypeRow> =
        rows.iter().map(|row| (row.get("oid"), type_row(row))).collect();
    let has_money = types.contains_key(&MONEY);
    let money_scale = if has_money { money_scale(client).await? } else { 0 };
    let unchecked_encoding = has_unchecked_encoding(client).await?;
    Ok(PgTypes { types, money_scale, unchecked_encoding })
}

async fn has_unchecked_encoding(client: &Client) -> Result<bool> {
    let sql = "SELECT pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'";
    Ok(client.query_one(sql, &[]).await.map_err(from_sql)?.get(0))
}

fn type_row(row: &Row) -> TypeRow {
    let (element, base): (u32, u32) = (row.get("element"), row.get("base"));
    let kind: String = row.get("kind");
    let (names, oids): (Vec<String>, Vec<u32>) = (row.get("names"), row.get("oids"));
    let attributes = names.into_iter().zip(oids).zip(row.get::<_, Vec<i32>>("typmods"));
    TypeRow {
        name: row.get("name"),
        element: (element != 0 && row.get("is_array")).then_some(element),
        base: (kind == "d").then(|| (base, row.get("typmod"))),
        subtype: row.get("subtype"),
        attributes: attributes.map(|((name, oid), typmod)| (name, oid, typmod)).collect(),
        built_in: row.get("built_in"),
        extension: row.get("extension"),
        kind,
    }
}

const MONEY: u32 = 790;

/// How many places `money` has after its point: those of the `lc_monetary` that the database has
/// for us, which is pinned to another one for the sake of the text form. A whole unit is that power
/// of ten on the wire.
async fn money_scale(client: &Client) -> Result<i8> {
    let sql = format!(
        "RESET lc_monetary; SELECT pg_catalog.encode(pg_catalog.cash_send(1::int4::money), 'hex'); \
         {PIN_MONETARY}"
    );
    let answers = client.simple_query(&sql).await.map_err(from_sql)?;
    let unit = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => i64::from_str_radix(row.get(0)?, 16).ok(),
        _ => None,
    });
    let scale = unit.and_then(i64::checked_ilog10).and_then(|scale| i8::try_from(scale).ok());
    scale.ok_or_else(|| Error::fatal("MONEY_SCALE", "the server has no unit of money"))
}

/// A true array is one whose element names it as its array type; `name`, `point` and the like have
/// a `typelem` too.
const TYPES: &str = "\
    WITH RECURSIVE made_of(oid) AS ( \
        SELECT unnest($1::oid[]) \
      UNION \
        SELECT part FROM made_of m JOIN pg_catalog.pg_type t ON t.oid = m.oid, \
               LATERAL (SELECT t.typelem UNION ALL SELECT t.typbasetype \
                 UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                   WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 \
                     AND NOT a.attisdropped \
                 UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r \
                   WHERE r.rngtypid = t.oid/* or multirange */) AS parts(part) \
        WHERE part <> 0) \
    SELECT t.oid, t.typname::text AS name, t.typtype::text AS kind, t.typelem AS element, \
           t.typbasetype AS base, t.typtypmod AS typmod, \
           n.nspname = 'pg_catalog' AND t.oid < 16384 AS built_in, \
           EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem \
                    AND e.typarray = t.oid) \
             AS is_array, \
           (SELECT r.rngsubtype FROM pg_catalog.pg_range r \
             WHERE r.rngtypid = t.oid/* or multirange */) AS subtype, \
           (SELECT e.extname::text FROM pg_catalog.pg_depend d \
              JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
             WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid \
               AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e') \
             AS extension, \
           c.names, c.oids, c.typmods \
    FROM made_of m JOIN pg_catalog.pg_type t ON t.oid = m.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace, \
    LATERAL (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names, \
                    coalesce(array_agg(a.atttypid ORDER BY a.attnum), '{}') AS oids, \
                    coalesce(array_agg(a.atttypmod ORDER BY a.attnum), '{}') AS typmods \
             FROM pg_catalog.pg_attribute a \
             WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 \
               AND NOT a.attisdropped) AS c";

/// Domains over domains end sooner than this; a deeper chain is treated as unknown.
const DEPTH_MAX: usize = 32;

impl PgTypes {
    /// How a column of this type is stored.
    pub fn resolve(&self, oid: u32, typmod: i32) -> PgType {
        self.resolve_within(oid, typmod, DEPTH_MAX)
    }

    /// The type's name in `pg_type`, for messages.
    pub fn name(&self, oid: u32) -> &str {
        self.types.get(&oid).map_or("unknown", |row| &row.name)
    }

    /// The oid and type modifier of what a domain comes down to; of any other type, its own.
    pub(crate) fn base(&self, oid: u32, typmod: i32) -> (u32, i32) {
        let mut at = (oid, typmod);
        for _ in 0..DEPTH_MAX {
            match self.types.get(&at.0).and_then(|row| row.base) {
                Some(base) => at = base,
                None => break,
            }
        }
        at
    }

    fn resolve_within(&self, oid: u32, typmod: i32, depth: usize) -> PgType {
        let Some((row, depth)) = self.types.get(&oid).zip(depth.checked_sub(1)) else {
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
        match (row.kind.as_str(), row.subtype) {
            ("e", _) => PgType::Text,
            ("r", Some(over)) => {
                PgType::written(TextForm::Range(self.resolve_within(over, -1, depth)))
            }
            ("m", Some(over)) => {
                PgType::written(TextForm::Multirange(self.resolve_within(over, -1, depth)))
            }
            ("c", _) => PgType::Composite(self.attributes(row, depth)),
            ("b", _) if oid == MONEY => PgType::Money { scale: self.money_scale },
            ("b", _) if row.built_in => scalar(oid, typmod),
            ("b", _) => of_extension(row, typmod),
            _ => PgType::Opaque,
        }
    }

    fn attributes(&self, row: &TypeRow, depth: usize) -> Vec<Attribute> {
        let attribute = |(name, type_oid, typmod): &(String, u32, i32)| Attribute {
            name: name.clone(),
            type_oid: *type_oid,
            pg_type: self.resolve_within(*type_oid, *typmod, depth),
        };
        row.attributes.iter().map(attribute).collect()
    }
}

/// Types that have no oid of their own for ever.
fn of_extension(row: &TypeRow, typmod: i32) -> PgType {
    match (row.extension.as_deref(), row.name.as_str()) {
        (Some("citext"), "citext") => PgType::Text,
        (Some("hstore"), "hstore") => PgType::Hstore,
        (Some("ltree"), "ltree" | "lquery" | "ltxtquery") => PgType::written(TextForm::Versioned),
        (Some("vector"), "vector") => PgType::Vector,
        (Some("vector"), "halfvec") => PgType::HalfVector,
        (Some("vector"), "sparsevec") => PgType::written(TextForm::SparseVector),
        (Some("postgis"), "geometry" | "geography") => PgType::Geometry { srid: srid(typmod) },
        _ => PgType::Opaque,
    }
}

/// PostGIS's type modifier: the SRID has 21 bits with a sign, above 8 for kind and dimensions
/// (libpgcommon/lwgeom_pg.h, `TYPMOD_GET_SRID`). 0: any SRID.
fn srid(typmod: i32) -> Option<i32> {
    let packed = Some(typmod).filter(|typmod| *typmod >= 0)?;
    let srid = ((packed & 0x0fff_ff00) - (packed & 0x1000_0000)) >> 8;
    Some(srid).filter(|srid| *srid > 0)
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
        // "char", name, text, xml, unknown, bpchar, varchar, refcursor
        18 | 19 | 25 | 142 | 705 | 1042 | 1043 | 1790 => PgType::Text,
        114 => PgType::Json,
        3802 => PgType::Jsonb,
        1082 => PgType::Date,
        1083 => PgType::Time,
        1266 => PgType::TimeTz,
        1114 => PgType::Timestamp,
        1184 => PgType::TimestampTz,
        1186 => PgType::Interval,
        2950 => PgType::Uuid,
        600 => PgType::Point,
        _ => form(oid).map_or(PgType::Opaque, PgType::written),
    }
}

fn form(oid: u32) -> Option<TextForm> {
    Some(match oid {
        22 => TextForm::Words(PgType::Int2),
        30 => TextForm::Words(PgType::Oid),
        27 => TextForm::Tid,
        601 => TextForm::Segment,
        602 => TextForm::Path,
        603 => TextForm::Box,
        604 => TextForm::Polygon,
        628 => TextForm::Line,
        718 => TextForm::Circle,
        // cidr, inet
        650 | 869 => TextForm::Network,
        // macaddr8, macaddr
        774 | 829 => TextForm::Mac,
        // bit, varbit
        1560 | 1562 => TextForm::Bits,
        // txid_snapshot, pg_snapshot
        2970 | 5038 => TextForm::Snapshot,
        3220 => TextForm::Lsn,
        3614 => TextForm::TsVector,
        3615 => TextForm::TsQuery,
        4072 => TextForm::Versioned,
        _ => return None,
    })
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
    fn srids() {
        assert_eq!(srid(-1), None);
        assert_eq!(srid(4), None, "geometry(Point)");
        assert_eq!(srid((4326 << 8) + 4), Some(4326));
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
