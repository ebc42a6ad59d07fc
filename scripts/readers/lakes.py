"""The catalogs that frazil writes into, and what a reader must know of each to find the tables."""

import json
import os
import pathlib
import sqlite3
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import fixtures
from machine import Failure, Server, answers, dies_with_us, free_port, run, say, script

KEY, SECRET, REGION, BUCKET = "lakeadmin", "lakeadmin123", "us-east-1", "lake"
SQL_CATALOG = "frazil"  # the name under which frazil's tables stand in an SQL catalog


def get_json(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


class S3:
    """A MinIO with one bucket."""

    def __init__(self, work):
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        binary, data = script("minio-binary"), work / "s3"
        data.mkdir()
        server = ["server", data, "--address", f"127.0.0.1:{self.port}"]
        self.server = Server(
            "MinIO",
            dies_with_us(binary, *server),
            work / "minio.log",
            lambda: answers(f"{self.endpoint}/minio/health/ready"),
            env={
                **os.environ,
                "MINIO_ROOT_USER": KEY,
                "MINIO_ROOT_PASSWORD": SECRET,
                "MINIO_BROWSER": "off",
                "MINIO_CALLHOME_ENABLE": "off",
            },
        )
        signed = ["--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", f"{KEY}:{SECRET}"]
        run("curl", "-fsS", *signed, "-X", "PUT", f"{self.endpoint}/{BUCKET}")

    def environment(self):
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def job(self):
        return {"endpoint": self.endpoint, "key": KEY, "secret": SECRET, "region": REGION}


class Frazil:
    """The program under test."""

    def __init__(self, program, postgres):
        self.program, self.postgres = program, postgres
        self.version = run(program, "--version").split()[-1]
        self.help = run(program, "run", "--help")

    def catch_up(self, name, log, target, environment):
        """Brings the lake called `name` to where Postgres is now."""
        command = [self.program, "run", self.postgres.dsn(), *target]
        command += ["--slot", f"matrix_{name}", "--publication", "matrix", "--until-caught-up"]
        command += ["--tables", f"{fixtures.NAMESPACE}.*"]
        with open(log, "ab") as out:
            ended = subprocess.run(
                dies_with_us(*command), stdout=out, stderr=out, env={**os.environ, **environment}
            )
        if ended.returncode != 0:
            tail = pathlib.Path(log).read_text(errors="replace").splitlines()[-15:]
            raise Failure(f"frazil run ({name}): exit {ended.returncode}\n" + "\n".join(tail))


class Folder:
    """The SQL catalog in SQLite, files in a folder."""

    name, title = "folder", "SQL catalog in a folder (SQLite)"

    def __init__(self, work):
        self.folder = work / "folder"
        self.target = ["--into", self.folder]
        self.environment = {}

    def locations(self):
        catalog = sqlite3.connect(f"file:{self.folder / 'catalog.db'}?mode=ro", uri=True)
        with catalog:
            return dict(
                catalog.execute(
                    "SELECT table_name, metadata_location FROM iceberg_tables "
                    "WHERE table_namespace = ?",
                    [fixtures.NAMESPACE],
                )
            )

    def metadata(self, table):
        location = self.locations()[table].removeprefix("file://")
        return json.loads(pathlib.Path(location).read_text())

    def mark(self):
        """What time travel needs to come back to the present state: snapshot ids by table."""
        return {table: self.metadata(table)["current-snapshot-id"] for table in self.locations()}

    def job(self):
        return {
            "catalog": self.name,
            "folder": str(self.folder),
            "catalog_name": SQL_CATALOG,
            "jdbc": f"jdbc:sqlite:{self.folder / 'catalog.db'}",
            "sqlalchemy": f"sqlite:///{self.folder / 'catalog.db'}",
            "warehouse": f"file://{self.folder}",
            "locations": self.locations(),
        }


class PostgresCatalog:
    """The SQL catalog in Postgres, files in S3."""

    name, title = "postgres", "SQL catalog in Postgres, files in S3"

    def __init__(self, work, s3, postgres):
        self.s3, self.postgres, self.database = s3, postgres, "catalog"
        postgres.sql(f"CREATE DATABASE {self.database}")
        self.warehouse = f"s3://{BUCKET}/sql"
        self.target = ["--catalog", postgres.dsn(self.database), "--warehouse", self.warehouse]
        self.environment = s3.environment()

    def locations(self):
        options = ["-X", "-q", "-A", "-t", "-d", self.postgres.dsn(self.database)]
        asked = (
            "SELECT json_object_agg(table_name, metadata_location) FROM iceberg_tables "
            f"WHERE table_namespace = '{fixtures.NAMESPACE}'"
        )
        return json.loads(run(str(self.postgres.bin / "psql"), *options, "-c", asked))

    def metadata(self, table):
        path = self.locations()[table].removeprefix("s3://")
        signed = ["--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", f"{KEY}:{SECRET}"]
        return json.loads(run("curl", "-fsS", "--compressed", *signed, f"{self.s3.endpoint}/{path}"))

    mark = Folder.mark

    def job(self):
        address = f"127.0.0.1:{self.postgres.port}/{self.database}"
        return {
            "catalog": self.name,
            "catalog_name": SQL_CATALOG,
            "jdbc": f"jdbc:postgresql://{address}?user=postgres",
            "jdbc_address": f"jdbc:postgresql://{address}",
            "sqlalchemy": f"postgresql+psycopg2://postgres@{address}",
            "warehouse": self.warehouse,
            "locations": self.locations(),
            "s3": self.s3.job(),
        }


class Nessie:
    """Nessie's Iceberg REST, files in S3."""

    name = "nessie"

    def __init__(self, work, s3):
        self.s3, port, management = s3, free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        jar = script("nessie-jar")
        # nessie-quarkus-0.99.0-runner.jar
        self.title = f"Nessie {pathlib.Path(jar).name.split('-')[2]}, files in S3"
        properties = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": port,
            "quarkus.management.host": "127.0.0.1",
            "quarkus.management.port": management,
            "quarkus.otel.sdk.disabled": "true",
            "nessie.version.store.type": "IN_MEMORY",
            "nessie.catalog.default-warehouse": "warehouse",
            "nessie.catalog.warehouses.warehouse.location": f"s3://{BUCKET}/nessie",
            "nessie.catalog.service.s3.default-options.endpoint": s3.endpoint,
            "nessie.catalog.service.s3.default-options.path-style-access": "true",
            "nessie.catalog.service.s3.default-options.region": REGION,
            # Nessie refuses unknown properties that begin with its own name.
            "nessie.catalog.service.s3.default-options.access-key": "urn:nessie-secret:quarkus:lake",
            "lake.name": KEY,
            "lake.secret": SECRET,
        }
        small = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        defined = [f"-D{name}={value}" for name, value in properties.items()]
        self.server = Server(
            "Nessie",
            dies_with_us(script("java21"), *small, *defined, "-jar", jar),
            work / "nessie.log",
            lambda: answers(f"http://127.0.0.1:{management}/q/health/ready"),
        )
        self.target = ["--catalog", f"nessie+{self.url}/iceberg", "--ref", "main"]
        self.environment = s3.environment()

    def locations(self):
        tables = {table for fixture in fixtures.FIXTURES for table in [fixture.table]}
        return {table: self.table(table)["metadata-location"] for table in sorted(tables)}

    def table(self, table):
        path = f"namespaces/{fixtures.NAMESPACE}/tables/{table}"
        return get_json(f"{self.url}/iceberg/v1/main/{path}")

    def metadata(self, table):
        return self.table(table)["metadata"]

    def mark(self):
        """The hash of the Nessie commit that is the present state of all tables."""
        return get_json(f"{self.url}/api/v2/trees/main")["reference"]["hash"]

    def job(self):
        return {
            "catalog": self.name,
            "rest": f"{self.url}/iceberg",
            "ref": "main",
            "warehouse": "warehouse",
            "locations": self.locations(),
            "s3": self.s3.job(),
        }


def open_lakes(names, work, frazil, postgres):
    """The chosen lakes, empty; and the servers under them."""
    lakes, s3 = [], None
    if missing := [name for name in names if name != "folder" and "--catalog" not in frazil.help]:
        raise Failure(f"this frazil knows no --catalog, which {', '.join(missing)} needs")
    for name in names:
        if name != "folder" and s3 is None:
            s3 = S3(work)
        if name == "folder":
            lakes.append(Folder(work))
        elif name == "postgres":
            lakes.append(PostgresCatalog(work, s3, postgres))
        else:
            lakes.append(Nessie(work, s3))
    return lakes


def fill(postgres, frazil, lakes, work):
    """Runs the workload, frazil after each step; what is right, and where the earlier state is."""
    right = {}
    scripts = fixtures.scripts()
    for at, text in enumerate(scripts):
        postgres.sql(text)
        for lake in lakes:
            frazil.catch_up(lake.name, work / f"frazil-{lake.name}.log", lake.target, lake.environment)
        say(f"step {at + 1} of {len(scripts)} is in {', '.join(lake.name for lake in lakes)}")
        if at == fixtures.EARLIER:
            marks = {lake.name: lake.mark() for lake in lakes}
        for fixture in fixtures.FIXTURES:
            if at == (fixtures.EARLIER if fixture.earlier else len(scripts) - 1):
                relation = f"{fixtures.NAMESPACE}.{fixture.table}"
                right[fixture.name] = [postgres.answer(q, relation) for q in fixture.queries]
    check(lakes)
    return right, marks


def current_snapshot(metadata):
    current = metadata["current-snapshot-id"]
    return next(s for s in metadata["snapshots"] if s["snapshot-id"] == current)


def check(lakes):
    """That the fixtures are what they are meant to be, by the lakes' own metadata."""
    steps = len(fixtures.SEGMENTED_STEPS)
    for lake in lakes:
        for table in ("eq", "evolved", "two_keys", "segmented"):
            summary = current_snapshot(lake.metadata(table))["summary"]
            if int(summary.get("total-equality-deletes", 0)) == 0:
                raise Failure(f"{lake.name}: {table} has no equality deletes: {summary}")
        # One lake commit a step would end at `steps`: what is more came from segments.
        segments = current_snapshot(lake.metadata("segmented"))["sequence-number"] - steps + 1
        say(f"{lake.name}: the huge source transaction has {segments} segments")
        if segments < 3:
            raise Failure("the huge source transaction was not written in segments")
