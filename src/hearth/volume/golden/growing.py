"""After a disk was made larger: its partition table, its last partition and the file system there, as far as wanted."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from hearth.errors import InvalidInput
from hearth.host.file_systems import LOOK_BYTES, name_of, read_ext
from hearth.host.files import space_errors
from hearth.host.growing import plan_growth
from hearth.host.guest_disk import GuestDisk
from hearth.host.partitions import HEAD_BYTES, Partition, TableRefused, read_table
from hearth.volume import ext4
from hearth.volume.base import VolumeDamaged
from hearth.volume.copying import copy_part
from hearth.volume.golden.populate import size_of

log = structlog.get_logger(__name__)

NONE, TABLE, PARTITION, FILE_SYSTEM = "none", "table", "partition", "filesystem"
GROWTHS = (NONE, TABLE, PARTITION, FILE_SYSTEM)
"""What grows with a volume, each with what is before it."""
FIELD = "grow"


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What grew: one of ``GROWTHS``; ``why`` it was no more, empty where it was what was wanted."""

    what: str
    why: str = ""


def check_growth(value: str) -> str:
    """Return a growth that may be wanted.

    Raises:
        InvalidInput: it is none; names ``grow``.
    """
    if value not in GROWTHS:
        raise InvalidInput(
            "unknown grow",
            details=f"grow {value[:80]!r} is none of {', '.join(GROWTHS)}",
            resolution="leave grow out, or choose one of these",
            field=FIELD,
        )
    return value


def needs_raw(wanted: str) -> bool:
    """Tell whether a disk has to be a plain file or block device for this: e2fsprogs read no qcow2."""
    return wanted == FILE_SYSTEM


@contextlib.asynccontextmanager
async def opened_disk(
    path: Path, disk_format: str, size_bytes: int, base: Path | None = None, base_format: str = "raw"
) -> AsyncIterator[GuestDisk]:
    """Open a volume's file or device for reading and writing.

    Args:
        size_bytes: of its disk, where that is a qcow2 file. A raw one ends where its file or device does, for storages
            round sizes up.
    """
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        if disk_format == "raw":
            size_bytes = size_of(descriptor)
        below = -1
        if base is not None:
            below = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, below)
        yield GuestDisk(
            descriptor=descriptor, format=disk_format, size_bytes=size_bytes, base=below, base_format=base_format
        )


async def grow_into(disk: GuestDisk, wanted: str, directory: Path) -> Grown:
    """Let what is on a disk take the room that the disk has; nobody uses it meanwhile.

    Args:
        directory: where a partition's bytes may lie for a while.

    Raises:
        InvalidInput: what is there cannot grow that far; names ``grow``, nothing was lost.
        DiskFailed: the disk cannot be read or written.
        VolumeDamaged, NoSpace, TimedOut: of its file system.
    """
    if check_growth(wanted) == NONE:
        return Grown(what=NONE)
    head = await disk.read(0, HEAD_BYTES)
    try:
        table = read_table(head, disk.size_bytes)
        plan = None
        if table is not None:
            plan = plan_growth(head, table, disk.size_bytes, with_partition=wanted != TABLE)
    except TableRefused as error:
        if wanted == TABLE:  # what nobody asked for in particular is no reason to go without the volume
            return Grown(what=NONE, why=str(error))
        raise cannot_grow(str(error)) from error
    if plan is None:
        place: Partition | None = Partition(number=0, offset_bytes=0, size_bytes=disk.size_bytes, kind="")
    else:
        await disk.write(plan.writes)
        place = plan.partition
        log.info("partition table grown", writes=len(plan.writes), disk_bytes=disk.size_bytes)
    if wanted != FILE_SYSTEM:
        return Grown(what=wanted if plan is not None else NONE, why="" if plan is not None else "it has no table")
    if place is None:
        raise cannot_grow("the disk has no partition")
    return await _grow_file_system(disk, place, directory)


async def _grow_file_system(disk: GuestDisk, place: Partition, directory: Path) -> Grown:
    where = f"partition {place.number}" if place.number else "the disk"
    start = await disk.read(place.offset_bytes, min(LOOK_BYTES, place.size_bytes))
    ext = read_ext(start)
    if ext is None:
        return Grown(what=PARTITION, why=f"{where} holds {name_of(start)}: only its guest can grow that, mounted")
    if place.size_bytes - ext.size_bytes < max(ext.block_bytes, 1):
        return Grown(what=FILE_SYSTEM)
    if disk.format != "raw":
        raise cannot_grow("the volume is a qcow2 file, whose file system only its guest can grow")
    try:
        if stat.S_ISREG(os.fstat(disk.descriptor).st_mode):
            await _grow_aside(disk.descriptor, place, directory)
        else:
            await ext4.mend(disk.descriptor, fully=True, offset_bytes=place.offset_bytes)
            await ext4.fill(disk.descriptor, offset_bytes=place.offset_bytes, size_bytes=place.size_bytes)
    except ext4.MakeFailed as error:
        raise VolumeDamaged(
            "the file system could not be grown", details=error.details, resolution="say grow partition"
        ) from error
    os.fsync(disk.descriptor)
    return Grown(what=FILE_SYSTEM)


async def _grow_aside(descriptor: int, place: Partition, directory: Path) -> None:
    """Grow the file system in a part of a file: in a file of its own, for resize2fs cuts a file where it ends."""
    with space_errors(directory):
        aside = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(aside, place.size_bytes)
            await copy_part(descriptor, aside, place.offset_bytes, 0, place.size_bytes)
            await ext4.mend(aside, fully=True)
            await ext4.fill(aside)
            await copy_part(aside, descriptor, 0, place.offset_bytes, place.size_bytes)
        finally:
            os.close(aside)


def cannot_grow(why: str) -> InvalidInput:
    """Give the error for what cannot grow as far as was wanted."""
    return InvalidInput(
        "what is on the volume cannot grow that far",
        details=why,
        resolution="leave grow out, or ask for less of it",
        field=FIELD,
    )


def cannot_be_reached(pool: str) -> InvalidInput:
    """Give the error for a volume that this host has no path to."""
    return InvalidInput(
        "the volume cannot be read or grown here",
        details=f"pool {pool} gives no path to its volumes on this host",
        resolution="leave grow and verify out",
        field=FIELD,
    )


def is_here(path: Path) -> bool:
    """Tell whether a volume's bytes are those of a file or block device of this host."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)
