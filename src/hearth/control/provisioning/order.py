"""What somebody asks for: a volume made of an image. Values and checks of them; nothing here does anything."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hearth.errors import Conflict, InvalidInput, RateLimited
from hearth.image.golden.checksum import check_checksum
from hearth.image.golden.choosing import open_source
from hearth.image.golden.judge import check_format
from hearth.image.golden.settings import GoldenSettings
from hearth.volume.golden.base import NAME_FIELD, SIZE_FIELD, GoldenVolume, taken
from hearth.volume.golden.growing import TABLE, check_growth
from hearth.volume.names import check_volume_name

KIND = "volume.provision"
OWNER_TAG = "hearth_owner"
AUTO, COPY, CLONE = "auto", "copy", "clone"
MODES = (AUTO, COPY, CLONE)
GIB = 1 << 30
SIZE_STEP_BYTES = 512
SIZE_MAX_BYTES = 64 * 1024 * GIB
SAME_SIZE = 0.05
"""A volume whose size differs by no more than this share is taken for one of the size that was asked for."""


class QueueFull(RateLimited):
    """As many volumes wait as may; there may be room again after ``retry_after_s``."""

    def __init__(self, waiting: int, most: int, *, retry_after_s: float) -> None:
        super().__init__(
            "too many volumes are in line",
            details=f"{waiting} have not ended, at most {most} may wait",
            resolution="wait, and try again",
        )
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class ProvisionOrder:
    """The input of the job.

    Args:
        image_url: where the image is; ``image_type`` what it is, ``qcow2`` or ``raw``.
        volume_name: of the volume in ``pool``; ``size_bytes`` what its guest sees.
        mode: ``auto``, ``copy`` or ``clone``.
        checksum: SHA-256 that the image must have; None takes the one beside it.
        correlation_id: the caller's own name for this.
        owner: the user it is done for.
        grow: what on it takes the room beyond the image, see ``hearth.volume.golden.growing``.
        verify: whether it is read again and compared.
    """

    image_url: str
    image_type: str
    volume_name: str
    size_bytes: int
    pool: str
    mode: str = AUTO
    checksum: str | None = None
    correlation_id: str | None = None
    owner: str = ""
    grow: str = TABLE
    verify: bool = False

    def is_same_work(self, other: ProvisionOrder) -> bool:
        """Whether both ask for the same, whatever they call it."""
        mine, others = self._work(), other._work()
        return mine == others

    def _work(self) -> tuple[object, ...]:
        return (
            *(self.image_url, self.image_type, self.volume_name, self.size_bytes),
            *(self.pool, self.mode, self.checksum, self.owner),
            *(self.grow, self.verify),
        )


def held_by(order: ProvisionOrder) -> str:
    """Name what no two jobs may make at once: the volume. No name of a pool or a volume has a slash."""
    return f"{KIND}/{order.pool}/{order.volume_name}"


def bytes_of_gib(size_gb: float) -> int:
    """Give the size of a volume in bytes: whole sectors, 1 GB being 2**30 bytes as everywhere with disks of guests.

    Raises:
        InvalidInput: it is not above 0, or larger than any disk.
    """
    is_possible = 0 < size_gb < SIZE_MAX_BYTES // GIB
    size_bytes = int(size_gb * GIB) // SIZE_STEP_BYTES * SIZE_STEP_BYTES if is_possible else 0
    if size_bytes == 0:
        raise InvalidInput(
            "invalid volume_size_gb",
            details=f"{size_gb:g} GB is not above 0 and below {SIZE_MAX_BYTES // GIB} GB",
            resolution="give the size of the volume in GB",
            field=SIZE_FIELD,
        )
    return size_bytes


def check_order(order: ProvisionOrder, settings: GoldenSettings, pools: Collection[str]) -> None:
    """Refuse an order that can be refused without asking anybody.

    Raises:
        InvalidInput: names the field.
        SourceRefused: the operator does not allow this URL.
    """
    open_source(settings, order.image_url)
    check_format(order.image_type)
    check_volume_name(order.volume_name, what=NAME_FIELD)
    if order.checksum is not None:
        check_checksum(order.checksum)
    check_growth(order.grow)
    if order.mode not in MODES:
        raise _unknown("mode", order.mode, MODES)
    if order.pool not in pools:
        raise _unknown("pool", order.pool, pools)


def check_replaceable(order: ProvisionOrder, volume: GoldenVolume, *, is_in_use: bool) -> None:
    """Refuse to overwrite a volume that is another's, another size, or in use.

    Raises:
        Conflict: it is; names ``volume_name`` or ``volume_size_gb``.
    """
    if volume.tags.get(OWNER_TAG) != order.owner:
        raise taken(order.volume_name, "is another user's")
    if is_in_use:
        raise taken(order.volume_name, "is in use")
    if abs(volume.size_bytes - order.size_bytes) > SAME_SIZE * volume.size_bytes:
        raise Conflict(
            "there is a volume of another size",
            details=f"{order.volume_name!r} has {volume.size_bytes} bytes, {order.size_bytes} were asked for",
            resolution=f"ask for its size within {SAME_SIZE:.0%}, choose another name, or delete it first",
            field=SIZE_FIELD,
        )


def under_way(order: ProvisionOrder, job_id: str) -> Conflict:
    """Give the error for a volume that is just being made of something else."""
    return Conflict(
        "the volume is being made",
        details=f"job {job_id} makes {order.volume_name!r} in another way",
        resolution="wait for its end or cancel it, or choose another name",
        field=NAME_FIELD,
    )


def _unknown(field: str, value: str, known: Collection[str]) -> InvalidInput:
    return InvalidInput(
        f"unknown {field}",
        details=f"{field} {value[:80]!r} is none of {', '.join(sorted(known))}",
        resolution=f"leave {field} out, or choose one of these",
        field=field,
    )
