"""A daemon with real machines, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.boot import boot_files, copy_images, link_images
from tests.server.daemon import RunningDaemon, data_directory, running_daemon

from hearth.config import DataDirectory
from hearth.sdk.client import Client, Sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def images() -> None:
    """Fail early, with words, where the set-up has not run."""
    boot_files()


@pytest.fixture
def data(images: None) -> Iterator[DataDirectory]:
    """A data directory of its own with the images of the set-up."""
    with data_directory() as directory:
        link_images(directory)
        yield directory


@pytest.fixture(scope="session")
def slept_in(images: None) -> Iterator[DataDirectory]:
    """A data directory for one daemon after the other: the template of machines that sleep is made once."""
    with data_directory() as directory:
        link_images(directory)
        yield directory


@pytest.fixture(scope="package")
def house(images: None) -> Iterator[RunningDaemon]:
    with data_directory() as directory:
        copy_images(directory)  # of its own: examples of the SDK save some
        with running_daemon(directory, "--engine", "qemu", "--pool", "0") as running:
            yield running


@pytest.fixture(scope="package")
def shared(house: RunningDaemon) -> Iterator[str]:
    """The id of a machine for tests that only run commands in it."""
    with house.client() as client, client.create(name="shared") as made:
        yield made.id


@pytest.fixture
def sandbox(client: Client, shared: str) -> Sandbox:
    """The shared machine by the test's own client: a longer-lived one opens connections whenever the old one idled."""
    return client.get(shared)


@pytest.fixture
def client(house: RunningDaemon) -> Iterator[Client]:
    with house.client() as made:
        yield made
