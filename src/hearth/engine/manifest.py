"""``manifest.json`` of a snapshot: what it was taken of, what it stands on, what its files must be.

It is read strictly: whatever is unknown, missing or does not fit together is refused with the name of the field.
Numbers that arrive as text or as a float without a fraction are read as the numbers they are. Its last field is the
checksum of all others: one that is still a manifest but says something else is refused, too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hearth.engine.base import SnapshotRefused

VERSION = 2
UNSEALED = 1
"""The version before it, which had no checksum and is read still."""
MIB = 1024 * 1024
WAY_OUT = "boot from the disk instead (--force), or start from another snapshot"

Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9._-]*$", max_length=100)]
Id = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class MemoryKind(StrEnum):
    """Whether a memory file holds all of a machine's memory or what differs from another snapshot's."""

    FULL = "full"
    DIFF = "diff"


class LayerKind(StrEnum):
    """Where a disk layer is: in the image store or in another snapshot's directory."""

    IMAGE = "image"
    SNAPSHOT = "snapshot"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of everything in a manifest."""


class FileRecord(_Part, frozen=True, kw_only=True):
    """What a file of a snapshot must be; ``block_hash`` is the checksum of ``hearth.host.block_hash``."""

    size_bytes: Bytes
    block_hash: Checksum


class Stamp(_Part, frozen=True, kw_only=True):
    """What must be the same for a machine to run on from a snapshot. ``kernel`` and ``agent`` are image ids.

    ``machine`` is a hash of the command line's shape: machine type, devices and their order.
    """

    engine: str
    vmm_version: str
    machine: str
    accelerator: str
    cpu_model: str
    kernel: str
    agent: str


STAMP_WORDS: Mapping[str, str] = {
    "engine": "engine",
    "vmm_version": "VMM version",
    "machine": "machine shape",
    "accelerator": "accelerator",
    "cpu_model": "CPU model",
    "kernel": "kernel",
    "agent": "agent",
}


class RootFs(_Part, frozen=True, kw_only=True):
    """The image at the bottom of the disk; ``sha256`` is the image store's plain SHA-256 of it."""

    id: Id
    sha256: Checksum


class MemoryBase(_Part, frozen=True, kw_only=True):
    """The snapshot whose full memory a diff is relative to, and that memory's checksum."""

    id: Id
    block_hash: Checksum


class Memory(_Part, frozen=True, kw_only=True):
    """The memory of the machine: a file of this snapshot and, for a diff only, what it is relative to.

    One that is ``dropped`` is not among the files any more: only the disk is worth anything.
    """

    kind: MemoryKind
    file: FileName
    base: MemoryBase | None = None
    dropped: bool = False


class Layer(_Part, frozen=True, kw_only=True):
    """One read-only file that the machine's disk lies over: ``file`` of an image or snapshot ``id``.

    ``checksum`` is the plain SHA-256 of an image's file, the block hash of a snapshot's.
    """

    kind: LayerKind
    id: Id
    file: FileName
    checksum: Checksum


class OwnDisk(_Part, frozen=True, kw_only=True):
    """A disk that stayed with its machine, as it was when the memory was taken; another one must never meet it."""

    size_bytes: Bytes
    mtime_ns: Annotated[int, msgspec.Meta(ge=0)]

    @classmethod
    def of(cls, path: Path) -> OwnDisk:
        """Look at a disk as it is now; nobody may have it open for writing."""
        status = path.stat()
        return cls(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


class Disk(_Part, frozen=True, kw_only=True):
    """The machine's disk: either ``file`` of this snapshot, or ``stays``. ``layers`` lie below it, lowest first."""

    layers: tuple[Layer, ...]
    file: FileName | None = None
    stays: OwnDisk | None = None


class VolumeRecord(_Part, frozen=True, kw_only=True):
    """A volume that the memory knows, and how it was then; see ``hearth.engine.base.VolumeSeal``."""

    place: Annotated[int, msgspec.Meta(ge=0, le=255)]
    volume: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    mount: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    read_only: bool
    size_bytes: Bytes
    mtime_ns: Annotated[int, msgspec.Meta(ge=0)]


class Manifest(_Part, frozen=True, kw_only=True):
    """All that is known of a snapshot; ``id`` is its directory's name, ``drives`` are the devices in their order."""

    version: int = VERSION
    id: Id
    created_at: datetime
    cpus: Positive
    memory_mib: Positive
    stamp: Stamp
    rootfs: RootFs
    memory: Memory
    disk: Disk
    files: dict[FileName, FileRecord]
    drives: tuple[str, ...]
    volumes: tuple[VolumeRecord, ...] = ()

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB

    @property
    def full_memory(self) -> MemoryBase:
        """What a diff relative to this snapshot names as its base; this one's own base where it is a diff itself."""
        if self.memory.base is not None:
            return self.memory.base
        return MemoryBase(id=self.id, block_hash=self.files[self.memory.file].block_hash)


class _Sealed(Manifest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A manifest as it is written; ``checksum`` is the SHA-256 of the text that it has without that."""

    checksum: Checksum


class _Version(msgspec.Struct):
    version: int


def encode(manifest: Manifest) -> bytes:
    """Give the text of a manifest.

    Raises:
        SnapshotRefused: it contradicts itself.
    """
    check(manifest)
    sealed = _Sealed(**_fields(manifest), checksum=_checksum(manifest))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n"


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in Manifest.__struct_fields__}


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()


def decode(text: bytes, *, name: str) -> Manifest:
    """Read and check a manifest; ``name`` says in errors whose it is.

    Raises:
        SnapshotRefused: it is no manifest of a version known here, contradicts itself, or is not as it was written.
    """
    try:
        version = msgspec.json.decode(text, type=_Version, strict=False).version
        if version not in (UNSEALED, VERSION):
            raise refused(name, f"its manifest has version {version}; this hearth reads {VERSION}")
        found = msgspec.json.decode(text, type=Manifest if version == UNSEALED else _Sealed, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(name, f"its manifest cannot be read: {error}") from error
    check(found)
    if not isinstance(found, _Sealed):
        return found
    manifest = Manifest(**_fields(found))
    if _checksum(manifest) != found.checksum:
        raise refused(name, "the checksum of its manifest is wrong: it was changed after it was written")
    return manifest


def check(manifest: Manifest) -> None:
    """See that the parts of a manifest fit together.

    Raises:
        SnapshotRefused: they do not.
    """
    for contradiction in _contradictions(manifest):
        raise refused(manifest.id, f"its manifest contradicts itself: {contradiction}")


def _contradictions(manifest: Manifest) -> list[str]:
    memory, disk, files = manifest.memory, manifest.disk, manifest.files
    record = files.get(memory.file)
    rules = {
        "created_at has no time zone": manifest.created_at.tzinfo is None,
        f"memory.file {memory.file!r} is not among files": record is None and not memory.dropped,
        f"memory.file {memory.file!r} was dropped and is among files": record is not None and memory.dropped,
        "others need full memory: it cannot be dropped": memory.kind is MemoryKind.FULL and memory.dropped,
        "a diff needs memory.base": memory.kind is MemoryKind.DIFF and memory.base is None,
        "full memory has no memory.base": memory.kind is MemoryKind.FULL and memory.base is not None,
        "memory.base is the snapshot itself": memory.base is not None and memory.base.id == manifest.id,
        f"the size of {memory.file!r} is not memory_mib": memory.kind is MemoryKind.FULL
        and record is not None
        and record.size_bytes != manifest.memory_bytes,
        "disk needs one of file and stays": (disk.file is None) == (disk.stays is None),
        f"disk.file {disk.file!r} is not among files": disk.file is not None and disk.file not in files,
        "a disk layer is in the snapshot itself": any(
            layer.kind is LayerKind.SNAPSHOT and layer.id == manifest.id for layer in disk.layers
        ),
        "manifest.json cannot be among files": "manifest.json" in files,
        "drives are named twice": len(set(manifest.drives)) != len(manifest.drives),
        "two volumes are in one place": len({each.place for each in manifest.volumes}) != len(manifest.volumes),
    }
    return [words for words, is_broken in rules.items() if is_broken]


def differences(taken: Stamp, now: Stamp) -> list[str]:
    """Say in words what differs between the stamp of a snapshot and the one a machine would have now."""
    return [
        f"{words}: {_shown(getattr(taken, field))} when it was taken, {_shown(getattr(now, field))} now"
        for field, words in STAMP_WORDS.items()
        if getattr(taken, field) != getattr(now, field)
    ]


def _shown(value: str) -> str:
    """Cut hashes, which nobody compares by eye."""
    return value[:12] if re.fullmatch("[0-9a-f]{40,}", value) else value or "unknown"


def refused(name: str, why: str) -> SnapshotRefused:
    """Say of which snapshot what is wrong and what to do about it."""
    return SnapshotRefused("a snapshot cannot be started from", details=f"{name}: {why}", resolution=WAY_OUT)
