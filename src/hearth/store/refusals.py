"""The errors both stores raise, so that their words are the same whichever is underneath."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from hearth.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from hearth.model import Job, SandboxSpec, VolumePlacement
from hearth.store.base import AliasTaken, LeaseLost, SnapshotNeeded


def check_storable(spec: SandboxSpec) -> None:
    """Refuse NUL characters in labels and env: SQLite's JSON functions end a text there, PostgreSQL's refuse it.

    Raises:
        InvalidInput: the field is ``labels`` or ``env``.
    """
    for field, mapping in (("labels", spec.labels), ("env", spec.env)):
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


def elsewhere(noun: str, reference: str, host: str) -> NotFound:
    return NotFound(
        f"the {noun} is on another host",
        details=f"{noun} {reference[:80]!r} is on {host}",
        resolution="ask the daemon there",
    )


def taken(noun: str, reference: str, *, field: str | None = None) -> Conflict:
    return Conflict(f"the {noun} exists already", details=f"{noun} {reference[:80]!r}", field=field)


def wrong_state(noun: str, reference: str, state: StrEnum, expected: Collection[StrEnum]) -> Conflict:
    wanted = " or ".join(sorted(expected))
    return Conflict(f"the {noun} is {state}", details=f"{reference} would have to be {wanted}")


def owns(user_id: str, sandboxes: int, snapshots: int, volumes: int) -> Conflict:
    return Conflict(
        "the user still owns sandboxes, snapshots or volumes",
        details=f"{user_id} owns {sandboxes} sandboxes, {snapshots} snapshots and {volumes} volumes",
        resolution="destroy them first",
    )


def ambiguous(noun: str, name: str) -> Conflict:
    return Conflict(
        f"several owners have a {noun} of that name",
        details=f"{name[:80]!r} fits more than one",
        resolution=f"use the {noun}'s id",
    )


def other_origin(sandbox_id: str, origin: str | None, expected: str | None) -> Conflict:
    return Conflict(
        "the sandbox's disk lies over another snapshot",
        details=f"{sandbox_id} lies over {origin or 'its image'}, not over {expected or 'its image'}",
        resolution="look the sandbox up again",
    )


def needed(snapshot_id: str, names: Sequence[str]) -> SnapshotNeeded:
    return SnapshotNeeded(
        "other checkpoints were made from this one",
        details=f"{snapshot_id} is needed by {', '.join(names[:5])}" + (" and others" if len(names) > 5 else ""),
        resolution="delete those first",
    )


def placed(volume_id: str, sandbox_ids: Sequence[str]) -> Conflict:
    return Conflict(
        "the volume is attached",
        details=f"{volume_id} is in {', '.join(sandbox_ids[:5])}" + (" and others" if len(sandbox_ids) > 5 else ""),
        resolution="detach it there first, or destroy that sandbox",
        field="volume",
    )


def not_placeable(placement: VolumePlacement) -> Conflict:
    return Conflict(
        "the volume cannot be placed there",
        details=f"{placement.sandbox_id} has {placement.volume_id} already, or something else in slot {placement.slot}",
        resolution="detach what is there first",
        field="volume",
    )


def alias_taken(alias: str) -> AliasTaken:
    return AliasTaken(
        "the alias is taken",
        details=f"something is published as {alias!r} already",
        resolution="choose another alias",
        field="alias",
    )


def published(sandbox_id: str, port: int) -> Conflict:
    return Conflict(
        "the port is published already",
        details=f"port {port} of {sandbox_id} has an alias",
        resolution="use that alias, or take it away first",
        field="port",
    )


def too_many_keys(user_id: str, most: int) -> Conflict:
    return Conflict(
        "the user has too many keys",
        details=f"{user_id} has {most} valid ones",
        resolution="revoke some that are not needed",
    )


def too_many_secrets(most: int) -> Conflict:
    return Conflict("there are too many secrets", details=f"{most} are there", resolution="delete some", field="name")


def too_many_templates(most: int) -> Conflict:
    return Conflict("there are too many templates", details=f"{most} are there", resolution="delete some", field="name")


def changed_meanwhile(noun: str, reference: str) -> Conflict:
    return Conflict(f"the {noun} was changed meanwhile", details=reference[:80], resolution="look at it and try again")


def last_admin(user_id: str) -> Conflict:
    return Conflict(
        "nobody would be administrator any more",
        details=f"{user_id} is the only one",
        resolution="make another user administrator first",
        field="admin",
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
