"""How many volumes and bytes one owner may have: a pure judgement."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hearth.errors import QuotaExceeded
from hearth.volume.base import MEBIBYTE


@dataclass(frozen=True, kw_only=True)
class VolumeQuota:
    """The most one owner may have: ``count`` volumes, ``total_mib`` MiB of them together as guests see them."""

    count: int = 32
    total_mib: int = 100 * 1024


def check_quota(
    quota: VolumeQuota, held_bytes: Collection[int], *, added_bytes: Collection[int] = (), grown_bytes: int = 0
) -> None:
    """Refuse what would take an owner over the quota; whoever is over it already may still shrink and delete.

    Args:
        held_bytes: the sizes of the volumes the owner has.
        added_bytes: the sizes of those to be made now, together.
        grown_bytes: by how much one is to grow.

    Raises:
        QuotaExceeded: names ``volumes`` for their number, ``size_mb`` for their sizes.
    """
    count = len(held_bytes) + len(added_bytes)
    if added_bytes and count > quota.count:
        raise QuotaExceeded(
            "too many volumes",
            details=f"{len(held_bytes)} are there, {len(added_bytes)} more make {count}; {quota.count} may be had",
            resolution="delete volumes you do not need, or ask for a larger quota",
            field="volumes",
        )
    asked_bytes = sum(added_bytes) + grown_bytes
    total_bytes = sum(held_bytes) + asked_bytes
    if asked_bytes > 0 and total_bytes > quota.total_mib * MEBIBYTE:
        raise QuotaExceeded(
            "the volumes would be too large together",
            details=f"{_mib(sum(held_bytes))} MiB are there, {_mib(asked_bytes)} more would make {_mib(total_bytes)}; "
            f"{quota.total_mib} may be had",
            resolution="delete volumes you do not need, make a smaller one, or ask for a larger quota",
            field="size_mb",
        )


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MEBIBYTE)
