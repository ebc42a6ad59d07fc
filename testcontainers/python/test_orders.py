"""Orders written to Postgres are in the lake, as frazil counts them and as DuckDB reads them."""

import glob
import json
import os
import sqlite3

import duckdb
import psycopg

from frazil_lake import FrazilLake


def iceberg(folder, namespace, table):
    """The rows of a lake table, as a DuckDB relation."""
    with sqlite3.connect(f"file:{folder}/catalog.db?mode=ro", uri=True) as catalog:
        (location,) = catalog.execute(
            "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?",
            (namespace, table),
        ).fetchone()
    db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    packages = os.path.dirname(os.path.dirname(duckdb.__file__))
    for name in ("avro", "iceberg"):
        (path,) = glob.glob(f"{packages}/duckdb_extension_{name}/extensions/*/*.duckdb_extension")
        db.load_extension(path)
    return db.sql(f"FROM iceberg_scan('{location.removeprefix('file://')}')")


def test_orders_reach_the_lake():
    with FrazilLake() as lake, psycopg.connect(lake.postgres_url, autocommit=True) as postgres:
        postgres.execute("CREATE TABLE orders (id int PRIMARY KEY, total numeric(12,2) NOT NULL)")
        postgres.execute("INSERT INTO orders SELECT n, n FROM generate_series(1, 1000) n")
        lake.wait_now()
        assert iceberg(lake.folder, "public", "orders").count("*").fetchone() == (1000,)

        postgres.execute("UPDATE orders SET total = total + 0.5 WHERE id <= 10")
        postgres.execute("DELETE FROM orders WHERE id > 900")
        lake.wait_now()
        expected = postgres.execute("SELECT count(*), sum(total) FROM orders").fetchone()
        seen = iceberg(lake.folder, "public", "orders").aggregate("count(*), sum(total)").fetchone()
        assert seen == expected
        status = json.loads(lake.call("status", "--exact", "--output", "json"))
        assert [table["rows"] for table in status["tables"]] == [900]
