"""From a golden image to the root file system of sandboxes: which part of its disk that is, and that part by itself.

hearth boots a kernel of its own and brings its agent along, so nothing of a disk counts but the file system of its
root. It is found by reading the partition table, and never mounted here.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.host.file_systems import LOOK_BYTES, Ext, name_of, read_ext
from hearth.host.files import new_file, require_free
from hearth.host.guest_disk import DiskFailed, GuestDisk
from hearth.host.partitions import HEAD_BYTES, Partition, TableRefused, read_table
from hearth.image.golden.base import ImageRefused
from hearth.image.golden.entries import Lease

FIELD = "partition"
MEBIBYTE = 1024 * 1024
ROOT_KINDS = {
    "x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}
"""Types of partitions that are roots: the UAPI group's Discoverable Partitions Specification."""
LOOKED_AT_MAX = 16
"""Partitions whose file system is looked at: each takes a tool's start."""
ROOT_LABELS = frozenset({"root", "rootfs", "cloudimg-rootfs", "/"})
PERCENT = re.compile(rb"\(\s*(\d+\.\d+)/100%\)")

OnBytes = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Root:
    """Where a root file system lies; ``partition`` is 0 where it is the whole disk."""

    partition: int
    offset_bytes: int
    size_bytes: int


async def find_root(disk: GuestDisk, partition: int | None = None) -> Root:
    """Find the root file system of a disk.

    Args:
        partition: its number, 0 for the whole disk; None to find out: the one that is marked as this machine's root,
            else the only ext4, else the only one that is called root.

    Raises:
        ImageRefused: there is none that can be a sandbox's root, or several; says which there are.
    """
    if disk.size_bytes < MEBIBYTE:
        raise refused(f"its disk has {disk.size_bytes} bytes")
    head = await _read(disk, 0, HEAD_BYTES)
    try:
        table = None if partition == 0 else read_table(head, disk.size_bytes)
        if table is None:
            return _whole(disk, head, partition)
        if partition is not None:
            return await _one(disk, table.partition(partition))
    except TableRefused as error:
        raise refused(str(error)) from error
    marked = [each for each in table.partitions if each.kind == ROOT_KINDS.get(platform.machine())]
    if len(marked) == 1:
        return await _one(disk, marked[0])
    return await _only(disk, table.partitions)


async def extract_root(disk: GuestDisk, root: Root, target: Path, on_bytes: OnBytes) -> None:
    """Write a root file system into a new sparse file, of whole MiB as disks of sandboxes are.

    Raises:
        ImageRefused: the disk cannot be read.
        NoSpace: the host's disk is full.
    """

    def follow(said: bytes) -> None:
        if found := PERCENT.findall(said):
            on_bytes(int(float(found[-1]) / 100 * root.size_bytes), root.size_bytes)

    require_free(target.parent, MEBIBYTE)
    with new_file(target) as made:
        os.ftruncate(made, -(-root.size_bytes // MEBIBYTE) * MEBIBYTE)
        try:
            await disk.copy_to(made, root.offset_bytes, root.size_bytes, on_output=follow)
        except DiskFailed as error:
            if "No space left" in error.details:
                require_free(target.parent, root.size_bytes)
            raise refused(error.details) from error


def disk_of(lease: Lease, descriptor: int) -> GuestDisk:
    """Give the disk in a cached image that is open."""
    return GuestDisk(descriptor=descriptor, format=lease.facts.format, size_bytes=lease.facts.virtual_size_bytes)


def refused(what: str) -> ImageRefused:
    """Give the error for a disk that can be no sandbox's root."""
    return ImageRefused(
        "the image cannot be a sandbox's root",
        details=what,
        resolution="use a disk with an ext4 root file system; say 'partition' where it has several",
        field=FIELD,
    )


def _whole(disk: GuestDisk, head: bytes, partition: int | None) -> Root:
    if partition:
        raise refused(f"its disk has no partition table, and partition {partition} was asked for")
    _require_usable(head, disk.size_bytes, "its disk")
    return Root(partition=0, offset_bytes=0, size_bytes=disk.size_bytes // 512 * 512)


async def _one(disk: GuestDisk, found: Partition) -> Root:
    start = await _read(disk, found.offset_bytes, min(LOOK_BYTES, found.size_bytes))
    _require_usable(start, found.size_bytes, f"partition {found.number}")
    return Root(partition=found.number, offset_bytes=found.offset_bytes, size_bytes=found.size_bytes)


async def _only(disk: GuestDisk, partitions: Sequence[Partition]) -> Root:
    """Choose among partitions by what they hold."""
    seen: list[tuple[Partition, Ext | None, str]] = []
    for each in partitions[:LOOKED_AT_MAX]:
        start = await _read(disk, each.offset_bytes, min(LOOK_BYTES, each.size_bytes))
        seen.append((each, read_ext(start), name_of(start)))
    fitting = [(each, ext) for each, ext, _ in seen if ext is not None]
    named = [(each, ext) for each, ext in fitting if {each.name.lower(), ext.label.lower()} & ROOT_LABELS]
    chosen = fitting if len(fitting) == 1 else named
    if len(chosen) != 1:
        listed = "; ".join(f"{each.number}: {what}, {each.size_bytes // MEBIBYTE} MiB" for each, _, what in seen)
        raise refused(f"it has {len(fitting)} partitions with ext4, and none that is the root for certain ({listed})")
    return await _one(disk, chosen[0][0])


def _require_usable(start: bytes, size_bytes: int, where: str) -> None:
    ext = read_ext(start)
    if ext is None:
        raise refused(f"{where} holds {name_of(start)}; a sandbox's root is ext4")
    if ext.needs_device:
        raise refused(f"the ext4 in {where} keeps its journal on another disk")
    if not 0 < ext.size_bytes <= size_bytes:
        raise refused(f"the ext4 in {where} has {ext.size_bytes} bytes, more than the {size_bytes} there are")


async def _read(disk: GuestDisk, offset_bytes: int, size_bytes: int) -> bytes:
    try:
        return await disk.read(offset_bytes, size_bytes // 512 * 512)
    except DiskFailed as error:
        raise refused(error.details) from error
