"""What every storage offers for volumes made of golden images.

A volume is made aside, under a name nobody is told, filled, and then takes its name; until then the volume that had the
name before is untouched. What is not tagged as ours is never touched at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from hearth.errors import Conflict, HearthError, InvalidInput, NotFound

JOB_TAG, IMAGE_TAG = "hearth_job", "hearth_image"
NAME_FIELD, SIZE_FIELD = "volume_name", "volume_size_gb"

OnBytes = Callable[[int, int], None]
"""Called with the bytes that were written and their total."""

Living = Callable[[], Awaitable[Collection[str]]]
"""Tells the jobs that are not over. Each is among them before it makes anything, and never again once it is over."""

UserOf = Callable[[Path], Awaitable[str | None]]
"""Tells who else a file or device belongs to, such as a machine that is shut off; None for nobody."""


class CannotClone(InvalidInput):
    """This storage cannot make a clone of this image: copy it."""

    def __init__(self, why: str) -> None:
        super().__init__("this pool cannot clone", details=why, resolution="leave mode out, or copy", field="mode")


class PopulateFailed(HearthError):
    """The volume could not be written; it is not to be used."""


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """An image that was judged: a file that nobody writes to.

    Args:
        path: of the file; it stays while the caller holds its lease.
        format: ``qcow2`` or ``raw``.
        key: its SHA-256.
        size_bytes: of the file.
        virtual_size_bytes: of the disk in it.
        data_bytes: what of that is data, unpacked; 0 where nobody knows.
    """

    path: Path
    format: str
    key: str
    size_bytes: int
    virtual_size_bytes: int
    data_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """A volume to make. ``job`` owns it until it is published, and stands in its tags afterwards."""

    name: str
    size_bytes: int
    job: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A volume that is being made.

    Args:
        path: of the file or block device to write to.
        handle: what its storage calls it meanwhile.
        is_zero: whether it reads as zeros all over.
        is_whole: whether there is nothing to write: a clone.
    """

    spec: TargetSpec
    path: Path
    handle: str
    is_zero: bool
    is_whole: bool = False
    format: str = "raw"


@dataclass(frozen=True, kw_only=True)
class GoldenVolume:
    """A volume that is there. ``format`` is how its file or device is to be read: ``raw`` or ``qcow2``."""

    name: str
    path: Path
    size_bytes: int
    format: str
    job: str
    image: str
    tags: Mapping[str, str]
    base: Path | None = None
    """What a qcow2 file lies over; ``base_format`` is how that is to be read."""
    base_format: str = "raw"
    is_here: bool = True
    """Whether ``path`` is one of this host."""


@dataclass(frozen=True, kw_only=True)
class CloneAbility:
    """Whether a storage clones an image, and why; ``has_base`` when nothing has to be written first."""

    can_clone: bool
    has_base: bool
    why: str


async def nobody(_path: Path) -> str | None:
    """Know of no users."""
    return None


def ignore_bytes(_done: int, _total: int) -> None:
    """Nobody looks."""


@runtime_checkable
class GoldenBackend(Protocol):
    """One kind of storage. Every change is whole or not at all, however it ends, also by a power cut."""

    @property
    def name(self) -> str:
        """The kind: ``file``, ``lvm``, ``libvirt``."""
        ...

    async def create(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make an empty volume aside, to be filled from this image.

        Raises:
            InvalidInput: names ``volume_name`` or ``volume_size_gb``.
            NoSpace: it does not fit; nothing is left.
        """
        ...

    async def cloning(self, image_key: str | None) -> CloneAbility:
        """Tell whether an image (None: one that nobody knows yet) can be cloned here, and why."""
        ...

    async def clone(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes = ignore_bytes) -> Target:
        """Make a volume aside that shares the image's bytes, in a time that does not depend on their number.

        ``on_bytes`` is told where the image has to be written once before its first clone.

        Raises:
            CannotClone: not here.
            InvalidInput, NoSpace: as ``create``.
        """
        ...

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        """Give a filled volume its name, durably; with ``replace`` the one that had it goes in the same moment.

        Raises:
            Conflict: there is one of that name (and no ``replace``), somebody uses it, or it is none of ours.
        """
        ...

    async def discard(self, target: Target) -> None:
        """Remove a volume that was being made; one that is gone or published is fine."""
        ...

    async def list(self) -> Sequence[GoldenVolume]:
        """Tell of all volumes of ours, by name."""
        ...

    async def describe(self, name: str) -> GoldenVolume:
        """Tell of one.

        Raises:
            NotFound: there is none.
        """
        ...

    async def is_in_use(self, name: str) -> bool:
        """Tell whether somebody has it open or mounted."""
        ...

    async def grow(self, name: str, size_bytes: int) -> GoldenVolume:
        """Make a volume larger; the size it has is fine. What is new reads as zeros.

        Raises:
            NotFound; Conflict: somebody uses it; InvalidInput: it would shrink; NoSpace.
        """
        ...

    async def delete(self, name: str) -> None:
        """Delete a volume for good; one that is not there is fine.

        Raises:
            Conflict: somebody uses it, or it is none of ours.
        """
        ...

    async def sweep(self, living: Living) -> Sequence[str]:
        """Remove what was being made for jobs that are over, and give the names it was to have.

        ``living`` is asked once it is known what there is: what a job begins meanwhile is not looked at.
        """
        ...


@runtime_checkable
class Reclaiming(Protocol):
    """A storage that gives space back in its own time."""

    async def reclaim(self) -> int:
        """Finish what takes minutes, such as zeroing what was deleted; gives the number of volumes."""
        ...


@runtime_checkable
class HasBases(Protocol):
    """A storage that writes an image once, and makes clones of that."""

    async def forget_base(self, image_key: str) -> None:
        """Make no more clones of what was written of an image: it is in doubt. The next clone has it written anew."""
        ...


def check_fits(spec: TargetSpec, image: GoldenImage) -> None:
    """Refuse a volume that is smaller than the disk in its image.

    Raises:
        InvalidInput: it is; names ``volume_size_gb``.
    """
    if spec.size_bytes < image.virtual_size_bytes:
        raise too_small(spec.size_bytes, image.virtual_size_bytes)


def too_small(size_bytes: int, virtual_size_bytes: int) -> InvalidInput:
    """Give the error for a volume that its image does not fit into."""
    return InvalidInput(
        "the volume is smaller than its image",
        details=f"{size_bytes} bytes are less than the {virtual_size_bytes} of the image's disk",
        resolution=f"give a larger {SIZE_FIELD}",
        field=SIZE_FIELD,
    )


def would_shrink(name: str, size_bytes: int, has_bytes: int) -> InvalidInput:
    """Give the error for a volume that was to become smaller."""
    return InvalidInput(
        "a volume cannot shrink",
        details=f"{name!r} has {has_bytes} bytes, {size_bytes} are less",
        resolution="make a smaller volume and copy what you need",
        field=SIZE_FIELD,
    )


def taken(name: str, why: str) -> Conflict:
    """Give the error for a name or volume that cannot be had."""
    return Conflict(
        "the volume cannot be had",
        details=f"volume {name!r} {why}",
        resolution="choose another name, or delete it first",
        field=NAME_FIELD,
    )


def no_such_volume(name: str) -> NotFound:
    """Give the error for a volume that is not there, or is none of ours."""
    return NotFound(
        "no such volume",
        details=f"there is no volume {name[:80]!r}",
        resolution="list the volumes",
        field=NAME_FIELD,
    )
