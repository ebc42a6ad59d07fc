"""Spark with Iceberg's runtime; a program of its own: JOB.json in, ANSWERS.json out."""

import json
import sys

from pyspark.sql import SparkSession

import values


def settings(job):
    """The catalog `lake` (an SQL catalog's tables stand under its name), as a user would set it."""
    name = catalog_name(job)
    lake = f"spark.sql.catalog.{name}"
    found = {lake: "org.apache.iceberg.spark.SparkCatalog"}
    if job["catalog"] == "nessie":
        found |= {f"{lake}.type": "rest", f"{lake}.uri": f"{job['rest']}/{job['ref']}"}
    else:
        found |= {
            f"{lake}.type": "jdbc",
            f"{lake}.uri": job["jdbc"],
            f"{lake}.jdbc.schema-version": "V1",
            f"{lake}.warehouse": job["warehouse"],
        }
    if s3 := job.get("s3"):
        found |= {
            f"{lake}.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            f"{lake}.s3.endpoint": s3["endpoint"],
            f"{lake}.s3.access-key-id": s3["key"],
            f"{lake}.s3.secret-access-key": s3["secret"],
            f"{lake}.s3.path-style-access": "true",
            f"{lake}.s3.remote-signing-enabled": "false",
            f"{lake}.client.region": s3["region"],
        }
    return found


def catalog_name(job):
    return job.get("catalog_name", "lake")


def session(job):
    builder = SparkSession.builder.master("local[2]").appName("reader-matrix")
    fixed = {
        "spark.jars": ",".join(job["jars"]),
        "spark.driver.memory": "1g",
        "spark.driver.maxResultSize": "0",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": job["scratch"],
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    }
    for name, value in {**fixed, **settings(job)}.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def relation(job, question):
    """The table as Spark names it; `mark` is there for an earlier state."""
    table, mark = question["table"], question["mark"]
    namespace = f"{catalog_name(job)}.{job['namespace']}"
    if mark is None:
        return f"{namespace}.{table}"
    if job["catalog"] == "nessie":
        return f"{namespace}.`{table}@{job['ref']}#{mark}`"
    return f"{namespace}.{table} VERSION AS OF {mark[table]}"


def main():
    job = json.load(open(sys.argv[1]))
    spark = session(job)
    runtime = next(jar for jar in job["jars"] if "iceberg-spark-runtime" in jar)
    iceberg = runtime.removesuffix(".jar").rpartition("-")[2]
    answers = []
    for question in job["questions"]:
        sql = question["sql"].replace("{relation}", relation(job, question))
        answers.append(values.ask(question["kinds"], lambda: spark.sql(sql).collect()))
    version = f"Spark {spark.version} with Iceberg {iceberg}"
    json.dump({"version": version, "answers": answers}, open(sys.argv[2], "w"))
    spark.stop()


main()
