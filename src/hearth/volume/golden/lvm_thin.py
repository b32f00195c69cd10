"""Which thin pool is used, and whether something more may go into it. Pure: reports of LVM in, refusals out.

A full pool stops every guest on it, with input/output errors at their next flush, so nothing is let in that could fill
it: a copy is counted with all the blocks that its image has data in, beside what others being made may yet take.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hearth.errors import HostUnfit, NoSpace
from hearth.volume.golden.lvm_aside import NEED_TAG, Aside, kind_of
from hearth.volume.golden.lvm_reports import LogicalVolume

THICK = "none"
"""The name of no pool: volumes are thick."""
HOW_TO_ROOM = "delete volumes or images, or extend the pool: lvextend, lvextend --poolmetadatasize"


@dataclass(frozen=True, kw_only=True)
class ThinChoice:
    """What an operator chose.

    Args:
        pool: its name, ``none``, or None for the only one there is.
        data_max_percent: nothing is let in beyond so much of the pool's data; ``metadata_max_percent`` likewise.
    """

    pool: str | None = None
    data_max_percent: int = 90
    metadata_max_percent: int = 80


def choose_pool(choice: ThinChoice, volumes: Collection[LogicalVolume]) -> LogicalVolume | None:
    """Find the pool; None makes volumes thick.

    Raises:
        HostUnfit: the named one is none, there are several and none is named, or it cannot be trusted.
    """
    if choice.pool == THICK:
        return None
    pools = {volume.name: volume for volume in volumes if volume.is_thin_pool}
    if choice.pool is None and len(pools) > 1:
        raise _unfit(f"there are {', '.join(sorted(pools))}", f"name one by lvm_thin_pool, or {THICK!r}")
    if choice.pool is not None and choice.pool not in pools:
        raise _unfit(f"lvm_thin_pool {choice.pool!r} is no thin pool of the group", f"name one, or {THICK!r}")
    pool = next(iter(pools.values()), None) if choice.pool is None else pools[choice.pool]
    if pool is not None and not pool.zeroes_new_blocks:
        why = f"pool {pool.name!r} does not zero new blocks: a volume would hold what another had there"
        raise _unfit(why, f"lvchange --zero y GROUP/{pool.name}")
    return pool


def admit(choice: ThinChoice, pool: LogicalVolume, volumes: Collection[LogicalVolume], need_bytes: int) -> None:
    """Refuse what could fill the pool.

    Raises:
        NoSpace: says how full it is.
    """
    if pool.ailment:
        raise NoSpace(
            "the thin pool is not well",
            details=f"lvs shows health {pool.ailment!r} for {pool.name!r}",
            resolution="look at the pool; see lvmthin(7)",
        )
    metadata_percent = pool.metadata_percent or 0.0
    if metadata_percent > choice.metadata_max_percent:
        raise NoSpace(
            "the thin pool is nearly full",
            details=f"its metadata are {metadata_percent:.1f} % full, at most {choice.metadata_max_percent} % may be",
            resolution=HOW_TO_ROOM,
        )
    promised = sum(promised_bytes(volume) for volume in volumes if volume.pool == pool.name)
    limit = pool.size_bytes * choice.data_max_percent // 100
    if pool.used_bytes + promised + need_bytes > limit:
        raise NoSpace(
            "the thin pool is nearly full",
            details=(
                f"{need_bytes >> 20} MiB more, beside {pool.used_bytes >> 20} MiB in use and {promised >> 20} MiB "
                f"promised, are over {choice.data_max_percent} % of its {pool.size_bytes >> 20} MiB"
            ),
            resolution=HOW_TO_ROOM,
        )


def promised_bytes(volume: LogicalVolume) -> int:
    """Give what a volume that is being made may yet take."""
    if kind_of(volume) is not Aside.NEW:
        return 0
    return max(0, int(volume.tag(NEED_TAG) or 0) - volume.used_bytes)


def _unfit(why: str, resolution: str) -> HostUnfit:
    return HostUnfit("no thin pool can be chosen", details=why, resolution=resolution)
