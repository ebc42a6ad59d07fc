"""DuckDB with its Iceberg extension; a program of its own: JOB.json in, ANSWERS.json out."""

import glob
import json
import os
import sys

import duckdb

import values


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def connect(job):
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    root = os.path.dirname(os.path.dirname(duckdb.__file__))
    for name in ("avro", "iceberg", "httpfs"):
        found = glob.glob(f"{root}/duckdb_extension_{name}/extensions/*/*.duckdb_extension")
        connection.execute(f"LOAD {literal(found[0])}")
    connection.execute("SET TimeZone='UTC'; SET memory_limit='2GB'; SET threads=2")
    if s3 := job.get("s3"):
        endpoint = s3["endpoint"].removeprefix("http://")
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID {literal(s3['key'])}, SECRET {literal(s3['secret'])}, "
            f"REGION {literal(s3['region'])}, ENDPOINT {literal(endpoint)}, URL_STYLE 'path', USE_SSL false)"
        )
    if job["catalog"] == "nessie":
        connection.execute(
            f"ATTACH {literal(job['warehouse'])} AS lake (TYPE iceberg, ENDPOINT {literal(job['rest'])}, "
            "AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')"
        )
    return connection


def relation(job, question):
    """The table as DuckDB names it; `mark` is there for an earlier state."""
    table, mark = question["table"], question["mark"]
    if job["catalog"] == "nessie":
        name = table if mark is None else f"{table}@{job['ref']}#{mark}"
        return f'lake.{job["namespace"]}."{name}"'
    location = literal(job["locations"][table].removeprefix("file://"))
    if mark is None:
        return f"iceberg_scan({location})"
    return f"iceberg_scan({location}, snapshot_from_id => {mark[table]})"


def main():
    job = json.load(open(sys.argv[1]))
    connection = connect(job)
    answers = []
    for question in job["questions"]:
        sql = question["sql"].replace("{relation}", relation(job, question))
        answers.append(values.ask(question["kinds"], lambda: connection.execute(sql).fetchall()))
    json.dump({"version": f"DuckDB {duckdb.__version__}", "answers": answers}, open(sys.argv[2], "w"))


main()
