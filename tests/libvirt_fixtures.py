"""A libvirt for tests; the root's conftest takes it in. It is started once for each worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.libvirtd import Libvirtd, running_libvirtd


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """Whoever wants it is marked ``libvirt``, so that it is there before the test begins."""
    with running_libvirtd() as server:
        yield server
