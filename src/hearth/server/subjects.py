"""What a request was about, in words for the audit log."""

from __future__ import annotations

from starlette.types import Scope

MAX_CHARACTERS = 255


def subject_of(scope: Scope) -> str | None:
    """Say what a request was about: what its address names, and what it made."""
    named = "/".join(str(value) for value in scope.get("path_params", {}).values())
    made = scope["state"].get("made", ())
    text = " ".join(filter(None, (named, *made)))[:MAX_CHARACTERS]
    return "".join(each if each.isprintable() else "?" for each in text) or None


def things_in(value: object) -> tuple[str, ...]:
    """Give the ids, else the names, of what an answer shows: what a call made or changed."""
    items = getattr(value, "items", None)
    if isinstance(items, list):
        return tuple(each for item in items for each in things_in(item))
    for field in ("user", "key", "id", "name", "job_id"):
        found = getattr(value, field, None)
        if isinstance(found, str):
            return (found,)
        if getattr(found, "id", None) is not None:
            return things_in(found)
    return ()
