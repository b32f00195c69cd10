"""Volumes that are provisioned ones: kept by another storage, known here by a link that says where and how to read it.

root/<volume>.json    one link: which provisioned volume it is, its path and format, where the file system lies in it

All other volumes are those of the storage below. A link is taken away, the provisioned volume stays what it is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from hearth.errors import Conflict, NotFound
from hearth.host import files
from hearth.host.threads import on_own_thread
from hearth.volume import ext4, holds
from hearth.volume.base import (
    AttachMode,
    FileSystem,
    Layout,
    Volume,
    VolumeBackend,
    VolumeDamaged,
    VolumeSpec,
    no_such_volume,
    volume_in_use,
)
from hearth.volume.names import check_volume_name

SUFFIX = ".json"
BLOCK_BYTES = 512
POOL_TAG, PROVISIONED_TAG = "pool", "provisioned"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume is: volume ``provisioned`` of ``pool``.

    Args:
        path, format: of its file or block device, ``raw`` or ``qcow2``; ``base`` is what it lies over, empty for none.
        disk_bytes: of the disk in it; ``offset_bytes`` and ``size_bytes`` of the file system there, in ``partition``,
            0 for the whole disk; ``wanted`` is the one that was asked for.
        problem: why it cannot be attached; empty when it can.
    """

    pool: str
    provisioned: str
    path: str
    format: str
    disk_bytes: int
    offset_bytes: int
    size_bytes: int
    partition: int
    wanted: int | None
    created_at: datetime
    base: str = ""
    base_format: str = "raw"
    problem: str = ""


class LinkedVolumes:
    """Implements ``hearth.volume.base.VolumeBackend``: links, and what the storage below has."""

    def __init__(self, below: VolumeBackend, root: Path) -> None:
        self._below = below
        self._root = root

    @property
    def name(self) -> str:
        """The kind of the storage below."""
        return self._below.name

    def prepare(self) -> None:
        """Make the directory, for its owner alone; an existing one is fine."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def link(self, name: str, link: Link) -> None:
        """Let a volume be a provisioned one; an earlier link of that name is replaced."""
        files.write_atomic(self._path(name), msgspec.json.encode(link))

    def link_of(self, name: str) -> Link | None:
        """Give what a volume is a link to; None where it is none."""
        try:
            return msgspec.json.decode(self._path(name).read_bytes(), type=Link)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise VolumeDamaged(
                "what is known of a volume cannot be read",
                details=f"{self._path(name)}: {error}",
                resolution="delete the volume and link it again",
                field="volume",
            ) from error

    def names_of(self, pool: str, provisioned: str) -> list[str]:
        """Give the volumes that are this provisioned one."""
        found = []
        for path in sorted(self._root.glob(f"*{SUFFIX}")):
            link = self.link_of(path.name.removesuffix(SUFFIX))
            if link is not None and (link.pool, link.provisioned) == (pool, provisioned):
                found.append(path.name.removesuffix(SUFFIX))
        return found

    async def create(self, spec: VolumeSpec) -> Volume:
        """Make a volume in the storage below."""
        return await self._below.create(spec)

    async def delete(self, name: str) -> None:
        """Take a link away, or delete what is below."""
        if self.link_of(name) is None:
            await self._below.delete(name)
            return
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
        files.sync_directory(self._root)

    async def resize(self, name: str, size_mib: int) -> Volume:
        """Grow what is below; a provisioned volume is grown where it is."""
        if (link := self.link_of(name)) is not None:
            raise _elsewhere(link, "grown", f"'hearth provisioned grow {link.provisioned} SIZE --pool {link.pool}'")
        return await self._below.resize(name, size_mib)

    async def clone(self, name: str, new_name: str) -> Volume:
        """Copy what is below; of a provisioned volume another one is made."""
        if (link := self.link_of(name)) is not None:
            raise _elsewhere(link, "copied", "'hearth provision'")
        return await self._below.clone(name, new_name)

    async def check(self, name: str) -> bool:
        """Replay the journal of a file system that was not unmounted; one in a qcow2 file is left as it is."""
        link = self.link_of(name)
        if link is None:
            return await self._below.check(name)
        if link.format != "raw":
            return False
        disk = self.open(name, AttachMode.READ_WRITE)
        try:
            if not holds.take(disk, AttachMode.READ_WRITE):
                raise volume_in_use(name, "open in a machine, or being worked on")
            if not ext4.read_health(disk, offset_bytes=link.offset_bytes).is_dirty:
                return False
            await ext4.mend(disk, offset_bytes=link.offset_bytes)
            await on_own_thread("sync", lambda: os.fsync(disk))
        finally:
            os.close(disk)
        return True

    async def describe(self, name: str) -> Volume:
        """Tell of a link as of a volume: its size is that of the disk."""
        link = self.link_of(name)
        if link is None:
            return await self._below.describe(name)
        try:
            status = await on_own_thread("look", Path(link.path).stat)
        except FileNotFoundError as error:
            raise no_such_volume(name) from error
        return Volume(
            name=name,
            size_bytes=link.disk_bytes,
            allocated_bytes=link.disk_bytes if stat.S_ISBLK(status.st_mode) else status.st_blocks * BLOCK_BYTES,
            fs=FileSystem.EXT4,
            created_at=link.created_at,
            tags={POOL_TAG: link.pool, PROVISIONED_TAG: link.provisioned},
        )

    async def list(self) -> list[Volume]:
        """Tell of links and of what is below."""
        found = []
        for path in self._root.glob(f"*{SUFFIX}"):
            with contextlib.suppress(NotFound):
                found.append(await self.describe(path.name.removesuffix(SUFFIX)))
        return sorted([*found, *await self._below.list()], key=lambda volume: volume.name)

    def open(self, name: str, mode: AttachMode) -> int:
        """Open what a link leads to, or what is below."""
        link = self.link_of(name)
        if link is None:
            return self._below.open(name, mode)
        if link.problem:
            raise Conflict(
                "the volume cannot be attached",
                details=f"{link.provisioned} in pool {link.pool}: {link.problem}",
                resolution="delete the volume and link it again, naming the partition",
                field="volume",
            )
        try:
            return os.open(link.path, (os.O_RDONLY if mode is AttachMode.READ_ONLY else os.O_RDWR) | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise no_such_volume(name) from error

    def layout(self, name: str) -> Layout:
        """Tell how the bytes of a volume are to be read."""
        link = self.link_of(name)
        if link is None:
            return self._below.layout(name)
        return Layout(
            format=link.format,
            offset_bytes=link.offset_bytes,
            size_bytes=link.size_bytes,
            base=Path(link.base) if link.base else None,
            base_format=link.base_format,
        )

    async def sweep(self) -> Sequence[str]:
        """Remove what was left half-made."""
        for left in self._root.glob(f"*{files.TEMPORARY_SUFFIX}"):
            left.unlink(missing_ok=True)
        return await self._below.sweep()

    def _path(self, name: str) -> Path:
        return self._root / f"{check_volume_name(name)}{SUFFIX}"


def _elsewhere(link: Link, what: str, how: str) -> Conflict:
    return Conflict(
        f"a provisioned volume is not {what} here",
        details=f"it is {link.provisioned} in pool {link.pool}",
        resolution=f"use {how}",
        field="volume",
    )
