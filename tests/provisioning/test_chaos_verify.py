"""Bytes that change behind a job's back, between its writing and its reading again: the job fails and says which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image.golden.web import Web
from tests.provisioning.daemons import ask, ended, order, what_is_left
from tests.provisioning.held import HeldTool
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.sdk.client import Client

pytestmark = pytest.mark.root

MIB = 1 << 20
DATA = os.urandom(4 * MIB)
URL = "/verified.raw"


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> HeldTool:
    return HeldTool(tmp_path_factory.mktemp("tool"))


@pytest.fixture
def daemon(web: Web, tool: HeldTool) -> Iterator[RunningDaemon]:
    web.objects[URL] = DATA
    words = ("--image-hosts", f"127.0.0.1:{web.port}", "--image-networks", "127.0.0.1/32")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *words, prefix=tool.prefix) as running:
            yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as opened:
        yield opened


def start(daemon: RunningDaemon, web: Web) -> str:
    wanted = order(web.url(URL), image_type="raw", mode="copy", verify=True)
    status, answer, _ = ask(daemon, "POST", "/provision", wanted)
    assert status == 202, answer
    return str(answer["job_id"])


def flip(path: Path) -> None:
    """Change one byte, and have it on disk."""
    with path.open("r+b", buffering=0) as file:
        was = os.pread(file.fileno(), 1, MIB)
        os.pwrite(file.fileno(), bytes([was[0] ^ 1]), MIB)
        os.fsync(file.fileno())


def content_of(client: Client) -> bytes:
    return Path(client.provisioning.volume("vm").path).read_bytes()[: len(DATA)]


def test_a_volume_that_changed_is_removed_and_the_one_that_had_its_name_stays(
    daemon: RunningDaemon, client: Client, web: Web, tool: HeldTool
) -> None:
    first = ended(client, start(daemon, web))
    assert first.status == "completed", first.error
    before = client.provisioning.volume("vm")
    with tool.holding("compare") as gate:
        job_id = start(daemon, web)
        gate.wait_until_reached()
        [being_made] = (daemon.data.golden_volumes / "volumes").glob("vm.*.tmp/disk")
        flip(being_made)
    job = ended(client, job_id)
    assert job.error is not None
    assert (job.status, job.error.error) == ("failed", "the volume does not hold what its image does")
    assert (client.provisioning.volume("vm"), content_of(client)) == (before, DATA)
    assert [name for name in what_is_left(daemon.data) if name.startswith("volumes")] == ["volumes/vm"]
    again = ended(client, start(daemon, web))
    assert (again.status, again.cache_hit) == ("completed", True), "the image was not at fault"


def test_an_image_that_changed_in_the_cache_is_given_to_nobody_any_more(
    daemon: RunningDaemon, client: Client, web: Web, tool: HeldTool
) -> None:
    with tool.holding("compare") as gate:
        job_id = start(daemon, web)
        gate.wait_until_reached()
        [image] = (daemon.data.golden_images / "images").glob("*/image")
        flip(image)
    job = ended(client, job_id)
    assert job.error is not None
    assert (job.status, job.error.error) == ("failed", "the cached image is not what it was")
    assert client.provisioning.volumes() == []
    again = ended(client, start(daemon, web))
    assert (again.status, again.cache_hit, content_of(client)) == ("completed", False, DATA)
    assert len(what_is_left(daemon.data)) == 2, "the volume, and the image that was fetched anew"
