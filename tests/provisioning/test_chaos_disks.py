"""Disks that are full: for the cache, for volumes, for the database. Jobs say so, and nothing half-made stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image.golden.web import Web
from tests.provisioning.daemons import ask, ended, order, what_is_left
from tests.provisioning.held import HeldTool
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.volume.conftest import small_file_system

from hearth.config import DataDirectory
from hearth.errors import HearthError
from hearth.sdk.client import Client

pytestmark = pytest.mark.root

MIB = 1 << 20
DATA = os.urandom(12 * MIB)
URL = "/a.raw"


@pytest.fixture
def data(web: Web) -> Iterator[DataDirectory]:
    web.objects[URL] = DATA
    with data_directory() as made:
        publish_images(made)
        yield made


def start(daemon: RunningDaemon, web: Web) -> str:
    status, answer, _ = ask(daemon, "POST", "/provision", order(web.url(URL), image_type="raw", mode="copy"))
    assert status == 202, answer
    return str(answer["job_id"])


def words(web: Web) -> tuple[str, ...]:
    return ("--image-hosts", f"127.0.0.1:{web.port}", "--image-networks", "127.0.0.1/32")


def is_good(client: Client) -> bool:
    volume = client.provisioning.volume("vm")
    with Path(volume.path).open("rb") as file:
        return file.read(len(DATA)) == DATA


def fill(directory: Path) -> Path:
    """Take all the room of a file system, to the last block."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


@contextlib.contextmanager
def standing_still(daemon: RunningDaemon) -> Iterator[None]:
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def elsewhere(directory: Path, place: Path) -> Iterator[None]:
    """Let a directory be on another file system than what is around it."""
    for path in (directory, place):
        path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(directory), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_an_image_that_does_not_fit_is_refused_before_its_first_byte(
    web: Web, data: DataDirectory, tmp_path: Path
) -> None:
    data.golden_images.mkdir(parents=True)
    with (
        small_file_system(tmp_path, 32, at=data.golden_images),
        running_daemon(data, *words(web)) as daemon,
        daemon.client() as client,
    ):
        job = ended(client, start(daemon, web))
        assert job.error is not None
        assert (job.status, job.error.code, job.error.field) == ("failed", "no_space", "image_url")
        assert web.sent_bytes < 1000
        assert what_is_left(data, parts=True) == []


def test_volumes_that_fill_up_meanwhile_leave_none_that_is_half_written(
    web: Web, data: DataDirectory, tmp_path: Path
) -> None:
    data.golden_volumes.mkdir(parents=True)
    (tmp_path / "tool").mkdir()
    tool = HeldTool(tmp_path / "tool")
    with (
        small_file_system(tmp_path, 32, at=data.golden_volumes) as storage,
        running_daemon(data, *words(web), prefix=tool.prefix) as daemon,
        daemon.client() as client,
    ):
        with tool.holding("convert") as gate:
            job_id = start(daemon, web)
            gate.wait_until_reached()
            filler = fill(storage)
        job = ended(client, job_id)
        assert job.error is not None
        assert (job.status, job.error.code) == ("failed", "no_space")
        assert "full" in job.error.error
        assert not list((data.golden_volumes / "volumes").iterdir())
        filler.unlink()
        job = ended(client, start(daemon, web))
        assert (job.status, job.cache_hit, is_good(client)) == ("completed", True, True)


def test_a_job_is_not_lost_by_a_database_that_finds_no_room(web: Web, data: DataDirectory, tmp_path: Path) -> None:
    """Everything but images and volumes is on a disk that fills up in the middle of the download."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_file_system(tmp_path, 48, at=data.root))
        publish_images(data)
        for name, place in (("images", data.golden_images), ("volumes", data.golden_volumes)):
            stack.enter_context(elsewhere(tmp_path / name, place))
        daemon = stack.enter_context(running_daemon(data, *words(web)))
        client = stack.enter_context(daemon.client())
        web.flows.clear()
        job_id = start(daemon, web)
        web.wait_until_asked(URL, 2)  # for its size, and for what is in it
        with standing_still(daemon):  # else what it gives up for its database is filled as well
            filler = fill(data.root)
        web.flows.set()
        with contextlib.suppress(HearthError):  # whatever can still be said without room is welcome
            client.provisioning.volumes()
        job = ended(client, job_id)
        filler.unlink()
        assert job.status in ("completed", "failed")
        if job.status == "failed":
            assert not [name for name in what_is_left(data) if name.startswith("volumes")]
        again = ended(client, start(daemon, web))
        assert (again.status, is_good(client)) == ("completed", True)
        assert daemon.process.poll() is None
