//! Random values as Postgres prints them: a literal is the quoted text, and what the model keeps is
//! what a SELECT must give.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

use Kind::{
    Big, Bool, Bytea, Char, Date, Decimal, Double, Float, Inet, Int, IntArray, Interval, Json,
    Jsonb, Long, Mood, Numeric, Small, Text, TextArray, Time, Timestamp, TimestampTz, Uuid,
    Varchar,
};

/// A value's text; `None` is NULL.
pub(super) type Value = Option<Arc<str>>;

/// A column's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bool,
    Small,
    Int,
    Long,
    Float,
    Double,
    /// `numeric(12,2)`.
    Decimal,
    /// Without limits.
    Numeric,
    Text,
    Varchar,
    Char,
    /// Text stored out of line and uncompressed.
    Big,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Inet,
    /// The enum, whose labels the model knows.
    Mood,
    IntArray,
    TextArray,
}

const KINDS: &[(Kind, &str)] = &[
    (Bool, "bool"),
    (Small, "int2"),
    (Int, "int4"),
    (Long, "int8"),
    (Float, "float4"),
    (Double, "float8"),
    (Decimal, "numeric(12,2)"),
    (Numeric, "numeric"),
    (Text, "text"),
    (Varchar, "varchar(40)"),
    (Char, "char(6)"),
    (Big, "text"),
    (Bytea, "bytea"),
    (Date, "date"),
    (Time, "time"),
    (Timestamp, "timestamp"),
    (TimestampTz, "timestamptz"),
    (Interval, "interval"),
    (Uuid, "uuid"),
    (Json, "json"),
    (Jsonb, "jsonb"),
    (Inet, "inet"),
    (Mood, "mood"),
    (IntArray, "int[]"),
    (TextArray, "text[]"),
];

impl Kind {
    pub(super) fn random(random: &mut StdRng) -> Self {
        match random.random_bool(0.2) {
            true => Big,
            false => KINDS[random.random_range(0..KINDS.len())].0,
        }
    }

    pub(super) fn sql_type(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).unwrap().1
    }

    /// Whether `texttype(value)` has the value's text.
    pub(super) fn casts_to_text(self) -> bool {
        !matches!(self, Bool | Char | Inet | Mood)
    }

    /// A value, NULL in one of eight; `labels` are those of the enum.
    pub(super) fn value(self, random: &mut StdRng, labels: &[String]) -> Value {
        if random.random_bool(0.125) {
            return None;
        }
        let extremes = self.extremes();
        let text = match self {
            Mood => pick(random, labels).clone(),
            _ if !extremes.is_empty() && random.random_bool(0.3) => {
                (*pick(random, extremes)).into()
            }
            _ => self.ordinary(random),
        };
        Some(text.into())
    }

    fn extremes(self) -> &'static [&'static str] {
        match self {
            Small => &["-32768", "32767", "0"],
            Int => &["-2147483648", "2147483647", "0"],
            Long => &["-9223372036854775808", "9223372036854775807"],
            Float => &["NaN", "-0", "1e-45", "3.4028235e+38", "-Infinity", "0.1"],
            Double => &["NaN", "-0", "5e-324", "1.7976931348623157e+308", "Infinity", "0.1"],
            Decimal => &["NaN", "9999999999.99", "-9999999999.99", "0.00"],
            Numeric => {
                &["NaN", "Infinity", "0.10", "-0.000000000000000000000000000000000000000001"]
            }
            Text | Varchar => {
                &["", "line\n\t\"q\"\r\n", "it's", "żółw 🐢", "~NULL~", "\\N", "NULL"]
            }
            Char => &["      ", "ab    ", "żółw  "],
            Bytea => &["\\x", "\\x00", "\\x00ff5c27"],
            Date => &["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "0001-01-01"],
            Time => &["24:00:00", "00:00:00", "23:59:59.999999"],
            Timestamp => &[
                "infinity",
                "294276-12-31 23:59:59.999999",
                "4714-11-24 00:00:00 BC",
                "1969-12-31 23:59:59.999999",
            ],
            TimestampTz => &[
                "-infinity",
                "294276-12-31 23:59:59.999999+00",
                "4714-11-24 00:00:00+00 BC",
                "1969-12-31 23:59:59.999999+00",
            ],
            Interval => &["00:00:00", "178000000 years", "-1 years -2 mons +3 days -04:05:06.789"],
            Jsonb => &["null", "{}", "[]", "\"\"", "1.50"],
            Json => &["null", "{\"a\" : 1,  \"a\":[]}"],
            Inet => &["::1", "10.0.0.0/8", "255.255.255.255"],
            IntArray => &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={7,8}", "{2147483647}"],
            TextArray => &["{}", "{a,NULL,\"\",\"a b\",\"q\\\"\\\\\"}", "{\"NULL\",\"x,y\"}"],
            Bool | Big | Uuid | Mood => &[],
        }
    }

    fn ordinary(self, random: &mut StdRng) -> String {
        let n: u64 = random.random();
        let day = || format!("{}-{:02}-{:02}", 1900 + n % 200, 1 + n / 7 % 12, 1 + n / 97 % 28);
        let clock =
            || format!("{:02}:{:02}:{:02}.{:05}1", n % 24, n / 24 % 60, n / 77 % 60, n % 99_999);
        match self {
            Bool => if n.is_multiple_of(2) { "t" } else { "f" }.into(),
            Small => random.random::<i16>().to_string(),
            Int => random.random::<i32>().to_string(),
            Long => random.random::<i64>().to_string(),
            Float | Double => {
                format!("{}.{}", n % 1_000, ["125", "25", "5", "375"][(n % 4) as usize])
            }
            Decimal => format!("{}.{:02}", random.random::<i32>(), n % 100),
            Numeric => format!("{}{n}.{:03}", 1 + n % 9, n % 1_000),
            Big => hex(random, 1_200, 4_500),
            Bytea => format!("\\x{}", hex(random, 1, 40)),
            Date => day(),
            Time => clock(),
            Timestamp => format!("{} {}", day(), clock()),
            TimestampTz => format!("{} {}+00", day(), clock()),
            Interval => format!("{} days {}", 2 + n % 900, clock()),
            Uuid => uuid(n),
            Json => format!("{{\"k\":  [{n}, \"ż\"]}}"),
            Jsonb => format!("{{\"k\": [{n}, 1.50, null, \"ż\"]}}"),
            Inet => format!("10.{}.{}.7", n % 256, n / 256 % 256),
            IntArray => format!("{{{},NULL,{}}}", random.random::<i32>(), n % 9),
            TextArray => format!("{{w{n},NULL,\"a b\"}}"),
            Char => format!("{:06x}", n % 0xff_ffff),
            Text | Varchar | Mood => format!("word {}", n % 10_000_000),
        }
    }
}

/// `n` as a UUID's text.
pub(super) fn uuid(n: u64) -> String {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}", n >> 32, n & 0xffff, n >> 52, n >> 20 & 0xfff)
        .chars()
        .take(36)
        .collect()
}

/// Bytes in hexadecimal, from `least` to `most` of them, which no compression makes small.
fn hex(random: &mut StdRng, least: usize, most: usize) -> String {
    (0..random.random_range(least..most))
        .map(|_| format!("{:02x}", random.random::<u8>()))
        .collect()
}

pub(super) fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

/// A SQL literal.
pub(super) fn quoted(value: &Value) -> String {
    match value {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "NULL".into(),
    }
}
