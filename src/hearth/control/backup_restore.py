"""Restoring a backup: verified first, staged aside, then put in place; what was there is kept, a cut-off is noticed.

In order: everything is read and checked; files are staged in ``restore.tmp``; ``restore.incomplete`` appears; the
database is replaced in one transaction; files move into place; ``restore.incomplete`` goes. A daemon does not start
while that file is there, and restoring again with ``force`` begins anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, inspect, select, update

from hearth.control.backup import KEYS, OFFSET_BYTES, Place, link_member, links_of, table_member, volume_members
from hearth.control.backup_file import BackupDamaged, BackupReader
from hearth.control.backup_keys import open_keys
from hearth.control.provisioning.order import KIND
from hearth.errors import Conflict
from hearth.host.directory import own_directory, prepare_directory
from hearth.host.files import remove_tree, space_errors, sync_directory, sync_file, write_atomic
from hearth.store.base import StoreTooNew
from hearth.store.dump import drop_everything, load
from hearth.store.host_store import SILENT_AFTER
from hearth.store.job_store import UNENDED
from hearth.store.migrate import migrating
from hearth.store.postgresql import is_postgresql
from hearth.store.schema import HEAD, REVISIONS, hosts, jobs
from hearth.store.sqlite import COMPANIONS, sqlite_path, sqlite_url
from hearth.store.version import is_current
from hearth.volume.file import DISK, FACTS
from hearth.volume.linked import SUFFIX
from hearth.volume.names import check_volume_name

MARK = b"hearth backup restore\n"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was restored: rows by table, volumes, the keys' names; and where what was there before is now."""

    tables: dict[str, int]
    volumes: int
    keys: tuple[str, ...]
    replaced: Path | None
    links: int = 0


async def restore_backup(source: Path, place: Place, *, passphrase: bytes | None, force: bool) -> Restored:
    """Restore into an empty data directory and an empty database, or with ``force`` in place of what is there.

    Raises:
        BackupDamaged, InvalidInput: the backup is no good, or the passphrase does not fit.
        StoreTooNew: it was made by a later version.
        Conflict: something is there already, or a daemon uses it.
        NoSpace: a disk is full; nothing was changed.
    """
    return await asyncio.to_thread(_restore, source, place, passphrase, force)


def _restore(source: Path, place: Place, passphrase: bytes | None, force: bool) -> Restored:
    with BackupReader(source) as backup:
        _check(backup)
        backup.verify()
        place.data.check()
        prepare_directory(place.data)
        with own_directory(place.data):
            if not force:
                _require_empty(place)
            staging = place.data.root / "restore.tmp"
            remove_tree(staging)
            staging.mkdir(mode=0o700)
            try:
                keys = _stage(backup, place, staging, passphrase)
                return _put_in_place(backup, place, staging, keys, force=force)
            finally:
                if not place.data.restoring.exists():
                    remove_tree(staging)


def _check(backup: BackupReader) -> None:
    manifest = backup.manifest
    if manifest.revision not in REVISIONS:
        raise StoreTooNew(
            "the backup was written by a later version of hearth",
            details=f"its schema is {manifest.revision}, by hearth {manifest.hearth}; this one knows up to {HEAD}",
            resolution="restore it with that version",
        )
    for volume_id in (*(volume.id for volume in manifest.volumes), *manifest.links):
        check_volume_name(volume_id)


def _require_empty(place: Place) -> None:
    data = place.data
    there = [path for path in _directories(place) if path.is_dir() and any(path.iterdir())]
    there += [file for file in (_file_of(place),) if file is not None and file.exists()]
    if there:
        raise Conflict(
            "the data directory is not empty",
            details=f"{data.root} has {', '.join(path.name for path in there)}",
            resolution="choose another one with --data, or --force: what is there is kept beside",
            field="data",
        )


def _directories(place: Place) -> list[Path]:
    """What a restore replaces beside the database; keys may have been put there for it."""
    data = place.data
    return [
        data.machines,
        data.snapshots,
        data.volumes / "disks",
        data.volumes / "attachments",
        links_of(data),
        data.execs,
    ]


def _file_of(place: Place) -> Path | None:
    return None if is_postgresql(place.database_url) else sqlite_path(place.database_url)


def _stage(backup: BackupReader, place: Place, staging: Path, passphrase: bytes | None) -> dict[str, bytes]:
    """Write volumes aside, and open the keys; the rest of the directory is not touched."""
    keys: dict[str, bytes] = {}
    if backup.manifest.keys and passphrase is not None:
        keys = open_keys(b"".join(backup.chunks(KEYS)), passphrase)
        if not keys.keys() <= place.key_files.keys():
            raise BackupDamaged("the backup is damaged", details="it holds keys of unknown names")
    for volume in backup.manifest.volumes:
        if volume.left_out is None:
            directory = staging / "disks" / volume.id
            directory.mkdir(mode=0o700, parents=True)
            facts, disk = volume_members(volume.id)
            write_atomic(directory / FACTS, b"".join(backup.chunks(facts)))
            _write_disk(directory / DISK, volume.size_bytes, backup.chunks(disk))
    links = staging / "links"
    links.mkdir(mode=0o700)
    for volume_id in backup.manifest.links:
        write_atomic(links / f"{volume_id}{SUFFIX}", b"".join(backup.chunks(link_member(volume_id))))
    return keys


def _write_disk(path: Path, size_bytes: int, chunks: Iterator[bytes]) -> None:
    with (
        space_errors(path),
        open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as disk,
    ):
        os.ftruncate(disk.fileno(), size_bytes)
        position = left = 0
        pending = b""
        for chunk in chunks:
            pending += chunk
            while pending:
                if left == 0:
                    if len(pending) < 2 * OFFSET_BYTES:
                        break
                    position = int.from_bytes(pending[:OFFSET_BYTES])
                    left = int.from_bytes(pending[OFFSET_BYTES : 2 * OFFSET_BYTES])
                    pending = pending[2 * OFFSET_BYTES :]
                    if left == 0 or position + left > size_bytes:
                        raise BackupDamaged(
                            "the backup is damaged", details=f"a volume's bytes lie beyond its end: {path}"
                        )
                    continue
                part, pending = pending[:left], pending[left:]
                os.pwrite(disk.fileno(), part, position)
                position, left = position + len(part), left - len(part)
        if left or pending:
            raise BackupDamaged("the backup is damaged", details=f"a volume's bytes are cut off: {path.parent.name}")
        os.fsync(disk.fileno())


def _put_in_place(
    backup: BackupReader, place: Place, staging: Path, keys: dict[str, bytes], *, force: bool
) -> Restored:
    data = place.data
    file = _file_of(place)
    if file is None:
        counts = _fill(backup, place.database_url, data.restoring, force=force)
        replaced = _move_aside(place, keys)
    else:
        aside = file.with_name(f"{file.name}.restore.tmp")
        _forget_database(aside)
        try:
            counts = _fill(backup, sqlite_url(aside), None, force=force)
            sync_file(aside)
            write_atomic(data.restoring, MARK)
            replaced = _move_aside(place, keys)
            aside.replace(file)
            sync_directory(file.parent)
        finally:
            _forget_database(aside)
    for name, content in keys.items():
        write_atomic(place.key_files[name], content, mode=0o600)
    write_atomic(data.host_id, f"{backup.manifest.host}\n".encode(), mode=0o600)
    volumes = _move_all(staging / "disks", data.volumes / "disks")
    links = _move_all(staging / "links", links_of(data))
    data.restoring.unlink()
    sync_directory(data.root)
    return Restored(tables=counts, volumes=volumes, keys=tuple(sorted(keys)), replaced=replaced, links=links)


def _fill(backup: BackupReader, url: str, mark: Path | None, *, force: bool) -> dict[str, int]:
    """Make the database in one transaction: all of it or nothing.

    Args:
        mark: written just before the commit, for who is cut off in that moment knows neither of both.
    """
    manifest = backup.manifest
    with migrating(url) as connection:
        _make_room(connection, force=force)
        tables = ((name, backup.lines(table_member(name))) for name in manifest.tables)
        counts = load(connection, manifest.revision, tables)
        if counts != manifest.tables:
            raise BackupDamaged("the backup is damaged", details="its tables hold another number of rows")
        connection.execute(update(hosts).values(seen_at=None))
        # Volumes outlive backups: an order of then may not write over what is there under its name by now.
        orders = update(jobs).where(jobs.c.kind == KIND, jobs.c.state.in_(sorted(UNENDED)))
        connection.execute(orders.values(cancel_asked_at=datetime.now(UTC)))
        if mark is not None:
            write_atomic(mark, MARK)
    return counts


def _move_all(staged: Path, target: Path) -> int:
    if not staged.exists():
        return 0
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = sorted(staged.iterdir())
    for path in found:
        path.replace(target / path.name)
    sync_directory(target)
    return len(found)


def _make_room(connection: Connection, *, force: bool) -> None:
    """Leave a database without tables.

    Raises:
        Conflict: it is not empty, or daemons use it.
        HostUnfit: it is another program's.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return
    is_current(connection)
    if not force:
        raise Conflict(
            "the database is not empty",
            details=f"it holds {len(tables)} tables",
            resolution="choose another one, or --force to replace it for all hosts that use it",
            field="database_url",
        )
    if "hosts" in tables:
        living = select(hosts.c.name).where(hosts.c.seen_at > datetime.now(UTC) - SILENT_AFTER)
        names = connection.scalars(living).all()
        if names:
            raise Conflict(
                "daemons use this database",
                details=f"heard of within the last minute: {', '.join(sorted(map(str, names)))}",
                resolution="stop them first",
            )
    drop_everything(connection)


def _move_aside(place: Place, keys: Mapping[str, bytes]) -> Path | None:
    """Move what is replaced into a directory of its own, a database's file beside itself; nothing is deleted."""
    stamp = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    target = place.data.root / stamp
    target.mkdir(mode=0o700)
    for path in _directories(place):
        if path.is_dir() and any(path.iterdir()):
            path.rename(target / path.name)
            path.mkdir(mode=0o700)
    for name, content in keys.items():
        path = place.key_files[name]
        if path.exists() and path.read_bytes() != content:
            write_atomic(target / name, path.read_bytes(), mode=0o600)
    file = _file_of(place)
    if file is not None:
        for companion in COMPANIONS:
            beside = Path(f"{file}{companion}")
            if beside.exists():
                beside.rename(f"{file}.{stamp}{companion}")
        sync_directory(file.parent)
    if not any(target.iterdir()):
        target.rmdir()
        return None
    sync_directory(target)
    sync_directory(place.data.root)
    return target


def _forget_database(path: Path) -> None:
    for companion in COMPANIONS:
        Path(f"{path}{companion}").unlink(missing_ok=True)
