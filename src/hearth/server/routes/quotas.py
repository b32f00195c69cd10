"""What a user has and may have: /api/v1/users/{ref}/usage and /quotas."""

from __future__ import annotations

from msgspec import UNSET

from hearth.api.quota_schemas import ChangeQuotas, Quota, UsageView
from hearth.api.schemas import Nothing
from hearth.api.user_operations import CHANGE_QUOTAS, GET_USAGE
from hearth.control.quotas import UsageReport
from hearth.errors import InvalidInput
from hearth.quota import NAMES, UNBOUNDED, public_name
from hearth.server.resource import Call, bind

PUBLIC = {public_name(name): name for name in NAMES}


async def usage(call: Call[Nothing]) -> UsageView:
    return _view(await call.daemon.quotas.usage(call.user, call.ref))


async def change(call: Call[ChangeQuotas]) -> UsageView:
    given = {name: getattr(call.input, shown) for shown, name in PUBLIC.items()}
    limits = {name: limit for name, limit in given.items() if limit is not UNSET}
    for shown in call.input.reset:
        if shown not in PUBLIC:
            raise InvalidInput(
                "unknown quota",
                details=f"reset has {shown[:80]!r}",
                resolution=f"use {', '.join(PUBLIC)}",
                field="reset",
            )
    unset = frozenset(PUBLIC[shown] for shown in call.input.reset)
    return _view(await call.daemon.quotas.set(call.user, call.ref, limits, unset=unset))


def _view(report: UsageReport) -> UsageView:
    quotas = {}
    for shown, name in PUBLIC.items():
        used = getattr(report.used, name)
        quotas[shown] = Quota(used=None if used >= UNBOUNDED else used, limit=getattr(report.limits, name))
    return UsageView(user=report.user.name, **quotas)


BOUND = (bind(GET_USAGE, usage), bind(CHANGE_QUOTAS, change))
