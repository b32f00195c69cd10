"""Which of a user's API keys is meant: by id, or by the name it was given, which several may have."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.errors import Conflict
from hearth.model import ApiKey
from hearth.store import refusals

NOUN = "valid key"


def named_key(valid: Sequence[ApiKey], reference: str) -> ApiKey:
    """Give the key of an id or a name.

    Raises:
        NotFound: none of them is it.
        Conflict: several have the name.
    """
    found = [key for key in valid if key.id == reference] or [key for key in valid if key.name == reference != ""]
    if not found:
        raise refusals.not_found(NOUN, reference)
    return _single(found)


def only_key(valid: Sequence[ApiKey]) -> ApiKey:
    """Give the key of somebody who has one. Raises NotFound, and Conflict where there are more."""
    if not valid:
        raise refusals.not_found(NOUN, "any")
    return _single(valid)


def _single(found: Sequence[ApiKey]) -> ApiKey:
    if len(found) > 1:
        raise Conflict(
            "it is not clear which key is meant",
            details=f"there are {len(found)} valid ones: {', '.join(key.id for key in found[:5])}",
            resolution="name the key by its id",
            field="key",
        )
    return found[0]
