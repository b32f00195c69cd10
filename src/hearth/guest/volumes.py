"""Telling a running guest which volumes to have mounted."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.guest.connector import Connector
from hearth.guest.faults import Deadline, encode_request
from hearth.guest.status import expect_ok
from hearth.wire.frames import FrameType
from hearth.wire.messages import VolumeMount, VolumesRequest

UNMOUNT_TIMEOUT_S = 60.0
"""To unmount is to write out what is in the guest's memory."""


async def settle_volumes(connector: Connector, volumes: Sequence[VolumeMount]) -> None:
    """Have the guest mount these volumes and unmount all others; after that those others may be detached.

    Raises:
        Conflict: one that is to go is in use in the guest, or something else is mounted where one is to come.
        TimedOut, GuestFailed: the guest did not answer, or wrongly.
    """
    request = VolumesRequest(volumes=[*volumes])
    async with Deadline(UNMOUNT_TIMEOUT_S, "mounting volumes"):
        with await connector.open(encode_request(FrameType.VOLUMES_REQ, request)) as connection:
            await expect_ok(connection, FrameType.VOLUMES_RESP)
