"""The operations on quotas as values; the rest is in ``calls``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from hearth.api.quota_schemas import ChangeQuotas, UsageView
from hearth.api.schemas import Nothing
from hearth.api.user_operations import CHANGE_QUOTAS, GET_USAGE
from hearth.sdk.call import Call, call_of, checked

USER = "user"


class QuotaOptions(TypedDict, total=False):
    """How much a user may have: a number, None for no limit; what is left out stays. Of ``reset`` the defaults hold."""

    sandboxes: int | None
    cpus: int | None
    memory_mb: int | None
    disk_mb: int | None
    snapshots: int | None
    snapshot_mb: int | None
    images: int | None
    volumes: int | None
    volume_mb: int | None
    egress_bytes_per_s: int | None
    reset: Sequence[str]


def usage(ref: str) -> Call[UsageView]:
    return call_of(GET_USAGE, Nothing(), ref=ref, what=USER)


def change(ref: str, quotas: QuotaOptions) -> Call[UsageView]:
    return call_of(CHANGE_QUOTAS, checked(ChangeQuotas, {**quotas}), ref=ref, what=USER)
