"""Bodies of users and API keys. The conventions are those of ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.api.schemas import Name

MAX_KEY_LIFE_S = 315_360_000
"""Ten years."""
MAX_OVERLAP_S = 604_800
"""A week: longest time for which a key that was replaced stays valid."""
Scope = Annotated[
    Literal["read", "exec", "write", "full"],
    Meta(description="Each includes those before it; keys and administration need full."),
]
KeyKind = Annotated[
    Literal["bearer", "hmac"], Meta(description="Sent with each request, or what requests are signed with.")
]
KeyLife = Annotated[int, Meta(ge=1, le=MAX_KEY_LIFE_S, description="Seconds until it is not valid any more.")]


class CreateUser(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A user, who gets a first key."""

    name: Name
    admin: bool = False


class ChangeUser(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays."""

    name: Name | None = None
    admin: bool | None = None


class UserView(Struct, frozen=True, kw_only=True):
    """Somebody who may call. Administrators see everything."""

    id: str
    name: str
    admin: bool
    created_at: datetime


class UserList(Struct, frozen=True, kw_only=True):
    """A page of users, oldest first."""

    items: list[UserView]
    next_cursor: str | None = None


class KeyView(Struct, frozen=True, kw_only=True):
    """What is known of a key besides its secret; ``prefix`` is the part of that which may be shown.

    ``last_used_at`` is kept to the minute. One with a ``sandbox`` opens that one alone.
    """

    id: str
    name: str
    prefix: str
    kind: str
    scope: str
    valid: bool
    created_at: datetime
    sandbox: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class KeyList(Struct, frozen=True, kw_only=True):
    """All keys of a user, oldest first."""

    items: list[KeyView]


class CreateKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A further key of a user; one for a ``sandbox`` (id or name) alone may read or exec."""

    name: Name | None = None
    scope: Scope = "full"
    kind: KeyKind = "bearer"
    sandbox: Name | None = None
    ttl_s: KeyLife | None = None


class RotateKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key in place of another: of ``key``, else of the one that this is asked with, else of the only valid one.

    The old one stays valid for ``overlap_s`` more seconds. The new one is as the old one was and lives as long.
    """

    key: str | None = None
    overlap_s: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_S)] = 0


class NewKeyView(Struct, frozen=True, kw_only=True):
    """A new key with its secret, which is shown this once."""

    key: KeyView
    secret: str


class NewUserView(Struct, frozen=True, kw_only=True):
    """A new user with the first key and its secret, which is shown this once."""

    user: UserView
    key: KeyView
    secret: str
