"""Empty databases of each kind; the root's conftest takes them in. A server is started once for each worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgresql import Server, running_server

from hearth.store.migrate import migrate
from hearth.store.sqlite import sqlite_url

POSTGRESQL = pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.slow])
DATABASES = ("sqlite", POSTGRESQL)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server; whoever wants it is marked ``postgresql``, so that it is there before the test begins."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgresql: Server) -> Iterator[str]:
    """The name of an empty database with every migration run, to be copied."""
    with postgresql.database() as url:
        migrate(url)
        yield url.rpartition("/")[2].partition("?")[0]


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "hearth 100%.db")
    else:
        server: Server = request.getfixturevalue("postgresql")
        with server.database() as url:
            yield url


@pytest.fixture(params=DATABASES)
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with tables and without rows."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "hearth.db")
        migrate(url)
        yield url
    else:
        server: Server = request.getfixturevalue("postgresql")
        with server.database(request.getfixturevalue("migrated_template")) as url:
            yield url
