"""One daemon for all tests of this folder, and a sandbox for those that only run commands.

Files named in ``ON_BOTH_DATABASES`` run twice, the second time with a daemon on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.daemon_fixtures import client, sandbox, shared
from tests.database_fixtures import DATABASES
from tests.postgresql import Server
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

__all__ = ["client", "sandbox", "shared"]

ON_BOTH_DATABASES = (*("test_audit", "test_idempotency", "test_quotas", "test_secrets", "test_users", "test_volumes"),)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "daemon" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_BOTH_DATABASES:
        metafunc.parametrize("daemon", DATABASES, indirect=True, scope="package")


@pytest.fixture(scope="package")
def daemon(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    if getattr(request, "param", "sqlite") == "sqlite":
        with data_directory() as data:
            publish_images(data)
            with running_daemon(data, "--listen", "127.0.0.1:0") as running:
                yield running
        return
    server: Server = request.getfixturevalue("postgresql")
    with server.database() as url, data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--listen", "127.0.0.1:0", "--database", url) as running:
            assert not data.database.exists()
            yield running
