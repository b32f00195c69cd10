"""Backups of what a daemon knows: the database as it was at one moment, and if wanted the keys and the volumes' bytes.

The daemon may run meanwhile. Machines' disks, their memory and checkpoints are not in a backup, nor are images.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hearth.config import DataDirectory, Settings
from hearth.control.backup_file import CHUNK_BYTES, FORMAT, BackupWriter, Manifest, VolumeEntry
from hearth.control.backup_keys import seal_keys
from hearth.errors import HearthError, InvalidInput
from hearth.host.clock import SystemClock
from hearth.host.directory import load_host_id
from hearth.host.files import data_ranges
from hearth.store.dump import dump_table, revision_of, tables_of, unchanging
from hearth.store.postgresql import is_postgresql
from hearth.store.sqlite import sqlite_url
from hearth.version import VERSION
from hearth.volume.base import AttachMode
from hearth.volume.file import DISK, FACTS, FileVolumes
from hearth.volume.linked import SUFFIX
from hearth.volume.locks import Attachments

KEYS = "keys.sealed"
OFFSET_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is backed up or restored: a data directory, and where the database and the keys of it are."""

    data: DataDirectory
    database_url: str
    master_key: Path

    @property
    def key_files(self) -> dict[str, Path]:
        """Files of secrets, by the names they have in a backup."""
        return {"master.key": self.master_key, "agent.secret": self.data.secret, "admin.key": self.data.admin_key}


def place_of(data: DataDirectory, settings: Settings) -> Place:
    """Give where everything is."""
    return Place(
        data=data,
        database_url=settings.database_url or sqlite_url(data.database),
        master_key=settings.master_key or data.master_key,
    )


def table_member(table: str) -> str:
    """Name the member with a table's rows."""
    return f"tables/{table}.jsonl"


def volume_members(volume_id: str) -> tuple[str, str]:
    """Name the members with a volume's facts and bytes."""
    return f"volumes/{volume_id}/{FACTS}", f"volumes/{volume_id}/{DISK}"


def link_member(volume_id: str) -> str:
    """Name the member that tells which provisioned volume one is."""
    return f"links/{volume_id}{SUFFIX}"


def links_of(data: DataDirectory) -> Path:
    """Give where links to provisioned volumes are."""
    return data.volumes / "links"


async def create_backup(place: Place, target: Path, *, passphrase: bytes | None, with_volumes: bool) -> Manifest:
    """Write a backup into a new file; gives what is in it.

    Raises:
        Conflict: the file exists.
        InvalidInput: there is nothing to back up.
        NoSpace, HostUnfit: it cannot be written.
        HearthError: the database cannot be read.
    """
    if not place.data.root.is_dir():
        raise InvalidInput(
            "there is no data directory",
            details=str(place.data.root),
            resolution="name the daemon's with --data, or set HEARTH_DATA",
            field="data",
        )
    host = load_host_id(place.data)
    with BackupWriter(target) as writer:
        revision, counts = await asyncio.to_thread(_add_tables, place, writer)
        keys = {name: path.read_bytes() for name, path in place.key_files.items() if path.exists()}
        if passphrase is not None:
            writer.add(KEYS, [await asyncio.to_thread(seal_keys, keys, passphrase)])
        manifest = Manifest(
            format=FORMAT,
            hearth=VERSION,
            created_at=datetime.now(UTC),
            database="postgresql" if is_postgresql(place.database_url) else "sqlite",
            revision=revision,
            host=host,
            host_name=platform.node(),
            keys=passphrase is not None,
            tables=counts,
            volumes=await _add_volumes(place, writer, with_volumes=with_volumes),
            members=writer.members,
            links=await asyncio.to_thread(_add_links, place, writer),
        )
        await asyncio.to_thread(writer.finish, manifest)
    return manifest


def _add_tables(place: Place, writer: BackupWriter) -> tuple[str, dict[str, int]]:
    counts = {}
    with unchanging(place.database_url) as connection:
        for table in tables_of(connection):
            counted = _Counted(dump_table(connection, table))
            writer.add(table_member(table), counted)
            counts[table] = counted.count - 1  # without the head
        return revision_of(connection), counts


def _add_links(place: Place, writer: BackupWriter) -> list[str]:
    found = []
    for path in sorted(links_of(place.data).glob(f"*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # it was taken away in this moment
            writer.add(link_member(path.stem), [path.read_bytes()])
            found.append(path.stem)
    return found


class _Counted:
    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.count += 1
            yield line


async def _add_volumes(place: Place, writer: BackupWriter, *, with_volumes: bool) -> list[VolumeEntry]:
    if not (place.data.volumes / "disks").exists():
        return []
    clock = SystemClock()
    backend = FileVolumes(place.data.volumes, clock=clock)
    attachments = Attachments(place.data.volumes / "attachments", backend, clock=clock)
    attachments.prepare()
    entries = []
    for volume in await backend.list():
        left_out = None if with_volumes else "volumes were not asked for"
        if with_volumes:
            try:
                async with attachments.reserved(volume.name, for_reading=True):
                    await asyncio.to_thread(_add_volume, place, backend, writer, volume.name)
            except HearthError as error:
                left_out = f"{error.brief}: {error.details}"
        entries.append(VolumeEntry(id=volume.name, size_bytes=volume.size_bytes, left_out=left_out))
    return entries


def _add_volume(place: Place, backend: FileVolumes, writer: BackupWriter, volume_id: str) -> None:
    facts, disk = volume_members(volume_id)
    descriptor = backend.open(volume_id, AttachMode.READ_ONLY)
    try:
        writer.add(facts, [(place.data.volumes / "disks" / volume_id / FACTS).read_bytes()])
        writer.add(disk, extents_of(descriptor))
    finally:
        os.close(descriptor)


def extents_of(descriptor: int) -> Iterator[bytes]:
    """Give an open file without its holes: 8 bytes of offset, 8 of length (big-endian), the bytes; over and over."""
    for start, end in data_ranges(descriptor):
        yield start.to_bytes(OFFSET_BYTES) + (end - start).to_bytes(OFFSET_BYTES)
        position = start
        while position < end:
            chunk = os.pread(descriptor, min(CHUNK_BYTES, end - position), position)
            if not chunk:
                raise OSError("a volume became shorter while it was read")
            yield chunk
            position += len(chunk)
