//! The `events` table of `bench/events.sql` as bytes on the wire, the same bytes every time: for
//! the instruction counts and the tests that count allocations.

use frazil::window::relation::{Column, KeyForm, PgType, Relation, ReplicaIdentity};
use frazil::window::rules::ValueRules;

/// `pg_class.oid`.
const OID: u32 = 16_384;
/// Changes of a source transaction.
const TRANSACTION: i64 = 1_000;
/// Updated rows are of before: their keys lie below the first new one.
const FIRST_NEW: i64 = 10_000_000;
/// Microseconds from 2000 to 2025.
const YEAR_2025_US: i64 = 788_918_400_000_000;

/// What a source transaction is made of, in a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Inserts only.
    Inserts,
    /// 667 inserts, 266 updates of old rows, 67 deletes of new ones: scenario `mixed`.
    Mixed,
}

/// The table.
pub fn relation() -> Relation {
    let decimal = PgType::Numeric { precision: 12, scale: 2 };
    let columns = [
        ("id", 20, PgType::Int8),
        ("user_id", 23, PgType::Int4),
        ("session_no", 23, PgType::Int4),
        ("qty", 23, PgType::Int4),
        ("amount", 1700, decimal),
        ("created_at", 1184, PgType::TimestampTz),
        ("updated_at", 1184, PgType::TimestampTz),
        ("name", 1043, PgType::Text),
        ("city", 1043, PgType::Text),
        ("active", 16, PgType::Bool),
    ];
    let column = |((name, type_oid, pg_type), attnum): ((&str, u32, PgType), i16)| Column {
        name: name.to_owned(),
        attnum,
        type_oid,
        typmod: -1,
        toastable: matches!(type_oid, 1700 | 1043),
        pg_type,
        field_version: 0,
    };
    Relation {
        rules: ValueRules::default(),
        oid: OID,
        namespace: "public".to_owned(),
        name: "events".to_owned(),
        columns: columns.into_iter().zip(1..).map(column).collect(),
        key: vec![0],
        identity: ReplicaIdentity::Default,
        key_form: KeyForm::Columns,
    }
}

/// XLogData messages with at least `changes` changes in whole source transactions.
pub fn frames(mix: Mix, changes: i64) -> Vec<u8> {
    let mut out = Vec::new();
    for transaction in 0..changes / TRANSACTION {
        let lsn = (transaction + 1) * 1_000_000;
        frame(&mut out, lsn, &begin(lsn));
        for nth in 0..TRANSACTION {
            frame(&mut out, lsn + nth, &change(mix, transaction, nth));
        }
        let end = [&b"C\0"[..], &lsn.to_be_bytes(), &(lsn + 1).to_be_bytes(), &[0; 8]];
        frame(&mut out, lsn, &end.concat());
    }
    out
}

fn begin(lsn: i64) -> Vec<u8> {
    [&b"B"[..], &lsn.to_be_bytes(), &[0; 8], &[0, 0, 2, 0xee]].concat()
}

fn change(mix: Mix, transaction: i64, nth: i64) -> Vec<u8> {
    let inserts = if mix == Mix::Inserts { TRANSACTION } else { 667 };
    let first = FIRST_NEW + transaction * inserts;
    let oid = OID.to_be_bytes();
    let wal =
        |key| tuple(key, |value| value.map_or(b"n".to_vec(), |v| [b"b", &*sized(v)].concat()));
    match nth {
        _ if nth < inserts => [&b"I"[..], &oid, b"N", &wal(first + nth)].concat(),
        667..933 => {
            let old = 1 + (transaction * 266 + nth - 667) * 7919 % (FIRST_NEW - 1);
            [&b"U"[..], &oid, b"N", &wal(old)].concat()
        }
        _ => {
            let key = sized(&(first + (nth - 933) * 3).to_be_bytes());
            [&b"D"[..], &oid, b"K\0\x0ab", &key, b"nnnnnnnnn"].concat()
        }
    }
}

/// CopyData messages of a whole COPY (FORMAT binary), up to ReadyForQuery.
pub fn copy(rows: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let header = [&b"PGCOPY\n\xff\r\n\0"[..], &[0; 8]].concat();
    for key in 1..=rows {
        let row = tuple(key, |value| value.map_or(vec![0xff; 4], sized));
        let header: &[u8] = if key == 1 { &header } else { &[] };
        message(&mut out, b'd', &[header, &row].concat());
    }
    message(&mut out, b'd', &[0xff, 0xff]);
    message(&mut out, b'c', &[]);
    message(&mut out, b'C', b"COPY\0");
    message(&mut out, b'Z', b"I");
    out
}

/// Count of fields, and the fields of row `g` as `field` frames them.
fn tuple(g: i64, field: impl Fn(Option<&[u8]>) -> Vec<u8>) -> Vec<u8> {
    let int = |n: i64| i32::try_from(n).unwrap().to_be_bytes();
    let time = |step_us: i64| (YEAR_2025_US + g * step_us).to_be_bytes();
    let qty = int(g % 500);
    let name = format!("customer-{:.21}", digest(g % 200_000));
    let city = format!("city-of-{:.22}", digest(g % 5_000));
    let fields: [Option<&[u8]>; 10] = [
        Some(&g.to_be_bytes()),
        Some(&int(g * 7919 % 1_000_003)),
        Some(&int(g * 31 % 100_000)),
        (g % 10 != 0).then_some(&qty),
        Some(&numeric(g * 104_729 % 100_000_000)),
        Some(&time(731_000)),
        Some(&time(517_000)),
        Some(name.as_bytes()),
        Some(city.as_bytes()),
        Some(&[u8::from(g % 3 == 0)]),
    ];
    let count = [0, 10];
    fields.iter().fold(count.to_vec(), |out, value| [out, field(*value)].concat())
}

fn sized(v: &[u8]) -> Vec<u8> {
    [&u32::try_from(v.len()).unwrap().to_be_bytes(), v].concat()
}

/// `numeric_send` of `cents` / 100: groups of four places, without those that are zero at the ends.
fn numeric(cents: i64) -> Vec<u8> {
    let groups = [cents / 1_000_000, cents / 100 % 10_000, cents % 100 * 100];
    let first = groups.iter().position(|&g| g > 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|&g| g > 0).map_or(first, |last| last + 1);
    let weight = if first == last { 0 } else { 1 - i64::try_from(first).unwrap() };
    let count = i64::try_from(last - first).unwrap();
    let head = [count, weight, 0, 2].into_iter();
    let places = groups.into_iter().skip(first).take(last - first);
    head.chain(places).flat_map(|n| i16::try_from(n).unwrap().to_be_bytes()).collect()
}

/// 32 hexadecimal places that look like chance.
fn digest(n: i64) -> String {
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    let seed = n.unsigned_abs().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}{:016x}", mix(seed), mix(seed ^ u64::MAX))
}

fn frame(out: &mut Vec<u8>, lsn: i64, body: &[u8]) {
    message(
        out,
        b'd',
        &[&b"w"[..], &lsn.to_be_bytes(), &lsn.to_be_bytes(), &[0; 8], body].concat(),
    );
}

fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
}
