"""Use cases of quotas: what a user has, how much of everything may be had, and who may say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from hearth.control.images import Images
from hearth.control.users import Users, require_administrator
from hearth.model import User
from hearth.quota import Amounts, Quotas
from hearth.store.base import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class UsageReport:
    """How much a user has, and may have."""

    user: User
    used: Amounts
    limits: Quotas


@dataclass(frozen=True, kw_only=True)
class Allowances:
    """The quotas of all users."""

    store: Store
    users: Users
    images: Images

    async def usage(self, actor: User, reference: str) -> UsageReport:
        """Tell what a user has and may have. Raises NotFound, also for users whom the actor may not know of."""
        user = await self.users.get(actor, reference)
        used = replace(await self.store.quotas.used(user.id), images=await self.images.owned(user))
        return UsageReport(user=user, used=used, limits=await self.store.quotas.limits(user.id))

    async def set(
        self, actor: User, reference: str, limits: Mapping[str, int | None], *, unset: frozenset[str]
    ) -> UsageReport:
        """Say how much a user may have; what the user has beyond that stays, there is just no more of it.

        Args:
            limits: by the names of ``Quotas``; None is without a limit.
            unset: of these the defaults hold again.

        Raises:
            NotFound: no such user, or the actor may not know.
            Forbidden: the actor is no administrator.
        """
        user = await self.users.get(actor, reference)
        require_administrator(actor)
        await self.store.quotas.set(user.id, limits, unset=unset)
        log.info("quotas set", user=user.name, by=actor.name, limits=dict(limits), unset=sorted(unset))
        return await self.usage(actor, user.id)
