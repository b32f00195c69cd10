"""Volumes as sparse raw files in a directory, the embedded default: no daemon, no device, no right of root.

root/
  disks/<name>/disk           the bytes, as large as the guest sees them (0600)
  disks/<name>/volume.json    what the bytes do not tell
  disks/*.tmp                 unfinished work, swept while nobody works
  lock                        shared by whoever works, exclusive while sweeping
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.host import files
from hearth.host.clock import Clock
from hearth.host.waiting import until_done
from hearth.volume import ext4, holds
from hearth.volume.base import (
    MEBIBYTE,
    AttachMode,
    FileSystem,
    Layout,
    Volume,
    VolumeDamaged,
    VolumeSpec,
    check_size,
    no_such_volume,
    volume_in_use,
)
from hearth.volume.copying import copy_sparse
from hearth.volume.names import check_volume_name

log = structlog.get_logger(__name__)

T = TypeVar("T")

DISK = "disk"
FACTS = "volume.json"
RETRY_S = 0.05
BLOCK_BYTES = 512
"""Of ``st_blocks``: stat(2)."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """``volume.json``; the size is the file's own and stands nowhere else."""

    created_at: datetime
    fs: FileSystem
    tags: dict[str, str] = {}


class FileVolumes:
    """Implements ``hearth.volume.base.VolumeBackend``. Several processes may use one directory at once."""

    name = "file"

    def __init__(self, root: Path, *, clock: Clock) -> None:
        self._disks = root / "disks"
        self._lock = root / "lock"
        self._clock = clock

    def prepare(self) -> None:
        """Make the directories, for their owner alone; existing ones are fine."""
        self._disks.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def create(self, spec: VolumeSpec) -> Volume:
        """Make a sparse file with its file system."""
        check_volume_name(spec.name, what="name")
        size_bytes = check_size(spec.size_mib) * MEBIBYTE
        self._require_unused(spec.name)
        files.require_free(self._disks, size_bytes)
        async with self._working(), self._staging(spec.name) as staging:
            with _new_disk(staging / DISK, size_bytes) as disk:
                if spec.fs is FileSystem.EXT4:
                    await ext4.make(disk, label=spec.name, owner=spec.owner)
            self._write_facts(staging, spec.fs, spec.tags)
            await self._publish(staging, spec.name)
        return self._describe(spec.name)

    async def delete(self, name: str) -> None:
        """Take the volume out of the list at once, then give its space back."""
        check_volume_name(name)
        async with self._working():
            try:
                disk = self.open(name, AttachMode.READ_WRITE)
            except NotFound:
                return
            gone = files.temporary_beside(self._disks / name)
            with _alone(disk, name):
                (self._disks / name).rename(gone)
                files.sync_directory(self._disks)
            await _to_its_end(lambda: files.remove_tree(gone))

    async def resize(self, name: str, size_mib: int) -> Volume:
        """Grow a copy (sharing blocks where it can) and put it in place: a cut in the middle leaves the old volume."""
        size_bytes = check_size(size_mib) * MEBIBYTE
        before = self._describe(check_volume_name(name))
        async with self._working():
            with _alone(self.open(name, AttachMode.READ_WRITE), name) as disk:
                old_bytes = os.fstat(disk).st_size
                if size_bytes < old_bytes:
                    raise InvalidInput(
                        "a volume cannot shrink",
                        details=f"size_mb {size_mib} is less than the {old_bytes // MEBIBYTE} MiB it has",
                        resolution="make a smaller volume and copy what you need",
                        field="size_mb",
                    )
                files.require_free(self._disks, size_bytes - old_bytes)
                if before.fs is FileSystem.EXT4:
                    await self._grow_aside(name, disk, size_bytes)
                else:
                    os.ftruncate(disk, size_bytes)
                    os.fsync(disk)
        return self._describe(name)

    async def _grow_aside(self, name: str, disk: int, size_bytes: int) -> None:
        async with self._staging(name) as staging:
            await copy_sparse(disk, staging / DISK)
            with _opened(staging / DISK, os.O_RDWR) as copy:
                await ext4.mend(copy, fully=True)
                with files.space_errors(staging):
                    os.ftruncate(copy, size_bytes)
                await ext4.fill(copy)
            await _to_its_end(lambda: files.publish_file(staging / DISK, self._disks / name / DISK))

    async def clone(self, name: str, new_name: str) -> Volume:
        """Copy a volume by reflink, else what is written of it."""
        check_volume_name(new_name, what="new_name")
        source = self._describe(check_volume_name(name))
        self._require_unused(new_name)
        files.require_free(self._disks, source.size_bytes)
        async with self._working(), self._staging(new_name) as staging:
            with _shared(self.open(name, AttachMode.READ_ONLY), name) as disk:
                await copy_sparse(disk, staging / DISK)
            self._write_facts(staging, source.fs, {**source.tags, "cloned_from": name})
            await self._publish(staging, new_name)
        return self._describe(new_name)

    async def check(self, name: str) -> bool:
        """Replay the journal of a file system that was not unmounted."""
        volume = self._describe(check_volume_name(name))
        if volume.fs is not FileSystem.EXT4:
            return False
        async with self._working():
            with _alone(self.open(name, AttachMode.READ_WRITE), name) as disk:
                if not ext4.read_health(disk).is_dirty:
                    return False
                await ext4.mend(disk)
                await _to_its_end(lambda: os.fsync(disk))
                return True

    async def describe(self, name: str) -> Volume:
        """Tell size, space taken and what was written down at its making."""
        return self._describe(check_volume_name(name))

    async def list(self) -> list[Volume]:
        """Tell of every volume that is there in whole."""
        found = []
        for path in sorted(self._disks.iterdir()):
            if path.name.endswith(files.TEMPORARY_SUFFIX):
                continue
            try:
                found.append(self._describe(path.name))
            except NotFound:  # deleted meanwhile, or none of ours
                continue
            except VolumeDamaged as error:
                log.warning("a volume is left out of the list", volume=path.name, why=str(error))
        return found

    def open(self, name: str, mode: AttachMode) -> int:
        """Open the file for a machine or for work on it; never through a link."""
        flags = os.O_RDONLY if mode is AttachMode.READ_ONLY else os.O_RDWR
        try:
            return os.open(self._disks / check_volume_name(name) / DISK, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise no_such_volume(name) from error

    def layout(self, name: str) -> Layout:
        """Tell that a file is the guest's disk, byte by byte."""
        check_volume_name(name)
        return Layout()

    async def sweep(self) -> Sequence[str]:
        """Remove unfinished work; whoever works in another process puts it off to the next time."""
        with _opened(self._lock, os.O_RDWR | os.O_CREAT) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return []
            left = sorted(path.name for path in self._disks.glob(f"*{files.TEMPORARY_SUFFIX}"))
            for name in left:
                await _to_its_end(functools.partial(files.remove_tree, self._disks / name))
        return left

    def _describe(self, name: str) -> Volume:
        directory = self._disks / name
        try:
            status = (directory / DISK).stat()
            facts = msgspec.json.decode((directory / FACTS).read_bytes(), type=Facts)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise no_such_volume(name) from error
        except msgspec.DecodeError as error:
            raise VolumeDamaged(
                "what is known of a volume cannot be read",
                details=f"{directory / FACTS}: {error}",
                resolution="restore that file from a backup, or delete the volume",
                field="volume",
            ) from error
        return Volume(
            name=name,
            size_bytes=status.st_size,
            allocated_bytes=status.st_blocks * BLOCK_BYTES,
            fs=facts.fs,
            created_at=facts.created_at,
            tags=facts.tags,
        )

    def _require_unused(self, name: str) -> None:
        if (self._disks / name).exists():
            raise _taken(name)

    def _write_facts(self, staging: Path, fs: FileSystem, tags: Mapping[str, str]) -> None:
        facts = Facts(created_at=self._clock.now(), fs=fs, tags=dict(tags))
        with files.space_errors(staging):
            (staging / FACTS).write_bytes(msgspec.json.encode(facts))

    async def _publish(self, staging: Path, name: str) -> None:
        with files.space_errors(staging):
            if not await _to_its_end(lambda: files.publish_directory(staging, self._disks / name)):
                raise _taken(name)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Keep sweepers away from unfinished work of ours."""
        with files.space_errors(self._lock), _opened(self._lock, os.O_RDWR | os.O_CREAT) as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(RETRY_S)
            yield

    @asynccontextmanager
    async def _staging(self, name: str) -> AsyncIterator[Path]:
        """Give a directory to make something in; whatever is left of it at the end is removed."""
        staging = files.temporary_beside(self._disks / name)
        with files.space_errors(staging):
            staging.mkdir(mode=0o700)
        try:
            yield staging
        finally:
            await _to_its_end(lambda: files.remove_tree(staging))


async def _to_its_end(work: Callable[[], T]) -> T:
    """Run blocking work that must not stop half-way; a cancellation waits for it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    await until_done(running)
    return running.result()


def _taken(name: str) -> Conflict:
    return Conflict(
        "the volume exists already",
        details=f"there is a volume {name!r}",
        resolution="choose another name, or delete it first",
        field="name",
    )


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _new_disk(path: Path, size_bytes: int) -> Iterator[int]:
    with files.space_errors(path), _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as disk:
        os.ftruncate(disk, size_bytes)
        yield disk


@contextmanager
def _alone(disk: int, name: str) -> Iterator[int]:
    """Keep everybody else from an open volume, and close it."""
    with _locked(disk, name, AttachMode.READ_WRITE):
        yield disk


@contextmanager
def _shared(disk: int, name: str) -> Iterator[int]:
    """Keep writers from an open volume, and close it."""
    with _locked(disk, name, AttachMode.READ_ONLY):
        yield disk


@contextmanager
def _locked(disk: int, name: str, mode: AttachMode) -> Iterator[None]:
    try:
        if not holds.take(disk, mode):
            raise volume_in_use(name, "open in a machine, or being worked on")
        yield
    finally:
        os.close(disk)
