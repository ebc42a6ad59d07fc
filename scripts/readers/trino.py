"""Trino: the server without its plugins but Iceberg's, asked over HTTP."""

import json
import shutil
import time
import urllib.error
import urllib.request
import zipfile

import values
from machine import (
    READERS_CACHE,
    Failure,
    Server,
    artifact,
    dies_with_us,
    free_port,
    java,
    making,
)

VERSION = "476"
NODE_TRIES = 30
# The SQLite driver is not part of Trino; it is put beside the plugin, as an administrator would.
SQLITE_DRIVER = "org.xerial:sqlite-jdbc:3.50.3.0"
JVM = [
    "-Xmx1G",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djdk.attach.allowAttachSelf=true",
    "-Dfile.encoding=UTF-8",
    "--add-modules=jdk.incubator.vector",
]  # fmt: skip


def installed():
    """The folder of an unpacked server, made once."""
    folder = READERS_CACHE / f"trino-{VERSION}"
    if not folder.exists():
        server = artifact(f"io.trino:trino-server-core:{VERSION}:tar.gz")
        plugin = artifact(f"io.trino:trino-iceberg:{VERSION}:zip")
        with making(folder) as made:
            made.mkdir()
            shutil.unpack_archive(server, made)
            core = made / f"trino-server-core-{VERSION}"
            # Not shutil.unpack_archive: it leaves out names with two dots, as these jars have.
            with zipfile.ZipFile(plugin) as archive:
                archive.extractall(core / "plugin")
            shutil.copy(artifact(SQLITE_DRIVER), core / "plugin" / f"trino-iceberg-{VERSION}")
    return folder / f"trino-server-core-{VERSION}"


def settings(job, mark=None):
    """A catalog as a user would set it; `mark` is a Nessie hash for an earlier state."""
    found = {"connector.name": "iceberg"}
    if job["catalog"] == "nessie":
        found |= {
            "iceberg.catalog.type": "rest",
            "iceberg.rest-catalog.uri": job["rest"],
            "iceberg.rest-catalog.prefix": job["ref"] if mark is None else f"{job['ref']}@{mark}",
        }
    else:
        driver = "org.sqlite.JDBC" if job["catalog"] == "folder" else "org.postgresql.Driver"
        found |= {
            "iceberg.catalog.type": "jdbc",
            "iceberg.jdbc-catalog.catalog-name": job["catalog_name"],
            "iceberg.jdbc-catalog.driver-class": driver,
            "iceberg.jdbc-catalog.connection-url": job.get("jdbc_address", job["jdbc"]),
            "iceberg.jdbc-catalog.schema-version": "V1",
            "iceberg.jdbc-catalog.default-warehouse-dir": job["warehouse"],
        }
        if job["catalog"] == "postgres":
            found |= {"iceberg.jdbc-catalog.connection-user": "postgres"}
            found |= {"iceberg.jdbc-catalog.connection-password": "none"}
    if s3 := job.get("s3"):
        found |= {
            "fs.native-s3.enabled": "true",
            "s3.endpoint": s3["endpoint"],
            "s3.region": s3["region"],
            "s3.path-style-access": "true",
            "s3.aws-access-key": s3["key"],
            "s3.aws-secret-key": s3["secret"],
        }
    else:
        found |= {"fs.native-local.enabled": "true", "local.location": "/"}
    return found


def write(file, properties):
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


class Trino:
    def __init__(self, work, jobs):
        """Starts a server with one catalog a job, and one more a job that travels in Nessie."""
        home, java_home, port = installed(), java(24, 99), free_port()
        self.url = f"http://127.0.0.1:{port}"
        folder = work / "trino"
        (folder / "catalog").mkdir(parents=True)
        (folder / "data").mkdir()
        common = {"node.environment": "matrix", "node.id": "matrix", "node.data-dir": folder / "data"}
        write(
            folder / "config.properties",
            {
                "coordinator": "true",
                "node-scheduler.include-coordinator": "true",
                "http-server.http.port": port,
                "node.internal-address": "127.0.0.1",
                "discovery.uri": self.url,
                "query.max-memory-per-node": "500MB",
            },
        )
        for job in jobs:
            write(folder / f"catalog/{job['catalog']}.properties", settings(job))
            if job["catalog"] == "nessie":
                write(folder / "catalog/earlier.properties", settings(job, job["mark"]))
        (folder / "log.properties").write_text("io.trino=WARN\n")
        defined = {
            **common,
            "log.levels-file": folder / "log.properties",
            "config": folder / "config.properties",
            "catalog.config-dir": folder / "catalog",
            "plugin.dir": home / "plugin",
        }
        command = [java_home / "bin/java", *JVM, *(f"-D{n}={v}" for n, v in defined.items())]
        command += ["-cp", f"{home}/lib/*", "io.trino.server.TrinoServer"]
        self.server = Server(
            "Trino", dies_with_us(*command), work / "trino.log", self.is_up, cwd=folder / "data"
        )

    def is_up(self):
        try:
            with urllib.request.urlopen(f"{self.url}/v1/info", timeout=3) as response:
                return not json.load(response)["starting"]
        except (OSError, urllib.error.URLError):
            return False

    def rows(self, sql):
        for _ in range(NODE_TRIES):
            try:
                return self.rows_now(sql)
            except Failure as failure:
                # A server that says it has started may still not know itself as a node.
                if "NO_NODES_AVAILABLE" not in str(failure):
                    raise
                time.sleep(1)
        return self.rows_now(sql)

    def rows_now(self, sql):
        headers = {
            "X-Trino-User": "matrix",
            "X-Trino-Time-Zone": "UTC",
            # Without it Trino rounds timestamps to milliseconds.
            "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",
        }
        request = urllib.request.Request(f"{self.url}/v1/statement", sql.encode(), headers)
        rows, retries = [], 0
        while True:
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    page = json.load(response)
            except urllib.error.HTTPError as error:
                # The protocol's word for: come again.
                if error.code not in (502, 503, 504) or retries > 50:
                    raise
                retries += 1
                time.sleep(0.2)
                continue
            if error := page.get("error"):
                raise Failure(f"{error['errorName']}: {error['message']}")
            rows += page.get("data", [])
            if "nextUri" not in page:
                return rows
            request = urllib.request.Request(page["nextUri"], headers=headers)


def relation(job, question):
    """The table as Trino names it; `mark` is there for an earlier state."""
    table, mark = question["table"], question["mark"]
    if mark is None:
        return f"{job['catalog']}.{job['namespace']}.{table}"
    if job["catalog"] == "nessie":
        return f"earlier.{job['namespace']}.{table}"
    return f"{job['catalog']}.{job['namespace']}.{table} FOR VERSION AS OF {mark[table]}"


def ask(work, jobs):
    """Yields the answers to each job."""
    trino = Trino(work, jobs)
    try:
        for job in jobs:
            found = []
            for question in job["questions"]:
                sql = question["sql"].replace("{relation}", relation(job, question))
                found.append(values.ask(question["kinds"], lambda: trino.rows(sql)))
            yield {"version": f"Trino {VERSION}", "answers": found}
    finally:
        trino.server.stop()
