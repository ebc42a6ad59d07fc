"""The tables that every reader is asked about: how Postgres fills them, and what is asked.

Each list of STEPS is one SQL script; after each of them frazil runs until it has caught up, so that
every step is at least one lake commit. The first step is copied by the initial snapshot.
"""

import dataclasses
import hashlib
import uuid

from values import with_constants, wrapped

NAMESPACE = "lab"
EARLIER = 1  # time travel goes back to the lake as it was after this step


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of an answer: `sql` is the same for all readers, but where `other` has another."""

    sql: str
    kind: str
    other: dict = dataclasses.field(default_factory=dict)

    def of(self, dialect):
        if dialect in self.other:
            return self.other[dialect]
        return wrapped(dialect, self.kind, self.sql)


@dataclasses.dataclass(frozen=True)
class Query:
    columns: tuple
    where: str = ""
    group: str = ""

    @property
    def kinds(self):
        return [column.kind for column in self.columns]

    def of(self, dialect, relation):
        chosen = ", ".join(column.of(dialect) for column in self.columns)
        where = f" WHERE {with_constants(dialect, self.where)}" if self.where else ""
        group = f" GROUP BY {self.group}" if self.group else ""
        return f"SELECT {chosen} FROM {relation}{where}{group}"

    def filter(self):
        """The condition as PyIceberg has it; "" where it knows no such condition."""
        return "" if "%" in self.where else with_constants("pyiceberg", self.where)


def rows(*columns, where="", group=""):
    made = (c if isinstance(c, Column) else Column(*c.rsplit(" ", 1)) for c in columns)
    return Query(tuple(made), where, group)


def count(where=""):
    return rows("count(*) int", where=where)


# What one row of `appended` and `eq` is made from: g, a number.
MADE = """
    CASE WHEN g % 11 <> 0 THEN (g * 1.25 - 100)::numeric(12,2) END,
    CASE WHEN g % 13 = 0 THEN NULL WHEN g % 13 = 1 THEN '' ELSE 'row ' || g || ' ü' END,
    CASE g % 3 WHEN 1 THEN true WHEN 2 THEN false END,
    date '1990-01-01' + g::int * 37,
    timestamptz '2026-01-01 00:00:00+00' + g * interval '7 hours 3 minutes 0.000001 seconds',
    md5(g::text)::uuid,
    CASE WHEN g % 17 <> 0 THEN g / 7.0::float8 END,
    CASE WHEN g % 19 = 1 THEN ''::bytea WHEN g % 19 <> 0 THEN decode(md5(g::text), 'hex') END
"""
TYPED = """
    id int8 PRIMARY KEY, amount numeric(12,2), label text, flag bool, born date,
    seen_at timestamptz, token uuid, ratio float8, bytes bytea
"""
TYPED_COLUMNS = (
    "id int", "amount numeric", "label text", "flag bool", "born date", "seen_at timestamptz",
    "token uuid", "ratio float8", "bytes bytea",
)  # fmt: skip


def uuid_of(g):
    """`md5(g::text)::uuid` in Postgres."""
    return str(uuid.UUID(hashlib.md5(str(g).encode()).hexdigest()))



APPENDED_STEPS = [
    f"""
    CREATE TABLE lab.appended ({TYPED}, tags text[], span interval);
    INSERT INTO lab.appended SELECT g, {MADE}, NULL, NULL FROM generate_series(1, 400) g;
    """,
    f"""
    INSERT INTO lab.appended SELECT g, {MADE}, ARRAY['a', NULL, g::text], g * interval '1 day 1 second'
        FROM generate_series(401, 500) g;
    INSERT INTO lab.appended(id, amount, label, born, seen_at, ratio, tags, span) VALUES
        (-1, -9999999999.99, E'quote '' " \\\\ tab \\t 漢字 🧊', '0001-01-01', '0001-01-01 00:00:00+00',
         'NaN', '{{}}', '-1 mon +3 days -00:00:01'),
        (-2, 0, 'NULL', '1582-10-04', '1582-10-15 00:00:00.000001+00', '-Infinity', '{{NULL}}', '0'),
        (-3, 9999999999.99, ' ', '9999-12-31', '9999-12-31 23:59:59.999999+00', '-0', '{{"",","}}', '13 mon'),
        (9223372036854775807, NULL, repeat('long ', 300), '1969-12-31', '1969-12-31 23:59:59.999999+00',
         5e-324, NULL, NULL);
    """,
    "ALTER TABLE lab.appended ADD COLUMN later int8; "
    f"INSERT INTO lab.appended SELECT g, {MADE}, NULL, NULL, g * g FROM generate_series(501, 600) g;",
]
APPENDED = [
    rows(*TYPED_COLUMNS),
    rows("id int", "tags list", "span interval", where="id > 380"),
    count(),
    rows("count(amount) int", "sum(amount) numeric", "min(born) date", "max(seen_at) timestamptz"),
    count("label IS NULL"),
    count("label = ''"),
    rows(*TYPED_COLUMNS, where="flag = true AND amount < 0"),
    rows("id int", where="born < day('1582-10-15')"),
    rows("id int", where="seen_at >= ts('2026-03-01 00:00:00') AND seen_at < ts('2026-03-03 00:00:00')"),
    rows("id int", where=f"token = uuid('{uuid_of(42)}')"),
]
# `later` is not there yet at the earlier state.
APPENDED_NOW = [
    rows("id int", "later int", where="later IS NOT NULL"),
    rows("count(later) int", "sum(later) int"),
]

EQ_STEPS = [
    f"""
    CREATE TABLE lab.eq ({TYPED});
    INSERT INTO lab.eq SELECT g, {MADE} FROM generate_series(1, 300) g;
    """,
    f"""
    UPDATE lab.eq SET amount = amount + 1, label = 'changed ' || id WHERE id % 7 = 0;
    DELETE FROM lab.eq WHERE id % 10 = 3;
    INSERT INTO lab.eq SELECT g, {MADE} FROM generate_series(301, 360) g;
    """,
    f"""
    INSERT INTO lab.eq SELECT g, {MADE} FROM generate_series(3, 300, 20) g;
    UPDATE lab.eq SET label = 'came back' WHERE id % 20 = 3;
    UPDATE lab.eq SET label = NULL, amount = NULL, ratio = 'NaN' WHERE id % 9 = 0;
    UPDATE lab.eq SET id = id + 1000 WHERE id % 50 = 1;
    DELETE FROM lab.eq WHERE id BETWEEN 305 AND 310;
    """,
    f"""
    UPDATE lab.eq SET amount = 1 WHERE id = 2;
    UPDATE lab.eq SET amount = 2 WHERE id = 2;
    DELETE FROM lab.eq WHERE id = 2;
    INSERT INTO lab.eq(id, amount) VALUES (2, 3);
    BEGIN;
    INSERT INTO lab.eq(id, amount) VALUES (5000, 1), (5001, 1);
    DELETE FROM lab.eq WHERE id = 5000;
    INSERT INTO lab.eq(id, amount) VALUES (5000, 2);
    DELETE FROM lab.eq WHERE id IN (5000, 5001);
    INSERT INTO lab.eq(id, amount) VALUES (5001, 7);
    COMMIT;
    DELETE FROM lab.eq WHERE id BETWEEN 100 AND 130;
    INSERT INTO lab.eq SELECT g, {MADE} FROM generate_series(100, 104) g;
    """,
    """
    UPDATE lab.eq SET label = 'no longer NULL' WHERE id % 18 = 0;
    DELETE FROM lab.eq WHERE id = 103;
    UPDATE lab.eq SET id = id - 1000 WHERE id = 1001;
    """,
]
EQ = [
    rows(*TYPED_COLUMNS),
    count(),
    rows("count(amount) int", "sum(amount) numeric", "max(seen_at) timestamptz"),
    rows("sum(id) int", "min(id) int", "max(id) int", "count(label) int"),
    count("id = 13"),
    count("id IN (1, 13, 51, 103, 110, 305, 5000)"),
    rows(*TYPED_COLUMNS, where="id IN (2, 3, 23, 104, 1051, 5001)"),
    rows("id int", "amount numeric", where="id BETWEEN 95 AND 135"),
    rows("id int", where="label IS NULL"),
    rows("id int", "label text", where="amount > 200.00 AND flag = false"),
    rows("label text", "amount numeric", where="seen_at < ts('2026-01-10 00:00:00')"),
    rows("id int", where=f"token = uuid('{uuid_of(42)}')"),
    rows("flag bool", "count(*) int", where="flag IS NOT NULL", group="flag"),
]

EVOLVED_STEPS = [
    """
    CREATE TABLE lab.evolved (id int8 PRIMARY KEY, early text, a text, b numeric(12,2), c int4, gone text);
    ALTER TABLE lab.evolved DROP COLUMN early;
    INSERT INTO lab.evolved SELECT g, 'a' || g, g * 1.5, g % 5, 'gone ' || g FROM generate_series(1, 60) g;
    """,
    """
    UPDATE lab.evolved SET b = -b WHERE id % 4 = 0;
    DELETE FROM lab.evolved WHERE id % 10 = 1;
    INSERT INTO lab.evolved SELECT g, 'a' || g, g * 1.5, g % 5, NULL FROM generate_series(61, 80) g;
    """,
    """
    ALTER TABLE lab.evolved ADD COLUMN d date, ADD COLUMN e int8 DEFAULT 7;
    INSERT INTO lab.evolved SELECT g, 'a' || g, g * 1.5, NULL, 'x', date '2026-01-01' + g::int, g
        FROM generate_series(81, 100) g;
    UPDATE lab.evolved SET d = '2025-12-31' WHERE id % 6 = 0;
    """,
    """
    ALTER TABLE lab.evolved RENAME COLUMN a TO name;
    UPDATE lab.evolved SET name = name || '!' WHERE id % 5 = 0;
    DELETE FROM lab.evolved WHERE id BETWEEN 20 AND 25;
    INSERT INTO lab.evolved(id, name, e) VALUES (21, 'back', NULL), (22, NULL, 22);
    """,
    """
    ALTER TABLE lab.evolved DROP COLUMN gone;
    UPDATE lab.evolved SET c = 100 WHERE id % 8 = 0;
    DELETE FROM lab.evolved WHERE id = 82;
    INSERT INTO lab.evolved(id, name, b, c) SELECT g, 'n' || g, g, 1 FROM generate_series(101, 110) g;
    """,
    # The old name of a column for another one: by name instead of by id this would be wrong.
    """
    ALTER TABLE lab.evolved ADD COLUMN a text;
    UPDATE lab.evolved SET a = 'new a' WHERE id % 9 = 0;
    INSERT INTO lab.evolved(id, a, b) VALUES (111, 'only a', 1), (112, NULL, 'NaN');
    UPDATE lab.evolved SET b = 'NaN' WHERE id = 30;
    """,
]
# numeric NaN has no place in an Iceberg decimal: NULL, and its text in _pg_raw.
RAW = Column(
    "element_at(_pg_raw, 'b')",
    "text",
    {
        "postgres": "CASE WHEN b = 'NaN' THEN 'NaN' END",
        "duckdb": "_pg_raw['b']",
        "spark": "_pg_raw['b']",
    },
)
B = Column("b", "numeric", {"postgres": "nullif(b, 'NaN')"})
EVOLVED = [
    rows("id int", "name text", B, "c int", "d date", "e int", "a text"),
    rows("id int", RAW, where="id >= 25"),
    count(),
    rows("count(name) int", "sum(e) int", "count(d) int", "count(a) int"),
    rows("id int", where="name = 'a50!'"),
    rows("id int", where="a = 'new a'"),
    count("a IS NULL"),
    count("a = 'a7'"),
    rows("id int", where="d IS NULL AND c >= 3"),
    rows("id int", where="d >= day('2026-03-01')"),
    rows("id int", where="e = 7"),
    count("id IN (1, 20, 23, 82)"),
    rows("id int", "name text", where="id IN (21, 22, 85, 111)"),
]
EVOLVED_EARLIER = [
    rows("id int", "a text", "b numeric", "c int", "gone text"),
    count(),
    rows("id int", where="a = 'a5'"),
    rows("id int", where="gone IS NULL"),
    count("id IN (1, 11, 21)"),
]

TWO_KEYS_STEPS = [
    """
    CREATE TABLE lab.two_keys (tenant int8, code text, qty int4, note text, PRIMARY KEY (tenant, code));
    INSERT INTO lab.two_keys SELECT t, c, t * 10, CASE WHEN t % 3 <> 0 THEN c || t END
        FROM generate_series(1, 40) t, unnest(ARRAY['a', 'b', '', 'ü''"', '1']) c;
    """,
    """
    DELETE FROM lab.two_keys WHERE tenant = 1 AND code = 'a';
    DELETE FROM lab.two_keys WHERE tenant = 2 AND code = 'b';
    UPDATE lab.two_keys SET qty = -1 WHERE tenant = 3 AND code = '';
    UPDATE lab.two_keys SET note = 'n' WHERE tenant % 7 = 0 AND code = 'ü''"';
    """,
    """
    UPDATE lab.two_keys SET code = 'moved' WHERE tenant = 4 AND code = 'a';
    UPDATE lab.two_keys SET tenant = 100 WHERE tenant = 5 AND code = 'b';
    UPDATE lab.two_keys SET tenant = tenant + 1000, code = code || '!' WHERE tenant % 10 = 0;
    INSERT INTO lab.two_keys VALUES (1, 'a', 77, 'again');
    """,
    # Two rows change their keys for each other's.
    """
    BEGIN;
    UPDATE lab.two_keys SET code = 'tmp' WHERE tenant = 6 AND code = 'a';
    UPDATE lab.two_keys SET code = 'a' WHERE tenant = 6 AND code = 'b';
    UPDATE lab.two_keys SET code = 'b' WHERE tenant = 6 AND code = 'tmp';
    COMMIT;
    DELETE FROM lab.two_keys WHERE tenant BETWEEN 30 AND 35 AND code IN ('a', '');
    INSERT INTO lab.two_keys VALUES (31, 'a', 1, NULL), (32, '', 2, '');
    """,
    """
    UPDATE lab.two_keys SET code = 'a' WHERE tenant = 4 AND code = 'moved';
    DELETE FROM lab.two_keys WHERE code = '1' AND tenant % 2 = 0;
    UPDATE lab.two_keys SET qty = qty + 1 WHERE tenant = 1020;
    """,
]
TWO_KEYS = [
    rows("tenant int", "code text", "qty int", "note text"),
    count(),
    rows("sum(qty) int", "count(note) int"),
    rows("code text", "count(*) int", group="code"),
    rows("code text", "note text", where="tenant = 6"),
    rows("tenant int", where="code = 'a'"),
    rows("tenant int", "code text", "qty int", where="note IS NULL"),
    count("tenant = 2 AND code = 'b'"),
    count("tenant = 5 AND code = 'b'"),
    count("tenant IN (10, 20, 30, 40)"),
    count("qty = -1"),
    rows("tenant int", "code text", where="qty > 10000 OR tenant > 1000"),
]

# Keys of every other type. Readers decide by the bounds of key columns which files a delete can
# reach, so each lake commit deletes rows from all over the range.
KEYED_STEPS = [
    """
    CREATE TABLE lab.uuid_key (id uuid PRIMARY KEY, n int8);
    INSERT INTO lab.uuid_key SELECT md5(g::text)::uuid, g FROM generate_series(1, 200) g;
    CREATE TABLE lab.date_key (id date PRIMARY KEY, n int8);
    INSERT INTO lab.date_key SELECT date '1969-06-01' + g::int * 9, g FROM generate_series(1, 200) g;
    CREATE TABLE lab.time_key (id timestamptz PRIMARY KEY, n int8);
    INSERT INTO lab.time_key SELECT timestamptz '1969-12-31 12:00:00.000001+00' + g * interval '1001 s', g
        FROM generate_series(1, 200) g;
    CREATE TABLE lab.numeric_key (id numeric(20,4) PRIMARY KEY, n int8);
    INSERT INTO lab.numeric_key SELECT (g - 100) * 1234567.0001, g FROM generate_series(1, 200) g;
    CREATE TABLE lab.text_key (id text PRIMARY KEY, n int8);
    INSERT INTO lab.text_key SELECT repeat(chr(33 + (g % 90)::int), 20) || chr(160 + g::int) || g, g
        FROM generate_series(1, 200) g;
    INSERT INTO lab.text_key VALUES ('', 1000), (repeat('🧊', 30), 1001), (repeat(chr(1114111), 30), 1002),
        (repeat('～', 30), 1003), (repeat('~', 30), 1004);
    CREATE TABLE lab.bytea_key (id bytea PRIMARY KEY, n int8);
    INSERT INTO lab.bytea_key SELECT decode(md5(g::text) || md5(g::text), 'hex'), g FROM generate_series(1, 200) g;
    INSERT INTO lab.bytea_key VALUES ('', 1000), (decode(repeat('ff', 40), 'hex'), 1001);
    CREATE TABLE lab.bool_key (id bool, i int4, s int2, n int8, PRIMARY KEY (id, i, s));
    INSERT INTO lab.bool_key SELECT g % 2 = 0, g - 100, -g % 100, g FROM generate_series(1, 200) g;
    """,
    *(
        "".join(
            f"UPDATE lab.{table} SET n = n + 10000 WHERE n % 20 = {at};"
            f"DELETE FROM lab.{table} WHERE n % 20 = {at + 3};"
            # Single rows: their bounds are one value.
            f"DELETE FROM lab.{table} WHERE n IN (SELECT n FROM lab.{table} WHERE n < 10000 ORDER BY id LIMIT {at});"
            for table in ("uuid_key", "date_key", "time_key", "numeric_key", "text_key", "bytea_key", "bool_key")
        )
        for at in (1, 2)
    ),
    "".join(
        f"DELETE FROM lab.{table} WHERE n = (SELECT max(n) FROM lab.{table} WHERE n < 10000);"
        for table in ("uuid_key", "date_key", "time_key", "numeric_key", "text_key", "bytea_key", "bool_key")
    )
]


def keyed(kind):
    return [
        rows(f"id {kind}", "n int"), count(), rows("sum(n) int"), count("n = 10001"), rows("n int", where="n > 10000"),
    ]


# One source transaction of some 100 MB of WAL, several segments of 16 MiB, in one lake commit. Few
# long rows, because DuckDB's time grows with rows times equality deletes.
BIG = 60_000
PAYLOAD = "repeat(md5(g::text), 32) || g"
SEGMENTED_STEPS = [
    """
    CREATE TABLE lab.segmented (id int8 PRIMARY KEY, grp int4, payload text, amount numeric(12,2), seen_at timestamptz);
    INSERT INTO lab.segmented SELECT g, g % 50, 'base ' || g, g, '2026-01-01 00:00:00+00'
        FROM generate_series(-2000, 0) g;
    """,
    f"""
    BEGIN;
    INSERT INTO lab.segmented SELECT g, g % 50, {PAYLOAD}, g * 0.25,
            timestamptz '2026-02-01 00:00:00+00' + g * interval '1 second'
        FROM generate_series(1, {BIG}) g;
    UPDATE lab.segmented SET grp = grp + 1000 WHERE id % 7 = 0;
    DELETE FROM lab.segmented WHERE id % 5 = 0;
    INSERT INTO lab.segmented SELECT g, -1, 'second life ' || {PAYLOAD}, -g, '2026-03-01 00:00:00+00'
        FROM generate_series(0, {BIG}, 10) g;
    UPDATE lab.segmented SET payload = 'third ' || payload, amount = NULL WHERE id % 30 = 0;
    DELETE FROM lab.segmented WHERE id % 110 = 0;
    INSERT INTO lab.segmented SELECT g, -2, 'fourth', 0, NULL FROM generate_series(0, {BIG}, 220) g;
    UPDATE lab.segmented SET id = id + 1000000 WHERE id % 1000 = 1;
    UPDATE lab.segmented SET grp = 5555 WHERE id BETWEEN 1 AND 100;
    COMMIT;
    """,
    """
    UPDATE lab.segmented SET grp = 7777 WHERE id BETWEEN 1000 AND 1100;
    DELETE FROM lab.segmented WHERE id BETWEEN 2000 AND 2100;
    INSERT INTO lab.segmented VALUES (2000, 1, 'after', 1, NULL);
    """,
]
SEGMENTED = [
    rows("id int", "grp int", "payload md5", "amount numeric", "seen_at timestamptz"),
    count(),
    rows("sum(id) int", "min(id) int", "max(id) int"),
    rows("sum(amount) numeric", "count(amount) int", "sum(grp) int", "count(seen_at) int"),
    rows("sum(length(payload)) int"),
    count("grp >= 1000"),
    rows("grp int", "count(*) int", where="grp < 0 OR grp > 5000", group="grp"),
    count("id IN (5, 15, 110, 330, 2001)"),
    rows("id int", "grp int", "payload text", where="id BETWEEN 0 AND 30 OR id IN (220, 440, 2000, 59990)"),
    count("id BETWEEN 20000 AND 30000"),
    count("seen_at = ts('2026-03-01 00:00:00')"),
    count("id % 5 = 0 AND id > 0"),
    rows("count(distinct id) int"),
]


@dataclasses.dataclass(frozen=True)
class Fixture:
    name: str
    table: str
    what: str
    queries: list
    earlier: bool = False


FIXTURES = [
    Fixture("appended", "appended", "inserts only, a column added later", APPENDED + APPENDED_NOW),
    Fixture("eq", "eq", "inserts, updates, deletes over five lake commits: equality deletes", EQ),
    Fixture("evolved", "evolved", "columns added, renamed, dropped, a name used again; equality deletes", EVOLVED),
    Fixture("two_keys", "two_keys", "a key of two columns, which rows change; equality deletes", TWO_KEYS),
    Fixture("segmented", "segmented", "one source transaction of several segments: several data sequence numbers in one Iceberg snapshot", SEGMENTED),
    Fixture("uuid_key", "uuid_key", "key: uuid", keyed("uuid") + [count(f"id = uuid('{uuid_of(g)}')") for g in (1, 2, 4, 5, 42, 199)]),
    Fixture("date_key", "date_key", "key: date", keyed("date")),
    Fixture("time_key", "time_key", "key: timestamptz", keyed("timestamptz")),
    Fixture("numeric_key", "numeric_key", "key: numeric(20,4)", keyed("numeric")),
    Fixture("text_key", "text_key", "key: long text", keyed("text") + [count(f"id = '{30 * c}'") for c in "🧊～~"] + [count("id > 'ü'")]),
    Fixture("bytea_key", "bytea_key", "key: long bytea", keyed("bytea")),
    Fixture("bool_key", "bool_key", "key: bool, int4, int2", keyed("bool")),
    Fixture("appended, earlier", "appended", "time travel, inserts only", APPENDED, True),
    Fixture("eq, earlier", "eq", "time travel, equality deletes", EQ, True),
    Fixture("evolved, earlier", "evolved", "time travel to before columns were renamed and dropped", EVOLVED_EARLIER, True),
]  # fmt: skip

STEPS = [APPENDED_STEPS, EQ_STEPS, EVOLVED_STEPS, TWO_KEYS_STEPS, KEYED_STEPS, SEGMENTED_STEPS]


def scripts():
    """The SQL of each step, over all tables."""
    longest = max(len(steps) for steps in STEPS)
    made = ["\n".join(steps[at] for steps in STEPS if at < len(steps)) for at in range(longest)]
    return [f"CREATE SCHEMA {NAMESPACE};\n{made[0]}", *made[1:]]
