"""A daemon of the bench's own: its data directory is fresh, its images are this host's, its machines end with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hearth.bench.processes import end, scratch
from hearth.bench.row import Skipped
from hearth.bench.samples import SampleFailed
from hearth.config import DataDirectory, load_data_directory
from hearth.errors import HearthError, NotFound, Unavailable
from hearth.image.store import ImageStore
from hearth.sdk.client import Client, Sandbox

IMAGES = ("kernel", "agent", "debian")
START_TIMEOUT_S = 30.0
PAUSE_S = 0.001
LOG_TAIL_LINES = 3


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A running daemon and how to reach it."""

    data: DataDirectory
    pid: int

    def client(self) -> Client:
        """Give a new client of this daemon."""
        return Client(f"unix:{self.data.api_socket}", self.data.admin_key.read_text().strip())

    @property
    def environment(self) -> dict[str, str]:
        """What a ``hearth`` process needs to talk to this daemon and no other."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
        return {**kept, "HEARTH_DATA": str(self.data.root)}


def need_images() -> None:
    """Check that sandboxes can be made here.

    Raises:
        Skipped: images are missing.
    """
    store = ImageStore(load_data_directory())
    try:
        for name in IMAGES:
            store.get(name)
    except (NotFound, OSError) as error:
        raise Skipped(f"no images under {store.root}: run 'hearth setup'") from error


@contextlib.contextmanager
def data_directory() -> Iterator[DataDirectory]:
    """Give a fresh data directory whose images are those of this host, where it has any."""
    with scratch() as root:
        images = load_data_directory().images
        if images.is_dir():
            (root / "images").symlink_to(images)
        yield DataDirectory(root=root)


@contextlib.contextmanager
def serving(
    data: DataDirectory, engine: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Run a daemon on a data directory from its first answer on; at the end its sandboxes are destroyed first.

    ``options`` are of its command line, ``environment`` is added to ours.

    It runs in a session of its own: a Ctrl-C at the terminal ends us, and we then end it in order.

    Raises:
        SampleFailed: it did not answer.
    """
    argv = [sys.executable, "-m", "hearth.server", "serve", "--data", str(data.root), "--engine", engine, *options]
    log_path = data.root / "daemon.log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        ) as process,
    ):
        daemon = Daemon(data=data, pid=process.pid)
        try:
            _wait_for_answer(daemon, process, log_path)
            yield daemon
        finally:
            try:
                _destroy_all(daemon)
            finally:
                end(process)


@contextlib.contextmanager
def sandbox(engine: str, name: str) -> Iterator[tuple[Daemon, Client, Sandbox]]:
    """Run a daemon with one sandbox in it.

    Raises:
        Skipped: images are missing.
    """
    need_images()
    with data_directory() as data, serving(data, engine) as daemon, daemon.client() as client:
        yield daemon, client, client.create(name=name)


def _wait_for_answer(daemon: Daemon, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        # Nothing announces a Unix socket that is about to appear; a millisecond is below what is measured.
        with contextlib.suppress(OSError, Unavailable), daemon.client() as client:
            client.health()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            said = log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            raise SampleFailed(f"the daemon did not answer: {' / '.join(line.strip() for line in said)}")
        time.sleep(PAUSE_S)


def _destroy_all(daemon: Daemon) -> None:
    # A daemon that never answered has made nothing.
    with contextlib.suppress(OSError, Unavailable), daemon.client() as client:
        for each in client.list():
            with contextlib.suppress(HearthError):
                each.destroy()
