"""A value of any reader, or of Postgres, as one text, so that two answers can be compared exactly.

A kind says what a column is. `wrapped` is its SQL where the plain value would lose something on its
way to Python; `canonical` makes the text of what arrived. Every reader's program uses this file.
"""

import datetime
import decimal
import hashlib
import json
import re
import time

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
ROWS_SHOWN = 400  # of a larger answer only the count and the digest are kept

# By dialect and kind: what stands in SELECT for the expression {}.
WRAPPED = {
    "postgres": {
        "timestamptz": "(extract(epoch from {}) * 1000000)::bigint",
        "bytea": "encode({}, 'hex')",
        "md5": "md5({})",
        "list": "array_to_json({})",
        "interval": "CASE WHEN {0} IS NOT NULL THEN json_build_array((extract(year from {0}) * 12 + extract(month from {0}))::int,"
        " extract(day from {0})::int, (extract(hour from {0}) * 3600000000"
        " + extract(minute from {0}) * 60000000 + extract(microsecond from {0}))::bigint) END",
    },
    "duckdb": {
        "timestamptz": "epoch_us({})",
        "bytea": "lower(hex({}))",
        "md5": "md5({})",
    },
    "spark": {
        "timestamptz": "unix_micros({})",
        "bytea": "lower(hex({}))",
        "md5": "md5({})",
    },
    "trino": {
        "bytea": "lower(to_hex({}))",
        "md5": "lower(to_hex(md5(to_utf8({}))))",
    },
}

# ts('2026-01-01 00:00:00') and uuid('...') in a filter, as each dialect writes such a constant.
CONSTANTS = {
    "postgres": {"ts": "TIMESTAMPTZ '{}+00'", "uuid": "UUID '{}'", "day": "DATE '{}'"},
    "duckdb": {"ts": "TIMESTAMPTZ '{}+00'", "uuid": "UUID '{}'", "day": "DATE '{}'"},
    "spark": {"ts": "TIMESTAMP '{}Z'", "uuid": "'{}'", "day": "DATE '{}'"},
    "trino": {"ts": "TIMESTAMP '{} UTC'", "uuid": "UUID '{}'", "day": "DATE '{}'"},
    "pyiceberg": {"ts": "'{}+00:00'", "uuid": "'{}'", "day": "'{}'"},
}


def wrapped(dialect, kind, expression):
    return WRAPPED[dialect].get(kind, "{}").replace("{0}", "{}").replace("{}", expression)


def with_constants(dialect, text):
    def found(match):
        # PyIceberg wants ISO 8601 with its T.
        text = match[2].replace(" ", "T") if dialect == "pyiceberg" else match[2]
        return CONSTANTS[dialect][match[1]].format(text)

    return re.sub(r"\b(ts|uuid|day)\('([^']*)'\)", found, text)


def canonical(kind, value):
    """The text of `value`; NULL is None."""
    if value is None:
        return None
    if kind == "int":
        return str(int(value))
    if kind == "numeric":
        return format(decimal.Decimal(str(value)), "f")
    if kind == "bool":
        return {"t": "true", "f": "false"}.get(value, str(value).lower())
    if kind == "date":
        return value if isinstance(value, str) else value.isoformat()
    if kind == "timestamptz":
        return str(micros(value))
    if kind == "uuid":
        return str(value).lower()
    if kind == "float8":
        number = float(value)
        return "nan" if number != number else number.hex()
    if kind in ("list", "interval", "map"):
        return json.dumps(plain(value), sort_keys=True)
    return str(value)


def micros(value):
    """Microseconds since 1970 of a number, or of Trino's `2026-01-01 00:00:00.000001 UTC`."""
    if isinstance(value, int) or value.lstrip("-").isdigit():
        return int(value)
    moment = datetime.datetime.fromisoformat(value.replace(" UTC", "+00:00"))
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def plain(value):
    """Lists, structs and maps of any reader as JSON has them; a struct is the list of its values."""
    if isinstance(value, str):
        return json.loads(value)
    if isinstance(value, dict):
        if list(value) == ["months", "days", "micros"]:
            return list(value.values())
        return value
    return list(value)


def answer(kinds, rows):
    """The answer to one query, rows in any order: how many, a digest of all, a few to be shown."""
    texts = sorted(
        json.dumps([canonical(kind, value) for kind, value in zip(kinds, row, strict=True)])
        for row in rows
    )
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return {"count": len(texts), "digest": digest, "rows": texts[:ROWS_SHOWN]}


def ask(kinds, rows_of):
    """`answer` of what `rows_of()` returns, or the reader's own words on why it does not answer."""
    began = time.monotonic()
    try:
        found = answer(kinds, rows_of())
    except Exception as error:  # whatever a reader raises is its answer
        found = {"refused": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.monotonic() - began, 2)}
