"""Which thing a user means by an id or a name: their own, and for administrators everybody's behind their own."""

from __future__ import annotations

from typing import Protocol, TypeVar

from hearth.errors import NotFound
from hearth.model import User

Thing = TypeVar("Thing", covariant=True)


class Resolves(Protocol[Thing]):
    """A store of things that have an owner, an id, and a name of which each owner has one."""

    async def resolve(self, owner: str | None, reference: str) -> Thing:
        """Find one of an owner's, or of anybody's, by id or name."""


async def within_reach(store: Resolves[Thing], user: User, reference: str) -> Thing:
    """Find a thing by id or name. What others call theirs never takes an administrator's own names away.

    Raises:
        NotFound: the user has none such.
        Conflict: a name that is none of the administrator's own fits those of several users.
    """
    try:
        return await store.resolve(user.id, reference)
    except NotFound:
        if not user.admin:
            raise
    return await store.resolve(None, reference)
