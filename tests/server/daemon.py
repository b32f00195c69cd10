"""A real daemon process for tests: its own data directory, the development engine, ready when it says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearth.config import DataDirectory
from hearth.image.store import ImageStore, Made
from hearth.model import ImageKind
from hearth.sdk.client import Client
from hearth.sdk.retries import PATIENCE_S

READY_S = 240.0
END_S = 240.0
LOG_S = 60.0
IMAGES = ((ImageKind.KERNEL, "kernel"), (ImageKind.AGENT, "agent"), (ImageKind.ROOTFS, "debian"))


@dataclass(frozen=True, kw_only=True)
class RunningDaemon:
    """A daemon that answers."""

    process: subprocess.Popen[bytes]
    data: DataDirectory
    log_file: Path

    @property
    def url(self) -> str:
        return f"unix:{self.data.api_socket}"

    @property
    def token(self) -> str:
        return self.data.admin_key.read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """For the CLI: this daemon and nothing of ours."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
        return {**inherited, "HEARTH_DATA": str(self.data.root)}

    def log(self) -> list[dict[str, Any]]:
        """Everything logged so far; the line that is just being written is for the next time."""
        whole, _, _ = self.log_file.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def entries(self, request_id: str) -> list[dict[str, Any]]:
        """Wait for what is logged under a request's id: the line comes a moment after the answer."""
        return self._logged("request_id", request_id)

    def wait_for_event(self, event: str) -> None:
        """Wait until an event is logged."""
        self._logged("event", event)

    def _logged(self, key: str, value: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + LOG_S
        while not (found := [entry for entry in self.log() if entry.get(key) == value]):
            assert time.monotonic() < deadline, f"nothing was logged with {key} {value!r}"
            time.sleep(0.005)
        return found

    def client(self, *, patience_s: float = PATIENCE_S) -> Client:
        """Give an administrator's client; ``patience_s`` is how long it looks for a daemon that is gone."""
        return Client(self.url, self.token, patience_s=patience_s)

    def stop(self) -> int:
        """End it as a service manager would and give its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_S)


@contextlib.contextmanager
def data_directory() -> Iterator[DataDirectory]:
    """Give a data directory whose path is short enough for sockets."""
    root = Path(tempfile.mkdtemp(prefix="hearth-test-", dir="/tmp"))
    try:
        yield DataDirectory(root=root)
    finally:
        shutil.rmtree(root)


def publish_images(data: DataDirectory) -> None:
    """Put images in place that the development engine takes: it boots none of them."""

    async def publish() -> None:
        store = ImageStore(data)
        for kind, name in IMAGES:

            async def build(directory: Path, name: str = name) -> Made:
                (directory / "content").write_text(name)
                return Made(primary="content", facts={})

            await store.obtain(kind, name, f"key of {name}", build, lambda _: None)

    asyncio.run(publish())


@contextlib.contextmanager
def running_daemon(data: DataDirectory, *words: str, prefix: Sequence[str] = ()) -> Iterator[RunningDaemon]:
    """Start a daemon, wait until it says that it is ready, end it with its sandboxes.

    Args:
        prefix: a program that becomes the daemon, such as one that makes a namespace for it.
    """
    log_file = data.root / "log.jsonl"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, log_file.open("ab") as log:
        address = data.root / "notify.sock"
        address.unlink(missing_ok=True)
        told.bind(str(address))
        process = subprocess.Popen(
            [*prefix, *daemon_command(data, "--log-format", "json", *words)],
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
        daemon = RunningDaemon(process=process, data=data, log_file=log_file)
        try:
            _wait_ready(process, told)
            yield daemon
        finally:
            try:
                if process.poll() is None:
                    with daemon.client() as client:
                        for sandbox in client.list():
                            sandbox.destroy()
                    daemon.stop()
            finally:
                process.kill()  # one that could not be asked, or did not end, would be in the way of all tests to come
                process.wait()


def daemon_command(data: DataDirectory, *words: str) -> list[str]:
    """Give the command line of a daemon with the development engine, and without a way to the world for any other."""
    serve = [sys.executable, "-m", "hearth.server", "serve", "--uplink", "none", "--net-slots", "0"]
    serve += ["--registry-only", "127.0.0.1"]
    return [*serve, "--data", str(data.root), "--engine", "local", *words]


def run_cli(
    environment: Mapping[str, str], *words: str, stdin: bytes | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a user does; without ``stdin`` it has /dev/null."""
    return subprocess.run(
        [sys.executable, "-m", "hearth.cli", *words],
        env=dict(environment),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


def _wait_ready(process: subprocess.Popen[bytes], told: socket.socket) -> None:
    ended = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([told.fileno(), ended], [], [], READY_S)
        assert ready == [told.fileno()], f"the daemon did not become ready; its status: {process.poll()}"
        assert told.recv(64) == b"READY=1"
    finally:
        os.close(ended)
