"""The private Postgres, which also says what is right."""

import csv
import io
import os
import pathlib
import signal
import subprocess

import values
from machine import Failure, Server, dies_with_us, free_port, run

NULL = "~NULL~"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "4GB",
    "jit": "off",
    "timezone": "UTC",
    "log_min_messages": "warning",
}


def binaries():
    """The folder of the newest PostgreSQL server here."""
    if named := os.environ.get("FRAZIL_PG_BIN"):
        return pathlib.Path(named)
    found = [p.parent for p in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise Failure("no PostgreSQL server found: run scripts/setup")
    return max(found, key=lambda folder: int(folder.parent.name))


class Postgres:
    def __init__(self, folder):
        """Starts a new server in `folder`, which must not exist."""
        self.bin, self.port = binaries(), free_port()
        # Postgres refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        if user:
            run("chown", user, str(folder))
        data = folder / "data"
        how = ["-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync"]
        run(*dies_with_us(self.bin / "initdb", *how, "-D", data, user=user), cwd="/")
        with open(data / "postgresql.conf", "a") as configuration:
            for name, value in {**SETTINGS, "port": self.port}.items():
                configuration.write(f"{name} = '{value}'\n")
        command = dies_with_us(self.bin / "postgres", "-D", data, user=user)
        self.server = Server("Postgres", command, folder.parent / "postgres.log", self.is_up, cwd="/")
        self.version = self.sql("SHOW server_version").split()[0]

    def dsn(self, database="postgres"):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def is_up(self):
        asked = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked).returncode == 0

    def sql(self, script):
        """Runs it statement by statement: what stands between BEGIN and COMMIT is one transaction."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn()]
        return run(str(self.bin / "psql"), *options, "-f", "-", input=script)

    def answer(self, query, relation):
        """What is right."""
        copied = self.sql(
            f"COPY ({query.of('postgres', relation)}) TO STDOUT WITH (FORMAT csv, NULL '{NULL}')"
        )
        rows = csv.reader(io.StringIO(copied, newline=""))
        return values.answer(
            query.kinds, [[None if text == NULL else text for text in row] for row in rows]
        )

    def stop(self):
        self.server.stop(signal.SIGINT)
