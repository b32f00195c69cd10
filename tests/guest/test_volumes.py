"""Telling a guest what to mount: what is sent, and what a refusal becomes."""

from __future__ import annotations

import json

import pytest
from tests.guest.peer import Caller, Peer

from hearth.errors import Conflict, Forbidden, GuestFailed
from hearth.guest.client import Guest
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import VolumeMount, VolumesRequest, decode

MOUNT = VolumeMount(device="/dev/vdb", mount="/data")


async def test_the_whole_list_is_sent_and_ok_awaited(peer: Peer, steady: Guest) -> None:
    asked = []

    def script(caller: Caller) -> None:
        asked.append(decode(VolumesRequest, caller.read().payload))
        caller.send(frames.encode(FrameType.VOLUMES_RESP, json.dumps({"status": "ok"}).encode()))
        caller.read_until_gone()

    peer.serve(script)
    await steady.settle_volumes([MOUNT])
    assert asked == [VolumesRequest(volumes=[MOUNT])]


@pytest.mark.parametrize(
    ("reply", "body", "error"),
    [
        (FrameType.ERROR, b"conflict: /data: Device or resource busy", Conflict),
        (FrameType.VOLUMES_RESP, b'{"status":"error","message":"no"}', GuestFailed),
        (FrameType.VOLUMES_RESP, b"[]", GuestFailed),
        (FrameType.THAW_RESP, b'{"status":"ok"}', GuestFailed),
    ],
)
async def test_anything_but_ok_is_an_error(
    peer: Peer, steady: Guest, reply: FrameType, body: bytes, error: type[Exception]
) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.send(frames.encode(reply, body))
        caller.read_until_gone()

    peer.serve(script)
    with pytest.raises(error):
        await steady.settle_volumes([])


async def test_an_agent_without_a_machine_mounts_nothing(guest: Guest) -> None:
    with pytest.raises(Forbidden, match="mounts nothing"):
        await guest.settle_volumes([MOUNT])
