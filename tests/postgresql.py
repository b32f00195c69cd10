"""A PostgreSQL server for tests: on a Unix socket in a directory of its own, without fsync, ended with the run.

``TEST_POSTGRES_DSN`` names another server instead, as a user that may make databases; what needs to stop and start the
server is skipped then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL, make_url

NOBODY = 65534
READY_S = 60.0
END_S = 60.0
PAUSE_S = 0.02
OPTIONS = (
    *("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=16MB"),
    *("max_connections=60", "autovacuum=off", "max_wal_size=256MB", "max_worker_processes=0"),
)
"""Faster than safe: what is in it is worth nothing once the run is over."""


class Server:
    """A running server, or the address of somebody else's."""

    def __init__(self, admin: URL, cluster: Cluster | None = None) -> None:
        self.admin = admin
        self.cluster = cluster

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Make a database and give its URL; it is dropped afterwards, whoever is still connected."""
        name = f"hearth_test_{secrets.token_hex(6)}"
        # Without a locale of the host's: order by bytes, as SQLite does, is not to be relied on either way.
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def url(self, database: str) -> str:
        return self.admin.set(database=database).render_as_string(hide_password=False)

    def execute(self, statement: sql.Composed | sql.SQL) -> None:
        """Run one statement as the server's administrator.

        The server itself waits five seconds for the last connections to what is copied or dropped, which their clients
        have closed: on a busy host they may take longer to end.
        """
        deadline = time.monotonic() + END_S
        with connected(self.url(self.admin.database or "postgres")) as connection:
            while True:
                try:
                    connection.execute(statement)
                except psycopg.errors.ObjectInUse:
                    if time.monotonic() > deadline:
                        raise
                else:
                    return


class Cluster:
    """A server of our own: its directory, and its process while it runs."""

    def __init__(self, root: Path, programs: Path) -> None:
        self._root = root
        self._data = root / "data"
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> URL:
        return URL.create("postgresql", username="hearth", database="postgres", query={"host": str(self._root)})

    def make(self) -> None:
        """Make the data directory."""
        argv = ["initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=hearth"]
        made = subprocess.run(
            [*_as_nobody(), str(self._programs / argv[0]), *argv[1:], "-D", str(self._data)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self._root,
        )
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [word for option in OPTIONS for word in ("-c", option)]
        argv = [str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self._root), *options]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_nobody(), *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._root
            )
        deadline = time.monotonic() + READY_S
        while True:
            try:
                with connected(self.url.render_as_string(hide_password=False)):
                    return
            except psycopg.OperationalError:
                said = (self._root / "log").read_text()
                assert self._process.poll() is None and time.monotonic() < deadline, said
                time.sleep(PAUSE_S)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT cuts connections off, SIGQUIT leaves recovery for the next start."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(END_S)
            self._process = None


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Give the server that ``TEST_POSTGRES_DSN`` names, else one of our own; skip where there is neither."""
    if dsn := os.environ.get("TEST_POSTGRES_DSN"):
        yield Server(make_url(dsn))
        return
    found = find_programs()
    if found is None:
        pytest.skip("needs PostgreSQL: install the package postgresql, or set TEST_POSTGRES_DSN")
    # Not below this run's own temporary directory, which is closed to the user PostgreSQL runs as.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="hearth-postgresql-") as name:
        root = Path(name)
        if os.geteuid() == 0:
            os.chown(root, NOBODY, NOBODY)
        cluster = Cluster(root, found)
        cluster.make()
        cluster.start()
        try:
            yield Server(cluster.url, cluster)
        finally:
            cluster.stop()


def find_programs() -> Path | None:
    """Tell where initdb and postgres are: Debian keeps them off PATH, in a directory for each version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def connected(url: str) -> psycopg.Connection:
    """Connect without SQLAlchemy, each statement by itself."""
    parsed = make_url(url)
    return psycopg.connect(
        dbname=parsed.database,
        user=parsed.username,
        password=parsed.password,
        host=parsed.host or str(parsed.query.get("host", "")),
        port=parsed.port,
        autocommit=True,
    )


def _as_nobody() -> list[str]:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
