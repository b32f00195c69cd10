"""A Redis server for tests: on a Unix socket in a directory of its own, nothing kept, ended with its context."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = "redis-server"
READY_S = 30.0
END_S = 30.0
PAUSE_S = 0.01


@dataclass
class RedisServer:
    """A server that can be stopped, held up and started again at its place."""

    directory: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        kept_nowhere = ("--save", "", "--appendonly", "no", "--dir", str(self.directory), "--port", "0")
        command = [PROGRAM, *kept_nowhere, "--unixsocket", str(self.socket), *self.options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + READY_S
        while not self.listens():
            assert self.process.poll() is None and time.monotonic() < deadline_s, "redis-server did not start"
            time.sleep(PAUSE_S)

    def listens(self) -> bool:
        """Whether it takes connections; its socket is there a moment before that."""
        with socket.socket(socket.AF_UNIX) as asking:
            return asking.connect_ex(os.fspath(self.socket)) == 0

    def hold(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(END_S)
            self.process = None


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """Run a server; skips the test where there is none."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"needs {PROGRAM}: see packaging/apt-packages-dev.txt")
    directory = Path(tempfile.mkdtemp(prefix="hearth-redis-", dir="/tmp"))
    server = RedisServer(directory, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@contextlib.contextmanager
def redis_url() -> Iterator[str]:
    """Give the URL of the server that ``TEST_REDIS_URL`` names, else of one of our own; nobody may stop it."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    with redis_server() as server:
        yield server.url
