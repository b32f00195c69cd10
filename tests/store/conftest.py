"""A database file of this version's schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.store.migrate import migrate
from hearth.store.sqlite import sqlite_path, sqlite_url


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a database that does not exist yet."""
    return sqlite_url(tmp_path / "hearth 100%.db")


@pytest.fixture
def migrated(url: str) -> Path:
    """The file of an empty database."""
    migrate(url)
    return sqlite_path(url)
