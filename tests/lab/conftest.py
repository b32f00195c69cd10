"""A lab for all tests of a file: forked from the warm one in a second or two, gone with the file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.boot import boot_files
from tests.lab.lab import Lab, running_lab
from tests.lab.provisioned import provisioned_lab
from tests.lab.provisioner import Provisioner, configured_provisioner, running_provisioner
from tests.lab.site import LAB_URL, has_own_services
from tests.lab.standing import attached

from hearth.sdk.client import Client

TIMEOUT_S = 900
"""Of a test that may start a lab; what waits in one has its own, shorter limits."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and "compose" not in item.path.name:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(float(os.environ.get("TEST_TIMEOUT") or TIMEOUT_S)))


def say(line: str) -> None:
    print(line, file=sys.stderr)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.environ.get(LAB_URL):
        with attached(dict(os.environ)) as standing:
            yield standing
        return
    if has_own_services():
        pytest.skip("the suite is pointed at own services, and this is about a lab")
    boot_files()
    with running_lab(say) as running:
        yield running


@pytest.fixture(scope="module")
def provisioner() -> Iterator[Provisioner]:
    if has_own_services():
        yield configured_provisioner()
        return
    boot_files()
    standing = bool(os.environ.get(LAB_URL))
    with attached(dict(os.environ)) if standing else provisioned_lab(say) as lab, running_provisioner(lab) as running:
        yield running


@pytest.fixture
def client(provisioner: Provisioner) -> Iterator[Client]:
    """An administrator of the provisioner, which has no volumes again afterwards."""
    with provisioner.client() as opened:
        yield opened
        for volume in opened.provisioning.volumes():
            opened.provisioning.delete(volume.volume_name, pool=volume.pool)
