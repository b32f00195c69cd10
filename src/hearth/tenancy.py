"""The words of tenancy: what an API key may do, how much a user may have, what is remembered of changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SECRET_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
"""A secret's name is the name of a variable, too."""


class KeyScope(StrEnum):
    """What a key may do of what its user may; each includes those before it."""

    READ = "read"
    """Look at things."""
    EXEC = "exec"
    """Use the sandboxes there are: run commands, reach ports, wake them and put them to sleep."""
    WRITE = "write"
    """Make, change and destroy."""
    FULL = "full"
    """All that the user may: keys, and what only administrators do."""

    def allows(self, needed: KeyScope) -> bool:
        order = list(KeyScope)
        return order.index(self) >= order.index(needed)


class KeyKind(StrEnum):
    """How a key proves itself: it is sent, or requests are signed with it."""

    BEARER = "bearer"
    HMAC = "hmac"


@dataclass(frozen=True, kw_only=True)
class SecretUse:
    """How a sandbox gets one of its owner's secrets: as the variable ``env``, else as a file in memory."""

    name: str
    env: str | None = None


@dataclass(frozen=True, kw_only=True)
class SealedSecret:
    """A secret as stored: ``sealed`` opens with the master key ``key_id`` alone."""

    owner: str
    name: str
    sealed: bytes
    key_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One change, or attempt at one: who, when, what, from where, and what came of it.

    ``action`` is an operation of the API, ``object`` what it was about; ``status`` the answer's, 499 where the caller
    left before it. ``remote`` is an address, or ``unix`` for the host's own socket.
    """

    id: str
    created_at: datetime
    user_id: str
    user_name: str
    key_id: str | None
    action: str
    object: str | None
    status: int
    code: str | None
    remote: str
    request_id: str
