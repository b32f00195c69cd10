"""Backups: round trips between databases, with keys and volumes; damage, older versions, restores that are cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.postgresql import Server
from tests.store.every_table import fill, read_everything

from hearth.config import DataDirectory
from hearth.control.backup import Place, create_backup, links_of
from hearth.control.backup_file import MANIFEST, BackupDamaged, BackupReader
from hearth.control.backup_keys import read_passphrase
from hearth.control.backup_restore import restore_backup
from hearth.control.provisioning.order import KIND
from hearth.errors import Conflict, HostUnfit, InvalidInput
from hearth.host.clock import SystemClock
from hearth.host.directory import load_host_id, own_directory, prepare_directory, require_whole
from hearth.model import Job, User
from hearth.store.base import StoreTooNew
from hearth.store.host_store import Host
from hearth.store.migrate import migrating, upgrade
from hearth.store.schema import HEAD
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url
from hearth.volume.base import AttachMode, VolumeSpec
from hearth.volume.file import FileVolumes
from hearth.volume.linked import Link, LinkedVolumes
from hearth.volume.locks import Attachments

pytestmark = pytest.mark.slow

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.postgresql)
PASSPHRASE = b"correct horse battery"
MEBIBYTE = 1024 * 1024


def place_at(root: Path, url: str | None = None) -> Place:
    data = DataDirectory(root=root)
    prepare_directory(data)
    return Place(data=data, database_url=url or sqlite_url(data.database), master_key=data.master_key)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("b")


@pytest.fixture(params=["sqlite", POSTGRESQL])
def source(request: pytest.FixtureRequest, short: Path) -> Place:
    """A data directory with a row in every table and keys."""
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return filled(place_at(short / "source", url))


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    server: Server = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", POSTGRESQL])
def target(request: pytest.FixtureRequest, short: Path) -> Iterator[Place]:
    """An empty data directory, with an empty database."""
    if request.param == "sqlite":
        yield place_at(short / "target")
        return
    server: Server = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield place_at(short / "target", url)


def filled(place: Place, revision: str = HEAD) -> Place:
    with migrating(place.database_url) as connection:
        upgrade(connection, revision)
        fill(connection)
    for name, path in place.key_files.items():
        path.write_bytes(f"{name} of the source".encode())
        path.chmod(0o600)
    load_host_id(place.data)
    return place


async def everything(place: Place) -> dict[str, object]:
    store = await open_store(place.database_url, host=load_host_id(place.data))
    try:
        return await read_everything(store)
    finally:
        await store.close()


async def backed_up(place: Place, file: Path) -> Path:
    await create_backup(place, file, passphrase=None, with_volumes=False)
    return file


async def test_what_was_known_is_known_again_whichever_database_it_was_and_is(
    source: Place, target: Place, short: Path
) -> None:
    before = await everything(source)
    manifest = await create_backup(source, short / "file", passphrase=PASSPHRASE, with_volumes=False)
    assert (short / "file").stat().st_mode & 0o777 == 0o600
    assert manifest.tables["snapshots"] == 2
    with BackupReader(short / "file") as backup:
        backup.verify()
        assert backup.manifest == manifest

    restored = await restore_backup(short / "file", target, passphrase=PASSPHRASE, force=False)
    assert restored.tables == manifest.tables
    assert restored.replaced is None
    for name, path in target.key_files.items():
        assert path.read_bytes() == f"{name} of the source".encode()
        assert path.stat().st_mode & 0o777 == 0o600
    assert load_host_id(target.data) == load_host_id(source.data)
    require_whole(target.data)
    assert await everything(target) == before


async def test_without_a_passphrase_no_key_is_in_a_backup(short: Path) -> None:
    source = filled(place_at(short / "source"))
    await backed_up(source, short / "file")
    content = (short / "file").read_bytes()
    with zipfile.ZipFile(short / "file") as packed:
        assert "keys.sealed" not in packed.namelist()
    for name in source.key_files:
        assert f"{name} of the source".encode() not in content
    target = place_at(short / "target")
    target.master_key.write_bytes(b"put back by hand")
    restored = await restore_backup(short / "file", target, passphrase=None, force=False)
    assert restored.keys == ()
    assert target.master_key.read_bytes() == b"put back by hand"


async def test_sealed_keys_are_not_readable_and_open_with_their_passphrase_alone(short: Path) -> None:
    source = filled(place_at(short / "source"))
    await create_backup(source, short / "file", passphrase=PASSPHRASE, with_volumes=False)
    assert b"of the source" not in (short / "file").read_bytes()
    target = place_at(short / "target")
    with pytest.raises(InvalidInput, match="passphrase does not open"):
        await restore_backup(short / "file", target, passphrase=b"another passphrase", force=False)
    assert not target.data.database.exists()
    assert not target.master_key.exists()


async def test_a_backup_made_while_others_write_is_of_one_moment(source: Place, short: Path) -> None:
    """Users are made one after the other: a backup holds the first so many of them, and says how many."""
    host = load_host_id(source.data)
    store = await open_store(source.database_url, host=host)
    ended = asyncio.Event()

    async def write() -> None:
        number = 0
        while not ended.is_set():
            await store.users.create(User(id=f"user-{number}", name=f"n{number}"))
            await store.users.touch_key("key-1")
            number += 1

    writing = asyncio.create_task(write())
    for number in range(3):
        manifest = await create_backup(source, short / f"file-{number}", passphrase=None, with_volumes=False)
        target = place_at(short / f"target-{number}")
        await restore_backup(short / f"file-{number}", target, passphrase=None, force=False)
        connection = sqlite3.connect(target.data.database)
        names = sorted(int(name[1:]) for (name,) in connection.execute("SELECT name FROM users WHERE id <> 'user-ada'"))
        connection.close()
        assert names == list(range(manifest.tables["users"] - 1))
    ended.set()
    await writing
    await store.close()


async def test_backups_of_older_versions_are_migrated(short: Path, target: Place) -> None:
    source = filled(place_at(short / "source"), "v0002")
    await backed_up(source, short / "file")
    await restore_backup(short / "file", target, passphrase=None, force=False)
    with migrating(target.database_url) as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == HEAD
    found = await everything(target)
    assert found["children"] and found["sandboxes"]


async def test_a_backup_of_a_later_version_is_refused(short: Path) -> None:
    await backed_up(filled(place_at(short / "source")), short / "file")
    rewrite(short / "file", short / "later", {"revision": "v9999"})
    target = place_at(short / "target")
    with pytest.raises(StoreTooNew, match="v9999"):
        await restore_backup(short / "later", target, passphrase=None, force=False)
    rewrite(short / "file", short / "format", {"format": 2})
    with pytest.raises(InvalidInput, match="later version"):
        await restore_backup(short / "format", target, passphrase=None, force=False)
    assert not target.data.database.exists()


def rewrite(source: Path, target: Path, changes: dict[str, object]) -> None:
    """Write a backup again with another manifest."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == MANIFEST:
                content = msgspec.json.encode({**msgspec.json.decode(content), **changes})
            after.writestr(name, content)


@pytest.mark.parametrize("place", ["cut", "first", "middle", "last"])
async def test_a_damaged_backup_changes_nothing(short: Path, place: str) -> None:
    await backed_up(filled(place_at(short / "source")), short / "file")
    content = bytearray((short / "file").read_bytes())
    if place == "cut":
        del content[len(content) // 2 :]
    else:
        with zipfile.ZipFile(short / "file") as packed:
            members = [each for each in packed.infolist() if each.filename.startswith("tables/")]
        chosen = {"first": members[0], "middle": members[len(members) // 2], "last": members[-1]}[place]
        content[chosen.header_offset + 30 + len(chosen.filename) + 30] ^= 0xFF
    (short / "bad").write_bytes(content)
    target = filled(place_at(short / "target"))
    before = await everything(target)
    with pytest.raises(BackupDamaged):
        await restore_backup(short / "bad", target, passphrase=None, force=True)
    assert await everything(target) == before
    assert sorted(path.name for path in target.data.root.glob("re*")) == []


async def test_what_is_there_is_replaced_when_told_and_kept_then(source: Place, target: Place, short: Path) -> None:
    await backed_up(source, short / "file")
    filled(target)
    (target.data.machines / "sb-old").mkdir()
    (target.data.machines / "sb-old" / "disk").write_text("old")
    with pytest.raises(Conflict, match="not empty"):
        await restore_backup(short / "file", target, passphrase=None, force=False)
    restored = await restore_backup(short / "file", target, passphrase=None, force=True)
    assert restored.replaced is not None
    assert (restored.replaced / "machines" / "sb-old" / "disk").read_text() == "old"
    assert list(target.data.machines.iterdir()) == []
    if target.database_url.startswith("sqlite"):
        (kept,) = target.data.root.glob("hearth.db.replaced-*")
        connection = sqlite3.connect(kept)
        assert connection.execute("SELECT name FROM users").fetchall() == [("ada",)]
        connection.close()


async def test_nothing_is_restored_under_a_daemon(source: Place, target: Place, short: Path) -> None:
    await backed_up(source, short / "file")
    with own_directory(target.data), pytest.raises(Conflict, match="another daemon"):
        await restore_backup(short / "file", target, passphrase=None, force=True)


@pytest.mark.postgresql
async def test_a_database_that_other_hosts_use_is_not_replaced_under_them(postgresql_url: str, short: Path) -> None:
    await backed_up(filled(place_at(short / "source")), short / "file")
    other = await open_store(postgresql_url, host="host-1")
    await other.hosts.enter(Host(id="host-1", name="one.example.org", tag="t", run="r"))
    target = place_at(short / "target", postgresql_url)
    with pytest.raises(Conflict, match=r"one\.example\.org"):
        await restore_backup(short / "file", target, passphrase=None, force=True)
    await other.hosts.leave(Host(id="host-1", name="one.example.org", tag="t", run="r"))
    await other.close()
    await restore_backup(short / "file", target, passphrase=None, force=True)
    assert (await everything(target))["sandboxes"]


@pytest.mark.parametrize("step", ["_fill", "_move_aside", "_move_all"])
async def test_a_restore_that_is_killed_leaves_the_old_state_or_one_no_daemon_starts_with(
    short: Path, target: Place, step: str
) -> None:
    """The program is killed as it enters a step; then it is run again."""
    await backed_up(filled(place_at(short / "source")), short / "file")
    filled(target)
    before = await everything(target)
    program = f"""
import asyncio, os, signal
from pathlib import Path
from hearth.config import DataDirectory
from hearth.control import backup_restore
from hearth.control.backup import Place
backup_restore.{step} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
data = DataDirectory(root=Path({str(target.data.root)!r}))
place = Place(data=data, database_url={target.database_url!r}, master_key=data.master_key)
asyncio.run(backup_restore.restore_backup(Path({str(short / "file")!r}), place, passphrase=None, force=True))
"""
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    if step == "_fill":
        require_whole(target.data)
        assert await everything(target) == before
    else:
        with pytest.raises(HostUnfit, match="not restored to its end"):
            require_whole(target.data)
    await restore_backup(short / "file", target, passphrase=None, force=True)
    require_whole(target.data)
    assert (await everything(target))["sandboxes"]
    assert not (target.data.root / "restore.tmp").exists()


async def test_volumes_come_back_with_their_bytes_and_holes_and_one_that_is_written_is_left_out(short: Path) -> None:
    source, target = filled(place_at(short / "source")), place_at(short / "target")
    clock = SystemClock()
    backend = FileVolumes(source.data.volumes, clock=clock)
    backend.prepare()
    attachments = Attachments(source.data.volumes / "attachments", backend, clock=clock)
    attachments.prepare()
    for name in ("vol-1", "vol-2"):
        await backend.create(VolumeSpec(name=name, size_mib=256))
    disk = backend.open("vol-1", AttachMode.READ_WRITE)
    os.pwrite(disk, b"marker" * 1000, 200 * MEBIBYTE + 17)
    os.close(disk)
    with await attachments.acquire("vol-2", "sb-1", AttachMode.READ_WRITE):
        manifest = await create_backup(source, short / "file", passphrase=None, with_volumes=True)
    assert [(each.id, each.left_out is None) for each in manifest.volumes] == [("vol-1", True), ("vol-2", False)]
    assert "sb-1" in (manifest.volumes[1].left_out or "")
    assert (short / "file").stat().st_size < 8 * MEBIBYTE

    restored = await restore_backup(short / "file", target, passphrase=None, force=False)
    assert restored.volumes == 1
    again = FileVolumes(target.data.volumes, clock=clock)
    assert [each.name for each in await again.list()] == ["vol-1"]
    assert await again.describe("vol-1") == replace(
        await backend.describe("vol-1"), allocated_bytes=(await again.describe("vol-1")).allocated_bytes
    )
    assert (await again.describe("vol-1")).allocated_bytes < 64 * MEBIBYTE
    first, second = backend.open("vol-1", AttachMode.READ_ONLY), again.open("vol-1", AttachMode.READ_ONLY)
    assert os.pread(first, 256 * MEBIBYTE, 0) == os.pread(second, 256 * MEBIBYTE, 0)
    os.close(first)
    os.close(second)


async def test_volumes_that_are_provisioned_ones_are_so_again_and_orders_of_then_are_not_carried_out(
    source: Place, target: Place, short: Path
) -> None:
    link = Link(
        pool="lvm",
        provisioned="vm1",
        path="/dev/data/vm1",
        format="raw",
        disk_bytes=1 << 30,
        offset_bytes=MEBIBYTE,
        size_bytes=(1 << 30) - 2 * MEBIBYTE,
        partition=1,
        wanted=None,
        created_at=SystemClock().now(),
    )
    there = LinkedVolumes(FileVolumes(source.data.volumes, clock=SystemClock()), links_of(source.data))
    there.prepare()
    there.link("vol-1", link)
    store = await open_store(source.database_url, host=load_host_id(source.data))
    now = SystemClock().now()
    for job_id, kind in (("job-order", KIND), ("job-other", "sandbox.create")):
        await store.jobs.create(Job(id=job_id, kind=kind, subject="vm1", any_host=kind == KIND, created_at=now))
    await store.close()
    manifest = await create_backup(source, short / "file", passphrase=None, with_volumes=False)
    assert manifest.links == ["vol-1"]
    stale = LinkedVolumes(FileVolumes(target.data.volumes, clock=SystemClock()), links_of(target.data))
    stale.prepare()
    stale.link("vol-9", link)
    with pytest.raises(Conflict, match="not empty"):
        await restore_backup(short / "file", target, passphrase=None, force=False)

    restored = await restore_backup(short / "file", target, passphrase=None, force=True)
    assert restored.links == 1
    again = LinkedVolumes(FileVolumes(target.data.volumes, clock=SystemClock()), links_of(target.data))
    assert (again.link_of("vol-1"), again.link_of("vol-9")) == (link, None)
    store = await open_store(target.database_url, host=load_host_id(target.data))
    asked = {job_id: (await store.jobs.get(job_id)).cancel_asked_at for job_id in ("job-order", "job-other")}
    await store.close()
    assert asked["job-order"] is not None and asked["job-other"] is None


def test_passphrases_that_others_may_read_or_are_short_are_refused(short: Path) -> None:
    file = short / "passphrase"
    file.write_bytes(PASSPHRASE + b"\nsecond line\n")
    file.chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read it"):
        read_passphrase(file)
    file.chmod(0o600)
    assert read_passphrase(file) == PASSPHRASE
    file.write_bytes(b"short\n")
    with pytest.raises(InvalidInput, match="at least 12"):
        read_passphrase(file)


def test_an_existing_file_is_never_written_over(short: Path) -> None:
    source = filled(place_at(short / "source"))
    (short / "file").write_text("mine")
    with pytest.raises(Conflict, match="exists already"):
        asyncio.run(backed_up(source, short / "file"))
    assert (short / "file").read_text() == "mine"
    assert sorted(path.name for path in short.iterdir()) == ["file", "source"]


def test_where_nothing_is_there_is_nothing_to_back_up(short: Path) -> None:
    empty = place_at(short / "empty")
    with pytest.raises(InvalidInput, match="there is no database"):
        asyncio.run(backed_up(empty, short / "file"))
    nowhere = replace(empty, data=DataDirectory(root=short / "nowhere"))
    with pytest.raises(InvalidInput, match="there is no data directory"):
        asyncio.run(backed_up(nowhere, short / "file"))
    assert sorted(path.name for path in short.iterdir()) == ["empty"]
