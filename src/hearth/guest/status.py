"""Replies that carry nothing but ``ok`` or ``error`` with a message."""

from __future__ import annotations

from hearth.errors import GuestFailed
from hearth.guest.connection import Connection
from hearth.guest.faults import decode_reply, printable
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status


def read_status(payload: bytes) -> Status:
    """Read a Status reply.

    Raises:
        GuestFailed: it is none, or neither ``ok`` nor ``error``.
    """
    status = decode_reply(Status, payload)
    if status.status not in ("ok", "error"):
        raise GuestFailed("the guest broke the protocol", details=f"unknown status {printable(status.status)!r}")
    return status


def check_ok(payload: bytes) -> None:
    """Read a Status reply that has to be ``ok``.

    Raises:
        GuestFailed: it is not.
    """
    status = read_status(payload)
    if status.status != "ok":
        raise GuestFailed("the guest failed", details=printable(status.message or ""))


async def expect_ok(connection: Connection, frame_type: FrameType) -> None:
    """Wait for the status ``ok``.

    Raises:
        GuestFailed: the guest says it failed, or answered wrongly.
        HearthError: the agent answered ERROR.
    """
    check_ok((await connection.expect(frame_type)).payload)
