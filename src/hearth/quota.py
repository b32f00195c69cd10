"""How much a user may have of everything that can run out: amounts, limits, and the judgement. Pure.

Sandboxes count whole, whether they run or sleep: one that sleeps wakes at its next use. Sizes are MiB, as guests see
them; ``egress_bytes_per_s`` is what a user's sandboxes may send together, by the upload rates of their policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace

from hearth.errors import QuotaExceeded

UNBOUNDED = 1 << 60
"""Stands for an upload rate that no policy bounds."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much there is of each."""

    sandboxes: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    snapshots: int = 0
    snapshot_mib: int = 0
    images: int = 0
    volumes: int = 0
    volume_mib: int = 0
    egress_bytes_per_s: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})


NAMES = tuple(each.name for each in fields(Amounts))


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """The most there may be of each; None is as much as the host has."""

    sandboxes: int | None = None
    cpus: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    snapshots: int | None = None
    snapshot_mib: int | None = None
    images: int | None = None
    volumes: int | None = None
    volume_mib: int | None = None
    egress_bytes_per_s: int | None = None

    def but(self, others: Mapping[str, int | None]) -> Quotas:
        """Give these with some replaced; names that are none of ours, of a later version, say nothing here."""
        return replace(self, **{name: limit for name, limit in others.items() if name in NAMES})

    @property
    def bounded(self) -> frozenset[str]:
        return frozenset(name for name, limit in asdict(self).items() if limit is not None)


DEFAULT_QUOTAS = Quotas(volumes=32, volume_mib=100 * 1024)

_WORDS = {
    "sandboxes": "too many sandboxes",
    "cpus": "too many CPUs",
    "memory_mib": "too much memory",
    "disk_mib": "the disks would be too large together",
    "snapshots": "too many checkpoints",
    "snapshot_mib": "the checkpoints would be too large together",
    "images": "too many images",
    "volumes": "too many volumes",
    "volume_mib": "the volumes would be too large together",
    "egress_bytes_per_s": "too much egress",
}


def total(amounts: Iterable[Amounts]) -> Amounts:
    """Add up."""
    sums = dict.fromkeys(NAMES, 0)
    for each in amounts:
        for name in NAMES:
            sums[name] += getattr(each, name)
    return Amounts(**sums)


def check_quotas(quotas: Quotas, used: Amounts, added: Amounts) -> None:
    """Refuse what would take a user over a quota; whoever is over one already may have more of everything else.

    Args:
        used: what there is, without ``added``.

    Raises:
        QuotaExceeded: ``field`` is the quota's name; ``details`` tell it, what is used and the limit.
    """
    for name in NAMES:
        asked, limit, has = getattr(added, name), getattr(quotas, name), getattr(used, name)
        if asked <= 0 or limit is None or has + asked <= limit:
            continue
        shown = public_name(name)
        if asked >= UNBOUNDED // 2:
            details = f"quota {shown}: {limit} may be had, and this sandbox's upload rate has no bound"
            resolution = "say upload_bytes_per_s in its net_policy, or let it reach nothing"
        else:
            details = f"quota {shown}: {has} of {limit} are used, {asked} more would make {has + asked}"
            resolution = "destroy what you do not need, ask for less, or ask an administrator for a larger quota"
        raise QuotaExceeded(_WORDS[name], details=details, resolution=resolution, field=shown)


def public_name(name: str) -> str:
    """Give a quota's name as the API spells it, where sizes in MiB end in ``_mb``."""
    return f"{name.removesuffix('_mib')}_mb" if name.endswith("_mib") else name


def mebibytes(size_bytes: int) -> int:
    """Round bytes up to MiB."""
    return -(-size_bytes // MEBIBYTE)
