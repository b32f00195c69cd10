"""What every store offers for users and their API keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from hearth.model import ApiKey, User
from hearth.store.page import FIRST_PAGE, Page, PageRequest

MAX_KEYS = 100
"""So many keys of one user may be valid at a time."""
KEYS_KEPT_FOR = timedelta(days=90)
"""So long the store remembers keys that are not valid any more."""


@dataclass(frozen=True, kw_only=True)
class UserChanges:
    """What may be changed of a user; None leaves a field as it is."""

    name: str | None = None
    admin: bool | None = None


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key about to be stored.

    Args:
        digest: the SHA-256 of its secret, in hex.
        sealed: the secret of a key that signs, which must be known to check signatures.
        sealed_by: the master key that opens it.
    """

    key: ApiKey
    digest: str
    sealed: bytes | None = field(default=None, repr=False)
    sealed_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A key that signs requests, whose it is, and its sealed secret."""

    user: User
    key: ApiKey
    sealed: bytes = field(repr=False)
    sealed_by: str


class UserStore(Protocol):
    """Users and their API keys. Of a key that is sent only its SHA-256 (``digest``) is kept."""

    async def create(self, user: User) -> None:
        """Raises Conflict when the id or the name is taken."""
        ...

    async def get(self, user_id: str) -> User: ...

    async def find(self, name: str) -> User: ...

    async def list(self, page: PageRequest = FIRST_PAGE) -> Page[User]: ...

    async def change(self, user_id: str, changes: UserChanges) -> User:
        """Change a user, all of it or nothing.

        Raises:
            NotFound: no such user.
            Conflict: the name is taken, or nobody would be administrator any more.
        """
        ...

    async def delete(self, user_id: str) -> None:
        """Remove a user with keys, secrets and endings.

        Raises:
            NotFound: no such user.
            Conflict: the user owns sandboxes, snapshots or volumes, or is the only administrator.
        """
        ...

    async def add_key(self, new: NewKey) -> None:
        """Store a key, and forget those of its user that ended long ago.

        Raises:
            NotFound: no such user.
            Conflict: the key is known, or the user has MAX_KEYS valid ones.
        """
        ...

    async def authenticate(self, digest: str) -> tuple[User, ApiKey]:
        """Tell whose key it is. Raises Unauthenticated, in the same words for unknown, expired and revoked."""
        ...

    async def signing_key(self, key_id: str) -> SigningKey:
        """Give a key that signs. Raises Unauthenticated, in the same words for unknown, expired and revoked."""
        ...

    async def note_signature(self, digest: str, expires_at: datetime) -> bool:
        """Remember a signature until it expires; False when it was seen before. Forgets those that have expired."""
        ...

    async def list_keys(self, user_id: str) -> Sequence[ApiKey]:
        """All keys of a user, oldest first, expired and revoked ones too."""
        ...

    async def touch_key(self, key_id: str) -> None:
        """Note that a key is used now; one that is gone is fine."""
        ...

    async def replace_key(self, key_id: str, new: NewKey, *, ends_at: datetime) -> None:
        """Store a key in place of another, which ends at ``ends_at`` unless it ends before.

        Raises:
            NotFound: there is no such key, or it is not valid any more.
            Conflict: as ``add_key``.
        """
        ...

    async def revoke_key(self, key_id: str) -> None:
        """End a key now. Raises NotFound when there is none or it is revoked already."""
        ...
