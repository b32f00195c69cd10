"""One daemon for all tests of a folder, and a sandbox for those that only run commands; conftest files take them in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.sdk.client import Client, Sandbox


@pytest.fixture(scope="package")
def daemon() -> Iterator[RunningDaemon]:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--listen", "127.0.0.1:0") as running:
            yield running


@pytest.fixture(scope="package")
def shared(daemon: RunningDaemon) -> Iterator[str]:
    """The id of a sandbox for tests that only run commands in it."""
    with daemon.client() as client, client.create(name="shared") as made:
        yield made.id


@pytest.fixture
def sandbox(daemon: RunningDaemon, shared: str) -> Iterator[Sandbox]:
    """The shared sandbox by the test's own client: a longer-lived one opens connections whenever the old one idled.

    Not by ``client``, which files of asynchronous tests make one of their own kind.
    """
    with daemon.client() as own:
        yield own.get(shared)


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as made:
        yield made
