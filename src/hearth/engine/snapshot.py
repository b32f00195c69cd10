"""Snapshots on disk: a directory with ``manifest.json``, the memory, the VMM's state and perhaps a frozen disk.

snapshots/
  <id>/             one snapshot, whole: 0700, its files 0600, the manifest written last
  <id>.consumed/    the memory of a stopped machine that was set running: never to be started from again
  *.tmp             unfinished or doomed, swept at start

Everything here blocks: callers on an event loop do it on a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hearth.engine.base import SnapshotRefused, VolumeSeal
from hearth.engine.manifest import (
    VERSION,
    FileRecord,
    Manifest,
    MemoryKind,
    OwnDisk,
    Stamp,
    VolumeRecord,
    decode,
    differences,
    encode,
    refused,
)
from hearth.errors import Conflict
from hearth.host import files
from hearth.host.block_hash import hash_blocks

MANIFEST = "manifest.json"
STATE = "state"
MEMORY_FULL = "memory"
MEMORY_DIFF = "memory.diff"
DISK = "disk.qcow2"
"""The names of a snapshot's files."""
CONSUMED_SUFFIX = ".consumed"
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
MANIFEST_MAX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class StoredSnapshot:
    """A snapshot whose manifest was read and checked; its files were not looked at (``verify``)."""

    directory: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def memory(self) -> Path:
        return self.directory / self.manifest.memory.file

    @property
    def memory_record(self) -> FileRecord:
        return self.manifest.files[self.manifest.memory.file]

    @property
    def disk(self) -> Path | None:
        """The frozen disk; None when the disk stayed with its machine."""
        return self.directory / self.manifest.disk.file if self.manifest.disk.file else None

    @property
    def base(self) -> Path | None:
        """The directory of the snapshot that the memory is relative to; None for full memory."""
        return self.directory.with_name(self.manifest.memory.base.id) if self.manifest.memory.base else None

    @property
    def size_bytes(self) -> int:
        """What it takes on disk; holes take nothing."""
        return sum((self.directory / name).stat().st_blocks * 512 for name in self.manifest.files)


def stage(final: Path) -> Path:
    """Make an empty directory beside the place where a snapshot will be published."""
    final.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    staging = files.temporary_beside(final)
    staging.mkdir(mode=DIRECTORY_MODE)
    return staging


def record(path: Path) -> FileRecord:
    """Make a file that is complete durable and private, and give its size and checksum."""
    with files.opened(path) as descriptor:
        os.fchmod(descriptor, FILE_MODE)
        os.fsync(descriptor)
        return FileRecord(size_bytes=os.fstat(descriptor).st_size, block_hash=hash_blocks(descriptor))


def write_manifest(staging: Path, manifest: Manifest) -> None:
    """Write the last file of a snapshot, durably.

    Raises:
        SnapshotRefused: the manifest contradicts itself, or a file is not there or of another size than it says.
        NoSpace: the file system is full.
    """
    text = encode(manifest)
    for name, expected in manifest.files.items():
        _check_size(staging / name, name, expected, manifest.id)
    files.write_atomic(staging / MANIFEST, text, mode=FILE_MODE)


def publish(staging: Path, final: Path) -> None:
    """Give a complete snapshot its name, durably; what is left of a consumed one of that name goes.

    Raises:
        SnapshotRefused: there is no manifest.
        Conflict: there is a snapshot of that name; ``staging`` stays as it is.
    """
    if not (staging / MANIFEST).is_file():
        raise refused(final.name, "it was to be published without a manifest")
    staging.chmod(DIRECTORY_MODE)
    for path in staging.iterdir():
        if path.is_symlink() or not path.is_file():
            raise refused(final.name, f"{path.name!r} is not a regular file")
        path.chmod(FILE_MODE)
    if not files.publish_directory(staging, final):
        raise Conflict("there is such a snapshot already", details=final.name)
    _remove_durably(_consumed(final))


def load(directory: Path) -> StoredSnapshot:
    """Read and check the manifest of a published snapshot.

    Raises:
        SnapshotRefused: there is none, it was consumed, or its manifest is not acceptable.
    """
    try:
        text = _read(directory / MANIFEST)
    except FileNotFoundError as error:
        if is_consumed(directory):
            raise refused(directory.name, "its memory was set running already, which has changed the disk") from error
        what = "its manifest is missing" if directory.exists() else "there is no such snapshot"
        raise refused(directory.name, what) from error
    except OSError as error:
        raise refused(directory.name, f"its manifest cannot be read: {error.strerror}") from error
    manifest = decode(text, name=directory.name)
    if manifest.id != directory.name:
        raise refused(directory.name, f"its manifest is that of {manifest.id!r}")
    return StoredSnapshot(directory=directory, manifest=manifest)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MANIFEST_MAX_BYTES)


def verify(directory: Path) -> StoredSnapshot:
    """Load a snapshot and read every byte of its files.

    Raises:
        SnapshotRefused: as ``load``, or a file is missing, longer, shorter or different.
    """
    snapshot = load(directory)
    for name in snapshot.manifest.files:
        verify_file(snapshot, name)
    return snapshot


def verify_file(snapshot: StoredSnapshot, name: str) -> None:
    """Read every byte of one file of a snapshot.

    Raises:
        SnapshotRefused: it is missing, longer, shorter or different.
    """
    expected = snapshot.manifest.files[name]
    path = snapshot.directory / name
    _check_size(path, name, expected, snapshot.id)
    try:
        with files.opened(path) as descriptor:
            found = hash_blocks(descriptor)
    except (OSError, EOFError) as error:
        raise refused(snapshot.id, f"{name} cannot be read: {error}") from error
    if found != expected.block_hash:
        raise refused(snapshot.id, f"the checksum of {name} is wrong")


def _check_size(path: Path, name: str, expected: FileRecord, snapshot_id: str) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        raise refused(snapshot_id, f"{name} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise refused(snapshot_id, f"{name} is not a regular file")
    if status.st_size != expected.size_bytes:
        raise refused(snapshot_id, f"{name} has {status.st_size} bytes instead of {expected.size_bytes}")


def require_fit(manifest: Manifest, *, stamp: Stamp, cpus: int, memory_mib: int, rootfs: str) -> None:
    """See that a machine of this shape may run on from a snapshot; ``rootfs`` is the SHA-256 of the image below.

    Raises:
        SnapshotRefused: ``details`` tell everything that differs.
    """
    if manifest.memory.dropped:
        raise refused(manifest.id, "its memory was dropped when all its copies had started")
    found = differences(manifest.stamp, stamp)
    if manifest.cpus != cpus:
        found.append(f"CPUs: {manifest.cpus} when it was taken, {cpus} now")
    if manifest.memory_mib != memory_mib:
        found.append(f"memory: {manifest.memory_mib} MiB when it was taken, {memory_mib} MiB now")
    if manifest.rootfs.sha256 != rootfs:
        found.append(f"root file system: {manifest.rootfs.sha256[:12]} when it was taken, {rootfs[:12]} now")
    if found:
        raise refused(manifest.id, "; ".join(found))


def require_same_disk(manifest: Manifest, disk: Path) -> None:
    """See that the disk that stayed with its machine is the one of the memory: nothing wrote to it since.

    Raises:
        SnapshotRefused: it has changed or is gone; the memory would corrupt its file systems.
    """
    if manifest.disk.stays is None:
        raise refused(manifest.id, "it has a disk of its own and belongs to no machine's")
    try:
        found = OwnDisk.of(disk)
    except OSError as error:
        raise refused(manifest.id, f"the machine's disk cannot be looked at: {error.strerror}") from error
    if found != manifest.disk.stays:
        raise refused(manifest.id, "the machine's disk was written to after the memory was taken")


def require_same_volumes(name: str, recorded: Sequence[VolumeRecord], found: Sequence[VolumeSeal]) -> None:
    """See that the volumes of a machine are those the memory of snapshot ``name`` knows, and as they were.

    Raises:
        SnapshotRefused: ``details`` tell what differs; the memory would corrupt their file systems.
    """
    known = {record.place: VolumeSeal(**msgspec.structs.asdict(record)) for record in recorded}
    now = {seal.place: seal for seal in found}
    differing = [place for place in sorted(known.keys() | now.keys()) if known.get(place) != now.get(place)]
    if differing:
        words = [f"place {place}: {_said(known.get(place))}, now {_said(now.get(place))}" for place in differing]
        raise refused(name, f"its volumes are not as they were: {'; '.join(words)}")


def _said(seal: VolumeSeal | None) -> str:
    if seal is None:
        return "none"
    mode = "read-only" if seal.read_only else "read-write"
    return f"{seal.volume} ({mode}, {seal.size_bytes} bytes, written at {seal.mtime_ns} ns) at {seal.mount}"


def consume(directory: Path) -> Path:
    """Mark, durably, that this memory is set running now: before the first instruction, and never again.

    Returns:
        Where its files are from now on.

    Raises:
        SnapshotRefused: it was consumed before, or is not there.
    """
    consumed = _consumed(directory)
    if directory.exists():
        _remove_durably(consumed)
    try:
        directory.rename(consumed)
    except FileNotFoundError as error:
        what = "its memory was set running already" if consumed.exists() else "there is no such snapshot"
        raise refused(directory.name, what) from error
    files.sync_directory(directory.parent)
    return consumed


def drop_memory(directory: Path) -> bool:
    """Delete what only a new machine would need of a published snapshot, durably; others lie over its disk still.

    Returns:
        Whether there was something to delete: full memory stays, for that of others may be relative to it.

    Raises:
        SnapshotRefused: as ``load``.
        NoSpace: the file system is full; nothing has changed.
    """
    manifest = load(directory).manifest
    memory = manifest.memory
    if memory.dropped or memory.kind is MemoryKind.FULL:
        return False
    gone = (memory.file, STATE)
    rest = {name: file for name, file in manifest.files.items() if name not in gone}
    dropped = msgspec.structs.replace(memory, dropped=True)
    text = encode(msgspec.structs.replace(manifest, version=VERSION, memory=dropped, files=rest))
    files.write_atomic(directory / MANIFEST, text, mode=FILE_MODE)
    for name in gone:
        (directory / name).unlink(missing_ok=True)
    files.sync_directory(directory)
    return True


def is_consumed(directory: Path) -> bool:
    """Tell whether the memory of a snapshot was set running, so that only its disk is worth anything."""
    return not directory.exists() and _consumed(directory).exists()


def discard(directory: Path) -> None:
    """Delete a snapshot, consumed or not: at once it is whole no more, whatever happens. None there is fine."""
    _remove_durably(directory)
    _remove_durably(_consumed(directory))


def sweep(root: Path) -> list[str]:
    """Delete what interrupted captures and deletions left below ``root``; nobody may be at work there.

    Returns:
        The names of what was deleted.
    """
    doomed = sorted(root.glob(f"*{files.TEMPORARY_SUFFIX}"))
    for path in doomed:
        files.remove_tree(path)
    return [path.name for path in doomed]


def load_all(root: Path) -> tuple[dict[str, Manifest], dict[str, SnapshotRefused]]:
    """Read the manifests of all snapshots below ``root`` by id, and why some cannot be read."""
    manifests: dict[str, Manifest] = {}
    damaged: dict[str, SnapshotRefused] = {}
    for directory in sorted(root.iterdir()) if root.exists() else []:
        if directory.suffix in (files.TEMPORARY_SUFFIX, CONSUMED_SUFFIX):
            continue
        try:
            manifests[directory.name] = load(directory).manifest
        except SnapshotRefused as error:
            damaged[directory.name] = error
    return manifests, damaged


def _consumed(directory: Path) -> Path:
    return directory.with_name(directory.name + CONSUMED_SUFFIX)


def _remove_durably(path: Path) -> None:
    """Rename first: half a snapshot must never look like one."""
    doomed = files.temporary_beside(path)
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    files.sync_directory(path.parent)
    files.remove_tree(doomed)
