"""Postgres and frazil in containers, for tests that write to Postgres and read the lake.

with FrazilLake() as lake:
    ...  # create tables and write rows at lake.postgres_url
    lake.wait_now()
    ...  # read the Iceberg tables in lake.folder
"""

import os
import tempfile
from contextlib import ExitStack

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.community.postgres import PostgresContainer


class FrazilLake:
    def __enter__(self):
        with ExitStack() as stack:
            # frazil sees the folder under the same path, so that the locations in its metadata are right
            # on both sides, and runs as this user, who can read and delete what it writes.
            self.folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="frazil-lake-"))
            self._network = stack.enter_context(Network())
            image = os.environ.get("POSTGRES_IMAGE", "postgres:17")
            self._postgres = stack.enter_context(
                PostgresContainer(image, driver=None)
                .with_command("postgres -c wal_level=logical -c fsync=off")
                .with_network(self._network)
                .with_network_aliases("postgres")
            )
            self.postgres_url = self._postgres.get_connection_url()
            self._frazil = None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def follow(self):
        """Starts frazil, once: it copies the tables there are and follows them."""
        if self._frazil:
            return
        user, password, name = (getattr(self._postgres, n) for n in ("username", "password", "dbname"))
        # The server has no certificate, and only its own network.
        source = f"postgres://{user}:{password}@postgres:5432/{name}?sslmode=disable"
        self._frazil = self._stack.enter_context(
            DockerContainer(os.environ.get("FRAZIL_IMAGE", "frazil:latest"))
            .with_command("run")
            # In the environment, so that `wait` and `status` in the container see it too.
            .with_env("FRAZIL_SOURCE__URL", source)
            .with_env("FRAZIL_LAKE__INTO", self.folder)
            .with_env("FRAZIL_COMMIT__INTERVAL", "100ms")
            .with_volume_mapping(self.folder, self.folder, "rw")
            .with_network(self._network)
            .with_kwargs(user=f"{os.getuid()}:{os.getgid()}")
        )

    def wait_now(self):
        """Returns once the lake holds all that is committed in Postgres now."""
        self.call("wait", "--now")

    def call(self, *arguments):
        """Calls a verb of frazil in its container; gives what it printed."""
        self.follow()
        status, output = self._frazil.exec(["/usr/bin/frazil", *arguments])
        if status != 0:
            _, log = self._frazil.get_logs()
            raise RuntimeError(f"frazil {arguments}: {output.decode()}\n{log.decode()}")
        return output.decode()
