"""PyIceberg; a program of its own: JOB.json in, ANSWERS.json out.

PyIceberg reads tables but has no SQL: it gets the filter, and DuckDB works on the Arrow table that
it returns.
"""

import json
import sys

import duckdb
import pyiceberg
from pyiceberg.catalog import load_catalog

import values


def open_catalog(job, mark):
    if job["catalog"] == "nessie":
        ref = job["ref"] if mark is None else f"{job['ref']}@{mark}"
        properties = {"type": "rest", "uri": f"{job['rest']}/{ref}"}
    else:
        properties = {"type": "sql", "uri": job["sqlalchemy"], "warehouse": job["warehouse"]}
    if s3 := job.get("s3"):
        properties |= {
            "s3.endpoint": s3["endpoint"],
            "s3.access-key-id": s3["key"],
            "s3.secret-access-key": s3["secret"],
            "s3.region": s3["region"],
        }
    return load_catalog(job.get("catalog_name", "lake"), **properties)


def rows_of(job, question, connection):
    mark = question["mark"]
    table = open_catalog(job, mark).load_table((job["namespace"], question["table"]))
    options = {"row_filter": question["filter"]} if question["filter"] else {}
    if mark is not None and job["catalog"] != "nessie":
        options["snapshot_id"] = mark[question["table"]]
    found = table.scan(**options).to_arrow()
    connection.register("found", found)
    return connection.execute(question["sql"].replace("{relation}", "found")).fetchall()


def main():
    job = json.load(open(sys.argv[1]))
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'")
    answers = []
    for question in job["questions"]:
        answers.append(
            values.ask(question["kinds"], lambda: rows_of(job, question, connection))
        )
    version = f"PyIceberg {pyiceberg.__version__}"
    json.dump({"version": version, "answers": answers}, open(sys.argv[2], "w"))


main()
