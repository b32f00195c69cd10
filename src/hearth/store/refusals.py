"""The errors both stores raise, so that their words are the same whichever is underneath."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from hearth.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from hearth.model import Job, Sandbox
from hearth.store.base import LeaseLost


def check_storable(sandbox: Sandbox) -> None:
    """Refuse NUL characters in labels and env: SQLite's JSON functions end a text there, PostgreSQL's refuse it.

    Raises:
        InvalidInput: the field is ``labels`` or ``env``.
    """
    for field, mapping in (("labels", sandbox.spec.labels), ("env", sandbox.spec.env)):
        if any("\0" in text for pair in mapping.items() for text in pair):
            raise InvalidInput(
                f"invalid {field}", details="it holds a NUL character", resolution="leave it out", field=field
            )


def not_found(noun: str, reference: str) -> NotFound:
    return NotFound(
        f"no such {noun}",
        details=f"{noun} {reference[:80]!r} does not exist",
        resolution=f"list what there is to find the {noun} you mean",
    )


def taken(noun: str, reference: str) -> Conflict:
    return Conflict(f"the {noun} exists already", details=f"{noun} {reference[:80]!r}")


def wrong_state(noun: str, reference: str, state: StrEnum, expected: Collection[StrEnum]) -> Conflict:
    wanted = " or ".join(sorted(expected))
    return Conflict(f"the {noun} is {state}", details=f"{reference} would have to be {wanted}")


def owns_sandboxes(user_id: str, count: int) -> Conflict:
    return Conflict("the user still owns sandboxes", details=f"{user_id} owns {count}", resolution="destroy them first")


def ambiguous(name: str) -> Conflict:
    return Conflict(
        "several owners have a sandbox of that name",
        details=f"{name[:80]!r} fits more than one",
        resolution="use the sandbox's id",
    )


def bad_key() -> Unauthenticated:
    return Unauthenticated(
        "the API key is not valid",
        details="it is unknown, expired or revoked",
        resolution="ask an administrator for a new key",
    )


def lease_lost(job: Job) -> LeaseLost:
    holder = job.lease_owner or "nobody"
    return LeaseLost(
        "the job's lease belongs to somebody else",
        details=f"{job.id} is {job.state}, held by {holder}",
        resolution="leave the job to its holder",
    )
