"""A real S3 server on loopback for rows and tests: VersityGW as ``packaging/test-s3-server`` built it, or one named
by ``TEST_MINIO_ENDPOINT``, ``TEST_MINIO_ACCESS_KEY`` and ``TEST_MINIO_SECRET_KEY``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from hearth.bench.processes import end
from hearth.bench.row import Skipped

BUILDER = Path(__file__).parents[3] / "packaging/test-s3-server"
BUILD_TIMEOUT_S = 280.0
START_TIMEOUT_S = 60.0
PAUSE_S = 0.02
PORTS = range(20_000, 32_000)
"""Below what Linux gives to whoever connects or binds to none (ip_local_port_range)."""
REGION = "us-east-1"
ACCESS_KEY = "test-access"


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where it listens and who may write there."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    def store(self, bucket: str) -> S3Store:
        """Give a client for putting objects into a bucket."""
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region=REGION,
            client_options={"allow_http": True, "timeout": "300s", "pool_max_idle_per_host": "0"},
        )

    @contextlib.contextmanager
    def own_bucket(self, prefix: str) -> Iterator[str]:
        """Make a bucket that nobody else has, and remove it with all that is in it: the server may be others', too."""
        name = f"{prefix}-{secrets.token_hex(6)}"
        self.make_bucket(name)
        try:
            yield name
        finally:
            store = self.store(name)
            for page in store.list():
                obstore.delete(store, [found["path"] for found in page])
            self._ask("DELETE", name, {HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.NOT_FOUND})

    def make_bucket(self, name: str) -> None:
        """Make a bucket; one that is ours already is fine."""
        self._ask("PUT", name, {HTTPStatus.OK, HTTPStatus.CONFLICT})

    def _ask(self, method: Literal["PUT", "DELETE"], name: str, expected: Set[int]) -> None:
        """Ask for a bucket by a signed URL: the client library has no call for it."""
        url = obstore.sign(self.store(name), method, "", timedelta(minutes=5))
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=START_TIMEOUT_S)
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=START_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, f"{parts.path}?{parts.query}")
            status = connection.getresponse().status
        if status not in expected:
            raise OSError(f"{method} of the bucket {name}: HTTP {status}")


def configured(environment: Mapping[str, str] = os.environ) -> S3Server | None:
    """Give the server that the environment names, if it does."""
    endpoint = environment.get("TEST_MINIO_ENDPOINT")
    if not endpoint:
        return None
    return S3Server(
        endpoint=endpoint if "://" in endpoint else f"http://{endpoint}",
        access_key=environment.get("TEST_MINIO_ACCESS_KEY", ""),
        secret_key=environment.get("TEST_MINIO_SECRET_KEY", ""),
    )


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Give the configured server, or start one with a data directory of its own that goes with it.

    Raises:
        Skipped: it is not built and cannot be; says what is missing.
    """
    if named := configured():
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="s3-") as directory, own_s3_server(Path(directory)) as (server, _):
        yield server


@contextlib.contextmanager
def own_s3_server(directory: Path, secret_key: str | None = None) -> Iterator[tuple[S3Server, subprocess.Popen[bytes]]]:
    """Start a server over a directory, which may hold what an earlier one was given, and give its process, too.

    Raises:
        Skipped: it is not built and cannot be; says what is missing.
    """
    (directory / "data").mkdir(exist_ok=True)
    port = _free_port()
    server = S3Server(
        endpoint=f"http://127.0.0.1:{port}",
        access_key=ACCESS_KEY,
        secret_key=secret_key or secrets.token_hex(16),
    )
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(_binary(), "--port", f"127.0.0.1:{port}", "--keep-alive", "--quiet", "--region", REGION),
                *("posix", f"{directory}/data"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key},
        )
    try:
        _wait_for(port, process, directory / "log")
        yield server, process
    finally:
        end(process)


def _free_port() -> int:
    """Give a port that nobody has, of those that nobody is given unasked before the server listens at it."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _binary() -> str:
    if not BUILDER.is_file():
        raise Skipped("the S3 server of the tests is built from a source tree; set TEST_MINIO_ENDPOINT")
    done = subprocess.run([BUILDER], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise Skipped(f"packaging/test-s3-server: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(PAUSE_S)
    raise OSError(f"the S3 server did not start: {log.read_text(errors='replace')[-500:]}")
