"""What every store offers for quotas, and what of its rows they count.

The stores of sandboxes, snapshots and volumes judge in the transaction that writes the row: that is the one door.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hearth.model import NamedVolume, Sandbox, SandboxSpec, Snapshot
from hearth.quota import UNBOUNDED, Amounts, Quotas, mebibytes


class QuotaStore(Protocol):
    """Limits of users, and how much each has."""

    defaults: Quotas
    """What holds for users of whom nobody said otherwise; a reload may change it."""

    async def limits(self, owner: str) -> Quotas:
        """Give what holds for a user: the defaults, but what was set. Raises NotFound."""
        ...

    async def set(self, owner: str, limits: Mapping[str, int | None], *, unset: frozenset[str]) -> Quotas:
        """Set some, let the defaults hold for others again, and give what holds then. Raises NotFound."""
        ...

    async def used(self, owner: str) -> Amounts:
        """Count what a user has; images are not the store's to count."""
        ...

    async def check(self, owner: str, added: Amounts) -> None:
        """Tell early whether more would be refused; the row's writing has the last word. Raises QuotaExceeded."""
        ...


def amounts_of_sandbox(sandbox: Sandbox) -> Amounts:
    """Tell what a sandbox counts for."""
    return amounts_of_spec(sandbox.spec, sandbox.disk_mib or 0)


def amounts_of_spec(spec: SandboxSpec, disk_mib: int) -> Amounts:
    """Tell what a sandbox as ``spec`` says, with such a disk, counts for."""
    return Amounts(
        sandboxes=1,
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        disk_mib=disk_mib,
        egress_bytes_per_s=egress_of(spec),
    )


def egress_of(spec: SandboxSpec) -> int:
    """Tell how fast a sandbox may send to the world: not at all where its policy lets it reach nothing there."""
    policy: Mapping[str, Any] = spec.net_policy or {}
    reaches = (policy.get(part) for part in ("networks", "names", "audit"))
    if policy.get("base", "deny") == "deny" and not any(reaches):
        return 0
    rate = policy.get("upload_bytes_per_s")
    return UNBOUNDED if rate is None else int(rate)


def amounts_of_snapshot(snapshot: Snapshot) -> Amounts:
    """Tell what a checkpoint counts for; at least one MiB, before its size is known."""
    return Amounts(snapshots=1, snapshot_mib=max(1, mebibytes(snapshot.size_bytes)))


def amounts_of_volume(volume: NamedVolume) -> Amounts:
    """Tell what a volume counts for."""
    return Amounts(volumes=1, volume_mib=volume.size_mib)
