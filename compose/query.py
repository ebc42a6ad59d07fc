"""A query on the lake with DuckDB, through Nessie: compose/query.py 'SELECT count(*) FROM lake.shop.orders'

Needs the Python packages of `scripts/setup test`. Credentials and ports come from .env beside this file; the
environment decides over it.
"""

import glob
import os
import sys

import duckdb

here = os.path.dirname(os.path.abspath(__file__))
with open(f"{here}/.env") as file:
    pairs = [line.strip().split("=", 1) for line in file if "=" in line and line[0] != "#"]
settings = {name: os.environ.get(name, value) for name, value in pairs}

packages = os.path.dirname(os.path.dirname(duckdb.__file__))
db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
for extension in ("avro", "httpfs", "iceberg"):
    (path,) = glob.glob(f"{packages}/duckdb_extension_{extension}/extensions/*/*.duckdb_extension")
    db.load_extension(path)
db.execute(
    f"""CREATE SECRET (TYPE s3, KEY_ID '{settings["S3_ACCESS_KEY"]}', SECRET '{settings["S3_SECRET_KEY"]}',
        REGION 'us-east-1', ENDPOINT '127.0.0.1:{settings["S3_PORT"]}', URL_STYLE 'path', USE_SSL false)"""
)
# DuckDB signs by itself: without the mode it would wait for Nessie to do it.
db.execute(
    f"""ATTACH '' AS lake (TYPE iceberg, ENDPOINT 'http://127.0.0.1:{settings["NESSIE_PORT"]}/iceberg',
        AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')"""
)
for row in db.execute(sys.argv[1]).fetchall():
    print(*row, sep="|")
