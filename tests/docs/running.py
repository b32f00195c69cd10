"""A page's terminal: a daemon, a home directory, and every block of the page one after the other."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import obstore
from tests.docs.pages import ROOT, Page
from tests.docs.session import open_session
from tests.image.golden.qcow import make
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.bench.s3_server import S3Server, s3_server

BUCKET = "images"
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Becomes a program in a network namespace of its own: the ports that documents name are free there."""


@contextlib.contextmanager
def local_daemon(page: Page) -> Iterator[RunningDaemon]:
    """Give a page a daemon with the development engine."""
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *page.serve, prefix=OWN_NETWORK) as running:
            yield running


@contextlib.contextmanager
def golden_images(directory: Path) -> Iterator[S3Server]:
    """Start an object storage that holds ``images/debian.qcow2``.

    Raises:
        Skipped: it cannot be started.
    """
    with s3_server() as storage:
        storage.make_bucket(BUCKET)
        image = make(directory)
        digest = hashlib.sha256(image).hexdigest()
        obstore.put(storage.store(BUCKET), "debian.qcow2", image)
        obstore.put(storage.store(BUCKET), "debian.qcow2.sha256", f"{digest}  debian.qcow2\n".encode())
        yield storage


@contextlib.contextmanager
def golden_daemon(page: Page, storage: S3Server) -> Iterator[RunningDaemon]:
    """Give a page a daemon with the development engine and that storage."""
    words = ("--s3-endpoint", storage.endpoint, "--s3-bucket", BUCKET, *page.serve)
    keys = (f"MINIO_ACCESS_KEY={storage.access_key}", f"MINIO_SECRET_KEY={storage.secret_key}")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *words, prefix=("env", *keys)) as running:
            yield running


def run_page(page: Page, daemon: RunningDaemon, directory: Path, *, prefix: tuple[str, ...] = ()) -> int:
    """Run the blocks of a page and give how many were run.

    Raises:
        BlockFailed: one did not do what the page says.
    """
    blocks = [block for block in page.commands if block.not_run is None]
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as short:  # data directories below it are to fit sockets
        home = Path(short)
        (home / ".venv").symlink_to(ROOT / ".venv")
        with open_session(home, directory, daemon.environment, prefix=prefix) as session:
            for block in blocks:
                session.run_block(block)
            session.stop_served()
    return len(blocks)


def namespace_of(daemon: RunningDaemon) -> tuple[str, ...]:
    """Give what starts a program in a daemon's network namespace."""
    return ("nsenter", f"--net=/proc/{daemon.process.pid}/ns/net")


def clear(daemon: RunningDaemon) -> None:
    """Take everything away that a page made, so that the next one begins with nothing."""
    with daemon.client() as client:
        for sandbox in client.list():
            sandbox.destroy()
        for snapshot in client.snapshots():
            if snapshot.state == "ready":
                client.delete_snapshot(snapshot.name)
        for template in client.templates.every():
            client.templates.delete(template.name)
        for volume in client.volumes():
            client.delete_volume(volume.name)
        for secret in client.secrets.every():
            client.secrets.delete(secret.name)
