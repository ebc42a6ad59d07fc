//! The twelve tables of the workload: their definitions, keys and random values.

use rand::Rng;
use rand::rngs::StdRng;

use Kind::{
    Amount, BigBytes, BigText, Bool, Bytes, Char, Date, Double, Float, FreeNumeric, Int, IntArray,
    Interval, Json, Jsonb, Long, Mood, Price, Small, Text, TextArray, Time, Timestamp, TimestampTz,
    Uuid,
};

/// A table: key columns first, then `columns`.
pub struct Shape {
    /// `schema.name`.
    pub name: &'static str,
    /// The columns after the key and how their values are made.
    pub columns: &'static [(&'static str, Kind)],
    /// Whether `id = id + n` makes sense.
    pub shifts: bool,
    key: Key,
    /// What follows the columns in CREATE TABLE.
    constraints: &'static str,
    /// Statements after CREATE TABLE.
    after: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Int,
    Composite,
    Text,
    Uuid,
    Float,
    /// `id` is the primary key, `code` the replica identity and what rows are changed by.
    IdAndCode,
    None,
}

/// How a column's values are made.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its type")]
pub enum Kind {
    Bool,
    Small,
    Int,
    Long,
    Float,
    Double,
    Amount,
    FreeNumeric,
    Price,
    Text,
    Char,
    BigText,
    Bytes,
    BigBytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Mood,
    IntArray,
    TextArray,
}

/// All of them.
pub fn shapes() -> Vec<Shape> {
    let shape = |name, key, columns, constraints, after| Shape {
        name,
        columns,
        shifts: matches!(key, Key::Int),
        key,
        constraints,
        after,
    };
    vec![
        shape("public.plain", Key::Int, PLAIN, "PRIMARY KEY (id)", ""),
        shape("public.narrow", Key::Int, &[("n", Int)], "PRIMARY KEY (id)", ""),
        shape("public.composite", Key::Composite, PLAIN, "PRIMARY KEY (b, a)", ""),
        shape("public.by_text", Key::Text, &[("v", Double), ("d", Date)], "PRIMARY KEY (id)", ""),
        shape("work.by_uuid", Key::Uuid, &[("v", Interval), ("b", Bytes)], "PRIMARY KEY (id)", ""),
        shape(
            "work.full_identity",
            Key::Int,
            LARGE,
            "PRIMARY KEY (id)",
            "ALTER TABLE work.full_identity ALTER body SET STORAGE EXTERNAL; \
             ALTER TABLE work.full_identity REPLICA IDENTITY FULL;",
        ),
        shape(
            "work.index_identity",
            Key::IdAndCode,
            &[("v", Int), ("t", Text)],
            "PRIMARY KEY (id), CONSTRAINT code_index UNIQUE (code)",
            "ALTER TABLE work.index_identity REPLICA IDENTITY USING INDEX code_index;",
        ),
        shape(
            "work.large",
            Key::Int,
            LARGE,
            "PRIMARY KEY (id)",
            "ALTER TABLE work.large ALTER body SET STORAGE EXTERNAL, \
             ALTER attachment SET STORAGE EXTERNAL;",
        ),
        shape(
            "work.deferrable",
            Key::Int,
            LARGE,
            "PRIMARY KEY (id) DEFERRABLE",
            "ALTER TABLE work.deferrable REPLICA IDENTITY FULL; \
             ALTER TABLE work.deferrable ALTER body SET STORAGE EXTERNAL;",
        ),
        shape("work.by_float", Key::Float, LARGE, "PRIMARY KEY (id)", ""),
        shape("work.no_key", Key::None, PLAIN, "CHECK (true)", ""),
        shape("work.all_types", Key::Int, ALL_TYPES, "PRIMARY KEY (id)", ""),
    ]
}

const PLAIN: &[(&str, Kind)] =
    &[("n", Int), ("note", Text), ("amount", Amount), ("at", TimestampTz)];
const LARGE: &[(&str, Kind)] =
    &[("n", Int), ("body", BigText), ("attachment", BigBytes), ("tag", Text)];
const ALL_TYPES: &[(&str, Kind)] = &[
    ("c_bool", Bool),
    ("c_int2", Small),
    ("c_int4", Int),
    ("c_int8", Long),
    ("c_float4", Float),
    ("c_float8", Double),
    ("c_numeric", Amount),
    ("c_free", FreeNumeric),
    ("c_price", Price),
    ("c_text", Text),
    ("c_char", Char),
    ("c_bytea", Bytes),
    ("c_date", Date),
    ("c_time", Time),
    ("c_timestamp", Timestamp),
    ("c_timestamptz", TimestampTz),
    ("c_interval", Interval),
    ("c_uuid", Uuid),
    ("c_json", Json),
    ("c_jsonb", Jsonb),
    ("c_mood", Mood),
    ("c_ints", IntArray),
    ("c_texts", TextArray),
];

impl Shape {
    /// CREATE TABLE and what belongs to it.
    pub fn ddl(&self) -> String {
        let key = match self.key {
            Key::Int => "id int, ",
            Key::Composite => "a int, b text, ",
            Key::Text => "id text, ",
            Key::Uuid => "id uuid, ",
            Key::Float => "id float8, ",
            Key::IdAndCode => "id int, code text NOT NULL, ",
            Key::None => "id bigint, ",
        };
        let columns = self.columns.iter().map(|(name, kind)| format!("{name} {}", kind.sql_type()));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let (name, constraints, after) = (self.name, self.constraints, self.after);
        format!("CREATE TABLE {name}({key}{columns}, {constraints}); {after}")
    }

    /// Whether rows can be updated and deleted.
    pub fn has_key(&self) -> bool {
        !matches!(self.key, Key::None)
    }

    /// SQL literals of the key columns of row `n`, in column order.
    pub fn key_values(&self, n: i64) -> Vec<String> {
        match self.key {
            Key::Int | Key::None => vec![n.to_string()],
            Key::Composite => vec![(n / 10).to_string(), format!("'part {}'", n % 10)],
            Key::Text => vec![format!("'key żó-{n}'")],
            Key::Uuid => vec![uuid(n.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15))],
            Key::Float => vec![format!("{n}.1")],
            Key::IdAndCode => vec![n.to_string(), format!("'code-{n}'")],
        }
    }

    /// The key columns, in column order.
    pub fn key_names(&self) -> &'static [&'static str] {
        match self.key {
            Key::Composite => &["a", "b"],
            Key::IdAndCode => &["id", "code"],
            _ => &["id"],
        }
    }

    /// An assignment that changes nothing; for an index identity it changes the primary key, which
    /// sends no old key (case 72).
    pub fn no_op(&self) -> String {
        match self.key {
            Key::IdAndCode => "id = -id".into(),
            _ => format!("{0} = {0}", self.columns[0].0),
        }
    }

    /// The WHERE condition for row `n`.
    pub fn condition(&self, n: i64) -> String {
        let pairs = self.key_names().iter().zip(self.key_values(n));
        let addressing = pairs.filter(|(name, _)| self.key != Key::IdAndCode || **name == "code");
        addressing.map(|(name, v)| format!("{name} = {v}")).collect::<Vec<_>>().join(" AND ")
    }
}

impl Kind {
    fn sql_type(self) -> &'static str {
        match self {
            Bool => "bool",
            Small => "int2",
            Int => "int4",
            Long => "int8",
            Float => "float4",
            Double => "float8",
            Amount => "numeric(12,2)",
            FreeNumeric => "numeric",
            Price => "work.price",
            Text | BigText => "text",
            Char => "char(6)",
            Bytes | BigBytes => "bytea",
            Date => "date",
            Time => "time",
            Timestamp => "timestamp",
            TimestampTz => "timestamptz",
            Interval => "interval",
            Uuid => "uuid",
            Json => "json",
            Jsonb => "jsonb",
            Mood => "work.mood",
            IntArray => "int[]",
            TextArray => "text[]",
        }
    }

    /// A random value as a SQL literal, NULL in one of ten; with `raw_values`, now and then one
    /// that the lake's type cannot hold.
    pub fn literal(self, random: &mut StdRng, raw_values: bool) -> String {
        if random.random_bool(0.1) {
            return "NULL".into();
        }
        if let Some(raw) =
            self.unrepresentable().filter(|_| raw_values && random.random_bool(0.005))
        {
            return raw.into();
        }
        match self {
            BigText => format!("repeat('{}', {})", word(random), random.random_range(400..3_000)),
            BigBytes => {
                let (pair, count) = (random.random::<u8>(), random.random_range(100..9_000));
                format!("decode(repeat('{pair:02x}', {count}), 'hex')")
            }
            Date | Time | Timestamp | TimestampTz | Interval => self.moment(random),
            Bool | Small | Int | Long | Float | Double | Amount | FreeNumeric | Price => {
                self.number(random)
            }
            _ => self.text(random),
        }
    }

    fn unrepresentable(self) -> Option<&'static str> {
        match self {
            Date | Timestamp => Some("'infinity'"),
            TimestampTz => Some("'-infinity'"),
            Time => Some("'24:00:00'"),
            Amount => Some("'NaN'"),
            IntArray => Some("'{{1,2},{3,4}}'"),
            _ => None,
        }
    }

    fn number(self, random: &mut StdRng) -> String {
        match self {
            Bool => random.random::<bool>().to_string(),
            Small => random.random::<i16>().to_string(),
            Int => random.random::<i32>().to_string(),
            Long => random.random::<i64>().to_string(),
            Float => pick(random, &["0.1", "'-0'", "'NaN'", "'-Infinity'", "1e-45", "3.4e38"]),
            Double => match random.random_range(0..3) {
                0 => pick(random, &["'-0'", "'NaN'", "'Infinity'", "5e-324", "1.8e308::numeric/2"]),
                _ => format!("'{:e}'", random.random::<f64>() * 1e6),
            },
            FreeNumeric => match random.random_range(0..3) {
                0 => pick(random, &["'NaN'", "0.10", "1e50", "-1e-30", infinity(), "0"]),
                _ => format!("{}.{}", random.random::<i64>(), random.random::<u32>()),
            },
            _ => format!("{}.{:02}", random.random_range(-9999..9999), random.random_range(0..100)),
        }
    }

    fn moment(self, random: &mut StdRng) -> String {
        let micros = random.random_range(-60_000_000_000_000_000_i64..60_000_000_000_000_000);
        let days = random.random_range(-700_000..700_000);
        match self {
            Date => format!("date '2000-01-01' + {days}"),
            Time => format!("time '00:00' + interval '{}'", clock(micros % 86_400_000_000)),
            Timestamp => format!("timestamp '2000-01-01' + interval '{}'", clock(micros)),
            TimestampTz => {
                format!("timestamptz '2000-01-01 00:00:00+00' + interval '{}'", clock(micros))
            }
            _ => {
                let (months, days) = (days % 100, days / 100 % 100);
                format!("interval '{months} mons {days} days {}'", clock(micros))
            }
        }
    }

    fn text(self, random: &mut StdRng) -> String {
        let word = word(random);
        match self {
            Char => format!("'{}'", &word[..3]),
            Bytes => format!("'\\x{:016x}00'", random.random::<u64>()),
            Uuid => uuid(random.random()),
            Json => format!("'{{\"a\" : \"{word}\",  \"a\":[1,{{}}]}}'"),
            Jsonb => format!("'{{\"{word}\": [1.50, null, \"ż\"]}}'"),
            Mood => pick(random, &["'sad'", "'so so'", "'happy'"]),
            IntArray => pick(random, &["'{}'", "'{1,NULL,-3}'", "'{2147483647}'"]),
            TextArray => format!("ARRAY['{word}', NULL, '', 'a,\"b\"\\']"),
            _ => pick(random, &["''", "E'line\\n\\t\"quoted\"\\r\\n'", "'żółw 🐢'", "'plain'"])
                .replace("plain", &word),
        }
    }
}

fn pick(random: &mut StdRng, from: &[&str]) -> String {
    from[random.random_range(0..from.len())].to_string()
}

fn word(random: &mut StdRng) -> String {
    (0..8).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

fn uuid(n: u64) -> String {
    format!("'{:08x}-{:04x}-4000-8000-{:012x}'", n >> 32, n & 0xffff, (n >> 16) & 0xffff)
}

/// What numeric knows since 14.
fn infinity() -> &'static str {
    if super::servers::major() < 14 { "'NaN'" } else { "'Infinity'" }
}

/// Hours, minutes and seconds: as microseconds, servers before 15 take no more than 32 bits.
fn clock(micros: i64) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{sign}{hours}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}
