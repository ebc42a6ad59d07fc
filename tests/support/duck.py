"""The independent reader: DuckDB with its Iceberg extension, one request and one answer per line.

Requests are JSON objects with an `op`; the answer is {"ok": ...} or {"error": text}. It reads the
lake as any other engine would: metadata locations from the catalog (SQLite or Nessie), and
`iceberg_scan` on them; or by attaching the REST catalog.
"""

import glob
import json
import os
import sqlite3
import sys
import urllib.error
import urllib.parse
import urllib.request

import duckdb

SHOWN = 10  # differing rows that are printed per side

# What DuckDB must show for a column of that kind: the lake's type is part of the comparison.
TYPES = {
    "bool": "BOOLEAN",
    "int2": "INTEGER",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "oid": "BIGINT",
    "xid8": "DECIMAL(20,0)",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "text": "VARCHAR",
    "bytea": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "interval": 'STRUCT("months" INTEGER, "days" INTEGER, "micros" BIGINT)',
    "uuid": "UUID",
    "composite": "VARCHAR",
    "point": "STRUCT(x DOUBLE, y DOUBLE)",
    "hstore": "MAP(VARCHAR, VARCHAR)",
    "wkb": "BLOB",
    "ewkb": "BLOB",
}


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def get(url):
    """The JSON at `url`, on this machine: never by a proxy that the environment names."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: {error}: {error.read().decode()}") from error


def connect():
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    root = os.path.dirname(os.path.dirname(duckdb.__file__))
    for name in ("avro", "httpfs", "iceberg"):
        found = glob.glob(f"{root}/duckdb_extension_{name}/extensions/*/*.duckdb_extension")
        connection.execute(f"LOAD {literal(found[0])}")
    connection.execute("SET TimeZone='UTC'")
    connection.execute("SET memory_limit='2GB'")
    connection.execute("SET threads=2")
    return connection


def expected_type(column):
    kind = column["kind"]
    if kind == "array":
        return expected_type(column["element"]) + "[]"
    if kind in ("numeric", "money"):
        return f"DECIMAL({column['precision']},{column['scale']})"
    return TYPES[kind]


def same_type(expected, seen):
    """Whether two type names agree; DuckDB quotes field names only where it must."""
    return expected.replace('"', "") == seen.replace('"', "")


def canonical(column, value, depth=0):
    """The text of a non-NULL `value`, the same that Postgres makes for this kind (lake.rs)."""
    kind = column["kind"]
    if kind == "array":
        item = f"e{depth}"
        text = canonical(column["element"], item, depth + 1)
        each = f"coalesce(length({text})::VARCHAR || ':' || {text}, '~')"
        return f"array_to_string(list_transform({value}, lambda {item}: {each}), ',')"
    if kind in ("float4", "float8"):
        return f"CAST({value} AS BIT)::VARCHAR"
    if kind in ("numeric", "money"):
        return f"regexp_replace({value}::VARCHAR, '^(-?)[.]', '\\10.')"
    if kind in ("bytea", "wkb", "ewkb"):
        return f"lower(hex({value}))"
    if kind == "date":
        return f"date_diff('day', DATE '1970-01-01', {value})::VARCHAR"
    if kind in ("time", "timestamp", "timestamptz"):
        return f"epoch_us({value})::VARCHAR"
    if kind == "interval":
        return f"concat({value}.months, ' ', {value}.days, ' ', {value}.micros)"
    if kind == "point":
        return f"CAST({value}.x AS BIT)::VARCHAR || ' ' || CAST({value}.y AS BIT)::VARCHAR"
    if kind == "hstore":
        item = f"e{depth}"
        shown = f"coalesce(length({item}.value)::VARCHAR || ':' || {item}.value, '~')"
        each = f"concat(length({item}.key), ':', {item}.key, '=', {shown})"
        return f"array_to_string(list_transform(map_entries({value}), lambda {item}: {each}), ',')"
    return f"{value}::VARCHAR"


class Reader:
    def __init__(self):
        self.db = connect()

    def state(self, lake):
        """{namespace.table: metadata location} of all tables, by one SELECT: one lake commit."""
        path = os.path.join(lake, "catalog.db")
        catalog = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
        try:
            rows = catalog.execute(
                "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables"
            ).fetchall()
        finally:
            catalog.close()
        return {f"{n}.{t}": m.removeprefix("file://") for n, t, m in rows}

    def nessie_state(self, api, branch, at):
        """The hash (the branch's newest unless `at` names one) and, in that one state, the tables."""
        at = at or get(f"{api}/trees/{branch}")["reference"]["hash"]
        locations, page = {}, {}
        while True:
            query = urllib.parse.urlencode({"content": "true", "max-records": 100, **page})
            answer = get(f"{api}/trees/{branch}@{at}/entries?{query}")
            for entry in answer["entries"]:
                if entry["type"] == "ICEBERG_TABLE":
                    name = ".".join(entry["name"]["elements"])
                    locations[name] = entry["content"]["metadataLocation"]
            if not answer["hasMore"]:
                return {"hash": at, "locations": locations}
            page = {"page-token": answer["token"]}

    def s3(self, key_id, secret, endpoint, region):
        """From now on s3:// is reached there; `endpoint` is host:port, without TLS."""
        self.db.execute(
            f"CREATE OR REPLACE SECRET s3 (TYPE s3, KEY_ID {literal(key_id)}, "
            f"SECRET {literal(secret)}, ENDPOINT {literal(endpoint)}, REGION {literal(region)}, "
            "URL_STYLE 'path', USE_SSL false)"
        )
        # A file of a lake never changes.
        self.db.execute("SET enable_http_metadata_cache=true")
        self.db.execute("SET parquet_metadata_cache=true")

    def attach(self, uri):
        """Attaches an Iceberg REST catalog anew as `d`, so that nothing is read from a cache."""
        self.db.execute("DETACH DATABASE IF EXISTS d")
        self.db.execute(
            f"ATTACH '' AS d (TYPE iceberg, ENDPOINT {literal(uri)}, AUTHORIZATION_TYPE 'none', "
            "ACCESS_DELEGATION_MODE 'none')"
        )

    def query(self, sql):
        """All rows as text; NULL is null."""
        rows = self.db.execute(sql).fetchall()
        return [[None if v is None else str(v) for v in row] for row in rows]

    def compare(self, relation, columns, csv):
        """The rows of `relation` (FROM item) against a CSV of canonical texts."""
        types = {
            row[0]: row[1] for row in self.db.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
        }
        wrong = [
            f"{c['name']}: {types.get(c['name'], 'missing')}, not {expected_type(c)}"
            for c in columns
            if not same_type(expected_type(c), types.get(c["name"], "missing"))
        ]
        if wrong:
            raise ValueError("lake columns: " + "; ".join(wrong))
        self.load_source(columns, csv)
        chosen = ", ".join(
            f"{self.lake_text(c, '_pg_raw' in types)} AS {quoted(c['name'])}" for c in columns
        )
        self.db.execute(f"CREATE OR REPLACE TEMP TABLE lake AS SELECT {chosen} FROM {relation}")
        known = {c["name"] for c in columns}
        return {
            "source": self.summary("source", columns),
            "lake": self.summary("lake", columns),
            "missing": self.difference("source", "lake"),
            "unexpected": self.difference("lake", "source"),
            "other_columns": [n for n in types if n not in known],
        }

    def lake_text(self, column, has_raw):
        name = quoted(column["name"])
        raw = f"'raw:' || _pg_raw[{literal(column['name'])}]" if has_raw else "NULL"
        # The table column, not a NULL of the lambda, decides: a NULL list stays NULL.
        return f"CASE WHEN {name} IS NULL THEN {raw} ELSE {canonical(column, name)} END"

    def load_source(self, columns, csv):
        names = ", ".join(f"{literal(c['name'])}: 'VARCHAR'" for c in columns)
        self.db.execute(
            f"CREATE OR REPLACE TEMP TABLE source AS SELECT * FROM read_csv({literal(csv)}, "
            f"columns={{{names}}}, header=false, delim=',', quote='\"', escape='\"', "
            "nullstr='~NULL~', allow_quoted_nulls=false, auto_detect=false, parallel=false, "
            "strict_mode=true, max_line_size=134217728, buffer_size=268435456)"
        )

    def summary(self, table, columns):
        row = ", ".join(quoted(c["name"]) for c in columns)
        count, total = self.db.execute(
            f"SELECT count(*), coalesce(sum(hash(row({row}))::HUGEINT), 0)::VARCHAR FROM {table}"
        ).fetchone()
        return {"rows": count, "content_hash": total}

    def difference(self, left, right):
        rows = self.db.execute(
            f"SELECT * FROM (SELECT * FROM {left} EXCEPT ALL SELECT * FROM {right}) LIMIT {SHOWN}"
        ).fetchall()
        return [[None if v is None else v[:200] for v in row] for row in rows]


def main():
    reader = Reader()
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        try:
            answer = {"ok": getattr(reader, op)(**request)}
        except Exception as error:  # every failure belongs to the test that asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
