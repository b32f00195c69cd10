"""Where ids and keys come from: the kernel's random numbers, nothing else."""

from __future__ import annotations

import hashlib
import re
import secrets

from hearth.errors import Unauthenticated

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o, u, so that an id read aloud stays the same id."""

ID_CHARACTERS = 12
"""60 random bits: a million ids collide with a probability of 4e-7, and the primary key refuses that one.

They carry no time on purpose: 12 characters that held milliseconds would leave 15 random bits, and lists are ordered by
``created_at`` anyway.
"""

API_KEY_PATTERN = re.compile(r"hk_[0-9a-f]{64}")
API_KEY_PREFIX_CHARACTERS = 11
"""What may be shown of a key: ``hk_`` and 32 of its 256 bits."""


def new_id(kind: str) -> str:
    """Give a new id such as ``sb-4k9d0x7m2qtz`` for kind ``sb``."""
    return f"{kind}-{''.join(secrets.choice(ALPHABET) for _ in range(ID_CHARACTERS))}"


def new_sandbox_id() -> str:
    return new_id("sb")


def new_job_id() -> str:
    return new_id("job")


def new_user_id() -> str:
    return new_id("user")


def new_api_key_id() -> str:
    return new_id("key")


def new_api_key() -> str:
    """Give a new secret: ``hk_`` and 64 hexadecimal digits (256 bits). It is shown once and never stored."""
    return f"hk_{secrets.token_hex(32)}"


def new_signing_secret() -> str:
    """Give a new secret to sign requests with: ``hs_`` and 64 hexadecimal digits. It is never sent again."""
    return f"hs_{secrets.token_hex(32)}"


def hash_signing_secret(secret: str) -> str:
    """Give the SHA-256 of a signing secret; nothing is looked up by it, it only has to be one of its own."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def hash_api_key(key: str) -> str:
    """Give the SHA-256 of a key, as 64 hexadecimal digits: the form in which it is stored and looked up.

    A plain hash is enough because the key holds 256 random bits: there is no dictionary to try.

    Raises:
        Unauthenticated: ``key`` does not have the form of a key; the error never repeats it.
    """
    if API_KEY_PATTERN.fullmatch(key) is None:
        raise Unauthenticated(
            "not an API key", details="a key is hk_ and 64 hexadecimal digits", resolution="check the key you sent"
        )
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def api_key_prefix(key: str) -> str:
    """Give the part of a key that may be shown and logged."""
    return key[:API_KEY_PREFIX_CHARACTERS]
