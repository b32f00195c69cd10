"""Bodies of secrets. No answer ever holds a value."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.bounds import MAX_SECRET_BYTES

MAX_VALUE_CHARACTERS = MAX_SECRET_BYTES * 4 // 3 + 4
SecretName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)",
        min_length=1,
        max_length=128,
        description="1 to 128 letters, digits and '_', not beginning with a digit: a variable's name.",
    ),
]


class PutSecret(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A secret, or a new value of one; up to 32 KiB."""

    name: SecretName
    value: Annotated[str, Meta(min_length=1, max_length=MAX_VALUE_CHARACTERS)]
    encoding: Literal["utf-8", "base64"] = "utf-8"

    def __repr__(self) -> str:
        return f"PutSecret(name={self.name!r})"


class SecretView(Struct, frozen=True, kw_only=True):
    """What is told of a secret: that it is there."""

    name: str
    created_at: datetime
    updated_at: datetime


class SecretList(Struct, frozen=True, kw_only=True):
    """A page of the caller's secrets, oldest first."""

    items: list[SecretView]
    next_cursor: str | None = None


class SecretUse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of the caller's secrets for a sandbox: as the variable ``env`` (its own name), or as /run/secrets/NAME."""

    name: SecretName
    env: SecretName | None = None
    file: bool = False


class SecretVariable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of the caller's secrets for a command: as the variable ``env`` (its own name)."""

    name: SecretName
    env: SecretName | None = None


class MasterKeyView(Struct, frozen=True, kw_only=True):
    """That the master key was changed, and how much was sealed anew."""

    resealed: int
