//! Random values of every type, by all ways, with Postgres as the oracle. `FRAZIL_SEED` replays.

use frazil::window::relation::{PgType, TextForm};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::oracle::{Case, check};
use super::postgres::with_postgres;
use crate::support::servers;

const VALUES_PER_TYPE: usize = 400;

#[test]
fn random_values_are_exact_or_raw() {
    if servers::is_before(15, "what the oracle is asked with") {
        return;
    }
    let seed = std::env::var("FRAZIL_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("FRAZIL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    with_postgres(async |client| {
        for (sql, pg_type, one) in types() {
            let values = (0..VALUES_PER_TYPE).map(|_| some(&mut rng, one)).collect();
            check(&client, &Case { sql: sql.to_owned(), pg_type: pg_type.clone(), values }).await;
            let values =
                (0..VALUES_PER_TYPE).map(|_| Some(array(&mut rng, &pg_type, one))).collect();
            let pg_type = PgType::Array(Box::new(pg_type));
            check(&client, &Case { sql: format!("{sql}[]"), pg_type, values }).await;
        }
    });
}

/// The literal of a random value.
type One = fn(&mut StdRng) -> String;

fn types() -> Vec<(&'static str, PgType, One)> {
    let decimal = |precision, scale| PgType::Numeric { precision, scale };
    vec![
        ("bool", PgType::Bool, |r| r.random::<bool>().to_string()),
        ("int2", PgType::Int2, |r| r.random::<i16>().to_string()),
        ("int4", PgType::Int4, |r| r.random::<i32>().to_string()),
        ("int8", PgType::Int8, |r| (r.random::<i64>() >> r.random_range(0..64)).to_string()),
        ("oid", PgType::Oid, |r| r.random::<u32>().to_string()),
        ("xid8", PgType::Xid8, |r| r.random::<u64>().to_string()),
        ("float4", PgType::Float4, float4),
        ("float8", PgType::Float8, float8),
        ("numeric(38,0)", decimal(38, 0), |r| digits(r, 38, 3)),
        ("numeric(38,19)", decimal(38, 19), |r| digits(r, 19, 22)),
        ("numeric(18,4)", decimal(18, 4), |r| digits(r, 14, 4)),
        ("numeric(38,37)", decimal(38, 37), |r| digits(r, 1, 37)),
        ("numeric", decimal(9, 3), |r| digits(r, 7, 4)),
        ("numeric", decimal(38, 2), |r| digits(r, 40, 6)),
        ("numeric", PgType::NumericText, |r| digits(r, 60, 60)),
        ("text", PgType::Text, text),
        ("jsonb", PgType::Jsonb, |r| serde_json::Value::String(text(r)).to_string()),
        ("bytea", PgType::Bytea, bytea),
        ("uuid", PgType::Uuid, |r| format!("{:032x}", r.random::<u128>())),
        ("date", PgType::Date, date),
        ("time", PgType::Time, time),
        ("timetz", PgType::TimeTz, |r| time(r) + &zone(r)),
        ("timestamp", PgType::Timestamp, |r| timestamp(r, "")),
        ("timestamptz", PgType::TimestampTz, |r| {
            let zone = zone(r);
            timestamp(r, &zone)
        }),
        ("interval", PgType::Interval, interval),
        ("money", PgType::Money { scale: 2 }, |r| {
            let cents = r.random::<i64>() >> r.random_range(0..64);
            let sign = if cents < 0 { "-" } else { "" };
            let cents = cents.unsigned_abs();
            format!("{sign}{}.{:02}", cents / 100, cents % 100)
        }),
        ("point", PgType::Point, point),
        ("box", PgType::written(TextForm::Box), |r| format!("{},{}", point(r), point(r))),
        ("path", PgType::written(TextForm::Path), |r| format!("[{},{}]", point(r), point(r))),
        ("varbit", PgType::written(TextForm::Bits), |r| {
            (0..r.random_range(0..40)).map(|_| if r.random() { '1' } else { '0' }).collect()
        }),
        ("inet", PgType::written(TextForm::Network), network),
        ("macaddr8", PgType::written(TextForm::Mac), |r| format!("{:016x}", r.random::<u64>())),
        ("pg_lsn", PgType::written(TextForm::Lsn), |r| {
            format!("{:X}/{:X}", r.random::<u32>(), r.random::<u32>() >> r.random_range(0..32))
        }),
        ("tid", PgType::written(TextForm::Tid), |r| {
            format!("({},{})", r.random::<u32>(), r.random::<u16>())
        }),
        ("int8range", PgType::written(TextForm::Range(PgType::Int8)), |r| {
            let (a, b): (i32, i32) = (r.random(), r.random());
            format!("[{},{}]", a.min(b), a.max(b))
        }),
        ("numrange", PgType::written(TextForm::Range(PgType::NumericText)), |r| {
            let a = r.random_range(-99_999..99_999);
            format!("({a}.5{:0>1$},{2}.10)", "", r.random_range(0..5), a + 1)
        }),
        ("tsvector", PgType::written(TextForm::TsVector), lexemes),
    ]
}

fn point(r: &mut StdRng) -> String {
    format!("({},{})", float8(r), float8(r))
}

/// Either family, with runs of zeros, which are shortened.
fn network(r: &mut StdRng) -> String {
    if r.random() {
        return format!(
            "{}/{}",
            std::net::Ipv4Addr::from(r.random::<u32>()),
            r.random_range(0..33)
        );
    }
    let groups = (0..8)
        .map(|_| if r.random() { "0".to_owned() } else { format!("{:x}", r.random::<u16>()) });
    format!("{}/{}", groups.collect::<Vec<_>>().join(":"), r.random_range(0..129))
}

/// Words of any characters, some with positions and weights.
fn lexemes(r: &mut StdRng) -> String {
    let word = |r: &mut StdRng| {
        let text = format!("w{}", text(r)).replace('\\', "\\\\").replace('\'', "''");
        let weight = ["", "A", "B", "C"][r.random_range(0..4)];
        let place = if r.random() {
            format!(":{}{weight}", r.random_range(1..16_384))
        } else {
            String::new()
        };
        format!("'{text}'{place}")
    };
    (0..r.random_range(0..5)).map(|_| word(r)).collect::<Vec<_>>().join(" ")
}

fn some(r: &mut StdRng, one: One) -> Option<String> {
    (r.random_range(0..10) > 0).then(|| one(r))
}

/// A literal with every element in quotes; a few in other shapes than a list.
fn array(r: &mut StdRng, t: &PgType, one: One) -> String {
    let delimiter = char::from(t.delimiter()).to_string();
    let mut list = |length: usize| {
        let element = |r: &mut StdRng| match some(r, one) {
            Some(v) => format!("\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")),
            None => "NULL".to_owned(),
        };
        let elements: Vec<_> = (0..length).map(|_| element(r)).collect();
        format!("{{{}}}", elements.join(&delimiter))
    };
    let (a, b) = (list(3), list(3));
    match r.random_range(0..10) {
        0 => format!("{{{a}{delimiter}{b}}}"),
        1 => format!("[-1:1]={a}"),
        2 => "{}".to_owned(),
        3 => format!("[5:5][1:3]={{{a}}}"),
        _ => a,
    }
}

/// Any bits, or few digits far from the point, where readers round.
fn float8(r: &mut StdRng) -> String {
    let few = format!("{}e{}", r.random_range(1..2000), r.random_range(-30..40));
    let bits = f64::from_bits(r.random());
    if r.random() || bits.is_nan() { few } else { format!("{bits:e}").replace("inf", "Infinity") }
}

fn float4(r: &mut StdRng) -> String {
    let few = format!("{}e{}", r.random_range(1..2000), r.random_range(-30..30));
    let bits = f32::from_bits(r.random());
    if r.random() || bits.is_nan() { few } else { format!("{bits:e}").replace("inf", "Infinity") }
}

/// Up to so many digits before and after the point; zeros are frequent at both ends.
fn digits(r: &mut StdRng, before: usize, after: usize) -> String {
    if r.random_range(0..50) == 0 {
        return "NaN".to_owned();
    }
    let mut run = |most: usize| {
        let (zeros, any) = (r.random_range(0..=most), r.random_range(0..=most));
        let digits = (0..any.min(most - zeros)).map(|_| char::from(b'0' + r.random_range(0..10)));
        let digits: String = digits.collect();
        if r.random() { digits + &"0".repeat(zeros) } else { "0".repeat(zeros) + &digits }
    };
    let (before, after) = (run(before), run(after));
    let sign = if r.random() { "-" } else { "" };
    format!("{sign}0{before}.{after}0")
}

fn text(r: &mut StdRng) -> String {
    let special = ['"', '\\', '{', '}', ',', ' ', '\n', '\u{b}', '\'', 'é', '\u{1F600}', 'a', 'N'];
    (0..r.random_range(0..12)).map(|_| special[r.random_range(0..special.len())]).collect()
}

fn bytea(r: &mut StdRng) -> String {
    let bytes = (0..r.random_range(0..20)).map(|_| format!("{:02x}", r.random::<u8>()));
    format!("\\x{}", bytes.collect::<String>())
}

fn day(r: &mut StdRng, last_year: i32) -> (String, &'static str) {
    let year = if r.random() { r.random_range(1..=last_year) } else { r.random_range(1..=4713) };
    let era = if year < 4713 && r.random() { " BC" } else { "" };
    (format!("{year:04}-{:02}-{:02}", r.random_range(1..=12), r.random_range(1..=28)), era)
}

fn date(r: &mut StdRng) -> String {
    let (day, era) = day(r, 5_874_896);
    if r.random_range(0..50) == 0 { "infinity".to_owned() } else { day + era }
}

fn time(r: &mut StdRng) -> String {
    let micros = r.random_range(0..1_000_000);
    let fraction = if r.random() { micros } else { micros / 1000 * 1000 };
    let (h, m, s) = (r.random_range(0..24), r.random_range(0..60), r.random_range(0..60));
    format!("{h:02}:{m:02}:{s:02}.{fraction:06}")
}

fn zone(r: &mut StdRng) -> String {
    let sign = if r.random() { '+' } else { '-' };
    match r.random_range(0..3) {
        0 => format!("{sign}{:02}", r.random_range(0..16)),
        1 => format!("{sign}{:02}:{:02}", r.random_range(0..16), r.random_range(0..60)),
        _ => format!("{sign}{:02}:{:02}:{:02}", r.random_range(0..15), 59, r.random_range(0..60)),
    }
}

fn timestamp(r: &mut StdRng, zone: &str) -> String {
    let (day, era) = day(r, 294_275);
    match r.random_range(0..50) {
        0 => "-infinity".to_owned(),
        _ => format!("{day} {}{zone}{era}", time(r)),
    }
}

fn interval(r: &mut StdRng) -> String {
    let months = r.random::<i32>() >> r.random_range(0..31);
    let days = r.random::<i32>() >> r.random_range(0..31);
    let seconds = r.random::<i64>() >> r.random_range(25..63);
    let micros = r.random_range(0..1_000_000);
    format!("{months} mons {days} days {seconds}.{micros:06} seconds")
}
