"""Replies that carry nothing but ``ok`` or ``error`` with a message."""

from __future__ import annotations

from hearth.errors import GuestFailed
from hearth.guest.connection import Connection
from hearth.guest.faults import decode_reply, printable
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status


async def receive_status(connection: Connection, frame_type: FrameType) -> Status:
    """Wait for a Status reply.

    Raises:
        GuestFailed: something else came, or a status that is neither ``ok`` nor ``error``.
        HearthError: the agent answered ERROR.
    """
    status = decode_reply(Status, (await connection.expect(frame_type)).payload)
    if status.status not in ("ok", "error"):
        raise GuestFailed("the guest broke the protocol", details=f"unknown status {printable(status.status)!r}")
    return status


async def expect_ok(connection: Connection, frame_type: FrameType) -> None:
    """Wait for the status ``ok``.

    Raises:
        GuestFailed: the guest says it failed, or answered wrongly.
        HearthError: the agent answered ERROR.
    """
    status = await receive_status(connection, frame_type)
    if status.status != "ok":
        raise GuestFailed("the guest failed", details=printable(status.message or ""))
