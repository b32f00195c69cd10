"""Bodies of quotas. Sizes are MiB; sandboxes count whether they run or sleep."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

Limit = Annotated[int, Meta(ge=0, le=1 << 53)]


class Quota(Struct, frozen=True, kw_only=True):
    """How much of one thing is used and may be had; ``limit`` null is as much as the host has.

    ``used`` of egress is null where a sandbox may send as fast as it can.
    """

    used: int | None
    limit: int | None


class UsageView(Struct, frozen=True, kw_only=True):
    """What a user has and may have."""

    user: str
    sandboxes: Quota
    cpus: Quota
    memory_mb: Quota
    disk_mb: Quota
    snapshots: Quota
    snapshot_mb: Quota
    images: Quota
    volumes: Quota
    volume_mb: Quota
    egress_bytes_per_s: Quota


class ChangeQuotas(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a user may have: a number, null for no limit; what is left out stays, ``reset`` names defaults."""

    sandboxes: Limit | UnsetType | None = UNSET
    cpus: Limit | UnsetType | None = UNSET
    memory_mb: Limit | UnsetType | None = UNSET
    disk_mb: Limit | UnsetType | None = UNSET
    snapshots: Limit | UnsetType | None = UNSET
    snapshot_mb: Limit | UnsetType | None = UNSET
    images: Limit | UnsetType | None = UNSET
    volumes: Limit | UnsetType | None = UNSET
    volume_mb: Limit | UnsetType | None = UNSET
    egress_bytes_per_s: Limit | UnsetType | None = UNSET
    reset: list[str] = []
