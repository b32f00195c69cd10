"""What every store offers for secrets: sealed bytes, and which master keys open them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hearth.store.page import FIRST_PAGE, Page, PageRequest
from hearth.tenancy import SealedSecret

MAX_SECRETS = 1000
"""Of one user."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Bytes that open with the master key ``key_id`` alone; ``context`` says what they are and is bound to them."""

    context: str
    sealed: bytes = field(repr=False)
    key_id: str


Reseal = Callable[[Sealed], Sealed]


def context_of_secret(owner: str, name: str) -> str:
    """Say what a sealed secret is, so that it does not open in another's place."""
    return f"secret:{owner}:{name}"


def context_of_key(key_id: str) -> str:
    """Say the same of the secret of a key that signs."""
    return f"key:{key_id}"


class SecretStore(Protocol):
    """Users' secrets, sealed: the store cannot read them."""

    async def put(self, secret: SealedSecret) -> SealedSecret:
        """Store a secret or replace its value; ``created_at`` of one that is there stays.

        Raises:
            NotFound: no such owner.
            Conflict: the owner has MAX_SECRETS others.
        """
        ...

    async def get(self, owner: str, names: Collection[str]) -> Sequence[SealedSecret]:
        """Give those of these names that there are."""
        ...

    async def list(self, owner: str, page: PageRequest = FIRST_PAGE) -> Page[SealedSecret]:
        """A page of an owner's, the oldest first."""
        ...

    async def delete(self, owner: str, name: str) -> None:
        """Forget one. Raises NotFound."""
        ...

    async def master_keys(self) -> Collection[str]:
        """Give the ids of the master keys that something is sealed with: secrets, and keys that sign."""
        ...

    async def reseal(self, reseal: Reseal) -> int:
        """Seal everything anew in one transaction, as ``reseal`` does; gives how many there were."""
        ...
