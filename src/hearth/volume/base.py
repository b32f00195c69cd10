"""What every kind of storage offers for volumes: disks with a name that outlive the machines they are attached to.

Conflict
├── VolumeInUse        somebody reads or writes the volume, or a record says that it may
└── (Conflict)         there is such a volume
NotFound               there is none
NoSpace, InvalidInput  as everywhere
VolumeDamaged          its file system cannot be made good without losing something
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from hearth.bounds import MAX_VOLUME_MIB, MIN_VOLUME_MIB
from hearth.errors import Conflict, HearthError, NotFound
from hearth.model import check_range

MEBIBYTE = 1024 * 1024


class VolumeInUse(Conflict):
    """The volume is attached or being worked on; ``details`` say by whom."""


class VolumeDamaged(HearthError):
    """The file system on a volume is broken beyond what can be mended in silence; the volume is as it was."""


class FileSystem(StrEnum):
    """What a new volume holds; ``NONE`` leaves it blank, for whoever writes a whole disk onto it."""

    EXT4 = "ext4"
    NONE = "none"


class AttachMode(StrEnum):
    """How a machine has a volume: alone and writing, or reading together with others."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose the top directory of a new file system is, by the numbers of the guest."""

    uid: int = 1000
    gid: int = 1000


@dataclass(frozen=True, kw_only=True)
class VolumeSpec:
    """A volume to make: ``size_mib`` MiB; ``tags`` are kept with it (who made it and from what)."""

    name: str
    size_mib: int
    fs: FileSystem = FileSystem.EXT4
    owner: Owner = field(default_factory=Owner)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume as its storage tells: ``size_bytes`` is what a guest sees, ``allocated_bytes`` what it takes up."""

    name: str
    size_bytes: int
    allocated_bytes: int
    fs: FileSystem
    created_at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the bytes of an open volume are to be read: ``format`` is ``raw`` or ``qcow2``, ``base`` what it lies over.

    The guest gets ``size_bytes`` from ``offset_bytes`` on, all of it where that is 0.
    """

    format: str = "raw"
    offset_bytes: int = 0
    size_bytes: int = 0
    base: Path | None = None
    base_format: str = "raw"


@runtime_checkable
class VolumeBackend(Protocol):
    """One kind of storage. Every change is whole or not at all, whether it fails, is cancelled or the host goes down.

    A volume in use (``open`` elsewhere) is refused by ``delete``, ``resize`` and ``clone`` whatever a record says.
    """

    @property
    def name(self) -> str:
        """The kind, such as ``file``."""
        ...

    async def create(self, spec: VolumeSpec) -> Volume:
        """Make a volume.

        Raises:
            InvalidInput: names the field of the spec.
            Conflict: there is one of that name.
            NoSpace: what could be written to it does not fit; nothing is left.
        """
        ...

    async def delete(self, name: str) -> None:
        """Delete a volume for good; one that is not there is fine.

        Raises:
            VolumeInUse: somebody has it.
        """
        ...

    async def resize(self, name: str, size_mib: int) -> Volume:
        """Grow a volume and its file system; the size it has is fine and makes the file system fill it.

        Raises:
            InvalidInput: ``size`` is smaller than the volume or out of bounds.
            NotFound, VolumeInUse, NoSpace, VolumeDamaged: as their names say; the volume is as it was.
        """
        ...

    async def clone(self, name: str, new_name: str) -> Volume:
        """Copy a volume nobody writes to, without copying its bytes where the storage can share them.

        Raises:
            NotFound, VolumeInUse, Conflict, NoSpace: as their names say; nothing is left.
        """
        ...

    async def check(self, name: str) -> bool:
        """Mend a file system that was not unmounted (replay its journal); tells whether anything had to be done.

        Without it such a volume cannot be mounted where it is read-only.

        Raises:
            NotFound, VolumeInUse, VolumeDamaged: as their names say.
        """
        ...

    async def describe(self, name: str) -> Volume:
        """Tell what is known of a volume.

        Raises:
            NotFound: there is none.
        """
        ...

    async def list(self) -> list[Volume]:
        """Tell of all volumes, by name."""
        ...

    def open(self, name: str, mode: AttachMode) -> int:
        """Give a new descriptor of the volume's bytes; the caller closes it.

        Raises:
            NotFound: there is none.
        """
        ...

    def layout(self, name: str) -> Layout:
        """Tell how the bytes of a volume are to be read."""
        ...

    async def sweep(self) -> Sequence[str]:
        """Remove what an earlier process left half-made and give the names of it; does nothing while others work."""
        ...


def check_size(size_mib: int) -> int:
    """Return ``size_mib`` when a volume may have it.

    Raises:
        InvalidInput: it may not; the error names ``size_mb``.
    """
    return check_range(size_mib, MIN_VOLUME_MIB, MAX_VOLUME_MIB, what="size_mb", unit="MiB")


def no_such_volume(name: str) -> NotFound:
    """Give the error for a name that no volume has."""
    return NotFound(
        "no such volume", details=f"there is no volume {name[:80]!r}", resolution="list the volumes", field="volume"
    )


def volume_in_use(name: str, by: str) -> VolumeInUse:
    """Give the error for a volume that somebody has."""
    return VolumeInUse(
        "the volume is in use",
        details=f"volume {name!r} is {by}",
        resolution="detach it there first, or destroy that sandbox",
        field="volume",
    )
