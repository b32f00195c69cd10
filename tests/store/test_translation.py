"""What a full, locked, damaged or forbidden database is called, shown on real ones."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.errors import HearthError, HostUnfit, NoSpace, Unavailable
from hearth.model import User
from hearth.store.base import StoreDamaged
from hearth.store.host_store import ALONE
from hearth.store.sql import SqlStore, open_store
from hearth.store.sqlite import sqlite_url
from hearth.store.translation import translate

FILL_A_SMALL_DISK = """
import asyncio, sys
from pathlib import Path
from hearth.errors import NoSpace
from hearth.model import User
from hearth.store.migrate import migrate
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url

async def main(directory):
    url = sqlite_url(Path(directory) / "hearth.db")
    migrate(url)
    store = await open_store(url)
    stored = 0
    try:
        for number in range(100_000):
            await store.users.create(User(id=f"user-{number}", name=f"{number:063}"))
            stored += 1
    except NoSpace as error:
        assert len((await store.users.list()).items) == min(stored, 100)
        print("NoSpace:", error)
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


async def close_after(store: SqlStore, error: type[HearthError], words: str) -> None:
    with pytest.raises(error, match=words):
        await store.users.create(User(id="user-1", name="one"))
    await store.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs in a mount namespace of its own: run as root")
def test_a_full_disk_is_no_space_and_what_was_stored_stays(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FILL_A_SMALL_DISK]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.startswith("NoSpace: the disk under the database is full")
    assert list(tmp_path.iterdir()) == []


async def test_a_lock_held_too_long_is_unavailable_and_passes(url: str, migrated: Path) -> None:
    store = await open_store(url, busy_timeout_s=0.05)
    other = sqlite3.connect(migrated, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await store.users.create(User(id="user-1", name="one"))
    other.execute("ROLLBACK")
    other.close()
    await store.users.create(User(id="user-1", name="one"))
    await store.close()


async def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "hearth.db"
    path.write_bytes(b"once upon a time " * 1000)
    with pytest.raises(StoreDamaged, match=r"hearth\.db"):
        await open_store(sqlite_url(path))
    assert path.read_bytes().startswith(b"once")


def spoil(path: Path, table: str) -> None:
    """Fill the pages of a table and of its indexes with nonsense; the schema stays readable."""
    connection = sqlite3.connect(path)
    pages = connection.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = ?", (table,)).fetchall()
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        for (page,) in pages:
            file.seek((page - 1) * page_bytes)
            file.write(b"\xff" * page_bytes)


async def test_a_database_with_a_broken_page_is_damaged(url: str, migrated: Path) -> None:
    spoil(migrated, "users")
    store = await open_store(url)
    await close_after(store, StoreDamaged, "damaged")


async def test_a_missing_directory_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(HostUnfit, match="data directory"):
        await open_store(sqlite_url(tmp_path / "nowhere" / "hearth.db"))


@pytest.mark.parametrize(("state", "words"), [("dreaming", "sb-1"), ("running", "spec|Object missing|Expected")])
async def test_a_row_that_makes_no_sense_is_damage_and_names_itself(
    url: str, migrated: Path, state: str, words: str
) -> None:
    store = await open_store(url)
    await store.users.create(User(id="user-1", name="one"))
    other = sqlite3.connect(migrated)
    row = ("sb-1", "user-1", "web", '{"name": 7}', state, "2026-01-01 00:00:00", "2026-01-01 00:00:00", ALONE)
    columns = "id, owner, name, spec, state, created_at, updated_at, host"
    other.execute(f"INSERT INTO sandboxes ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    other.commit()
    other.close()
    with pytest.raises(StoreDamaged, match=words):
        await store.sandboxes.get("sb-1")
    await store.close()


def test_an_error_that_is_not_the_databases_condition_is_not_translated() -> None:
    assert translate(ValueError("x"), "db") is None
    assert translate(None, "db") is None
    assert translate(NoSpace("x"), "db") is None
    assert translate(sqlite3.IntegrityError("made by hand"), "db") is None
