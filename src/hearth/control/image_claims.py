"""Who may call an image what, and how many a user may have: held from the first word until the image is there."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from hearth.control.images import Images
from hearth.control.users import require_administrator
from hearth.errors import Conflict, InvalidInput
from hearth.model import User, check_name
from hearth.quota import Amounts, check_quotas
from hearth.store.base import Store

RESERVED = frozenset({"pull", "import", "save", "golden", "prefetch"})
"""What stands where an image's name would."""


@dataclass(frozen=True, kw_only=True)
class ImageClaims:
    """The images being made now. Each name of a user is one maker's alone until that is done."""

    store: Store
    images: Images
    _names: set[tuple[str | None, str]] = field(default_factory=set)
    _making: Counter[str] = field(default_factory=Counter)
    """How many new names of whom are being made: they count before they are there."""

    @contextlib.asynccontextmanager
    async def claim(self, user: User, name: str, *, shared: bool = False) -> AsyncIterator[str | None]:
        """Keep a name, and a place in the user's quota, inside the context; gives whose the image will be.

        Args:
            shared: it is to be the whole host's; only an administrator makes such.

        Raises:
            InvalidInput: ``name`` is none.
            Forbidden: the user is no administrator.
            Conflict: the name is the host's, or another image is being made under it.
            QuotaExceeded: the user has as many images as may be had.
        """
        check_name(name)
        if name in RESERVED:
            raise InvalidInput(
                "invalid name",
                details=f"{name} is a word of the API's own: it could not be asked for by name",
                resolution="choose another name",
                field="name",
            )
        if shared:
            require_administrator(user)
        owner = None if shared else user.id
        if (owner, name) in self._names:
            raise taken(name, "another image is being made under it")
        self._names.add((owner, name))
        try:
            await self.require_free(user, name, owner)
            async with self._counted(owner, name):
                yield owner
        finally:
            self._names.remove((owner, name))

    async def require_free(self, user: User, name: str, owner: str | None) -> None:
        """Refuse a name that is the host's for an image that is not; one's own may pass to another image.

        Raises:
            Conflict: it is.
        """
        existing = await self.images.describe(name)
        if existing is not None and existing.owner is None and owner is not None:
            words = ", or say shared to replace it" if user.admin else ""
            raise taken(name, f"an image of this host has it{words}")

    @contextlib.asynccontextmanager
    async def _counted(self, owner: str | None, name: str) -> AsyncIterator[None]:
        if owner is None:
            yield
            return
        names = await self.images.names_of(owner)
        limits = await self.store.quotas.limits(owner)
        if name in names:
            yield
            return
        # Nothing is waited for from here until it counts: of many at once the last one allowed is the last.
        check_quotas(limits, Amounts(images=len(names) + self._making[owner]), Amounts(images=1))
        self._making[owner] += 1
        try:
            yield
        finally:
            self._making[owner] -= 1


def taken(name: str, why: str) -> Conflict:
    """Say that an image cannot be called that."""
    return Conflict(
        "the image's name is taken", details=f"{name}: {why}", resolution="choose another name", field="name"
    )
