"""How SQLite is opened: private, durable, with foreign keys, and as a writer from the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from hearth.store.sql import open_store
from hearth.store.sqlite import make_engine, make_private


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def widen(path: Path) -> None:
    path.chmod(0o644)


async def test_nobody_else_can_read_the_database_or_its_log(url: str, migrated: Path) -> None:
    widen(migrated)
    store = await open_store(url)
    await store.users.list()
    files = sorted(migrated.parent.iterdir())
    assert [file.name.removeprefix(migrated.name) for file in files] == ["", "-reserve", "-shm", "-wal"]
    assert [oct(mode_of(file)) for file in files] == ["0o600"] * 4
    await store.close()
    assert list(migrated.parent.iterdir()) == [migrated]


def test_a_new_file_is_never_readable_by_others(tmp_path: Path) -> None:
    make_private(tmp_path / "new.db")
    assert mode_of(tmp_path / "new.db") == 0o600


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 1500)]
)
@pytest.mark.parametrize("read_only", [False, True])
def test_every_connection_is_set_up(migrated: Path, pragma: str, value: object, read_only: bool) -> None:
    engine = make_engine(migrated, busy_timeout_s=1.5, read_only=read_only)
    with engine.connect() as connection:
        assert connection.scalar(text(f"PRAGMA {pragma}")) == value


def test_a_reader_cannot_write(migrated: Path) -> None:
    engine = make_engine(migrated, busy_timeout_s=1, read_only=True)
    with engine.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(text("DELETE FROM users"))


def test_a_writers_transaction_holds_the_lock_from_its_beginning(migrated: Path) -> None:
    engine = make_engine(migrated, busy_timeout_s=0)
    with engine.connect() as first, engine.connect() as second:
        first.begin()
        with pytest.raises(OperationalError, match="locked"):
            second.begin()
