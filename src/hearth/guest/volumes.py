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


async def settle(connector: Connector, mounts: Sequence[VolumeMount]) -> None:
    """Have the guest mount these volumes and unmount all others; see ``Guest.settle_volumes``."""
    request = VolumesRequest(volumes=[*mounts])
    async with Deadline(UNMOUNT_TIMEOUT_S, "mounting volumes"):
        with await connector.open(encode_request(FrameType.VOLUMES_REQ, request)) as connection:
            await expect_ok(connection, FrameType.VOLUMES_RESP)
