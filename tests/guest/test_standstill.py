"""What a guest says of its disks and its dead is checked before it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.agent.conftest import AgentProcess
from tests.guest.conftest import guest_of
from tests.guest.peer import Caller, Peer

from hearth.errors import Forbidden, GuestFailed, InvalidInput, NoSpace
from hearth.guest.client import Guest
from hearth.guest.standstill import require_room
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import FreezeRequest, FrozenMount, MachineConfig, OomKill, decode

ROOT = {"mount": "/", "used_bytes": 10, "total_bytes": 100, "available_bytes": 80}
CONFIG = MachineConfig(sandbox_id="s", hostname="h", token="new", unix_time_ns=1)
KILL = {"process": "eater", "pid": 7, "seconds": 1.5}


def answer(peer: Peer, reply: FrameType, body: object) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.send(frames.encode(reply, json.dumps(body).encode()))
        caller.read_until_gone()

    peer.serve(script)


async def test_the_bounds_of_a_freeze_are_sent_and_its_disks_come_back(peer: Peer, steady: Guest) -> None:
    asked = []

    def script(caller: Caller) -> None:
        asked.append(decode(FreezeRequest, caller.read().payload))
        caller.send(frames.encode(FrameType.FREEZE_RESP, json.dumps([ROOT, {**ROOT, "mount": "/v"}]).encode()))
        caller.read_until_gone()

    peer.serve(script)
    mounts = await steady.freeze(timeout_s=2, thaw_after_s=3)
    assert [mount.mount for mount in mounts] == ["/", "/v"]
    assert asked == [FreezeRequest(timeout_sec=2.0, thaw_after_sec=3.0)]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        [{**ROOT, "mount": "/other"}],
        [{**ROOT, "used_bytes": 101}],
        [{**ROOT, "available_bytes": 101}],
        [{**ROOT, "used_bytes": -1}],
        [{**ROOT, "total_bytes": "100"}],
        [{**ROOT, "total_bytes": 1e9}],
        [ROOT] * 257,
        [{"mount": "/"}],
    ],
    ids=lambda body: str(body)[:60],
)
async def test_a_freeze_that_was_not_proven_is_none(peer: Peer, steady: Guest, body: object) -> None:
    answer(peer, FrameType.FREEZE_RESP, body)
    with pytest.raises(GuestFailed):
        await steady.freeze()


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"uptime_sec": -1},
        {"uptime_sec": 1, "oom_kills": [KILL] * 65},
        {"uptime_sec": 1, "oom_kills": [{**KILL, "pid": 0}]},
        {"uptime_sec": 1, "oom_kills": [{**KILL, "pid": 2**40}]},
        {"uptime_sec": 1, "oom_kills": [{**KILL, "seconds": -1}]},
        {"uptime_sec": 1, "oom_kills": [{**KILL, "process": 3}]},
    ],
    ids=lambda body: str(body)[:60],
)
async def test_last_words_that_cannot_be_are_refused(peer: Peer, steady: Guest, body: object) -> None:
    answer(peer, FrameType.LAST_WORDS_RESP, body)
    with pytest.raises(GuestFailed):
        await steady.last_words()


async def test_the_names_of_the_dead_are_shortened_and_made_printable(peer: Peer, steady: Guest) -> None:
    answer(
        peer, FrameType.LAST_WORDS_RESP, {"uptime_sec": 9, "oom_kills": [{**KILL, "process": "\x1b[2J" + "x" * 500}]}
    )
    words = await steady.last_words()
    assert words.oom_kills == [OomKill(process="\\x1b[2J" + "x" * 60, pid=7, seconds=1.5)]


@pytest.mark.parametrize(
    "field", [{"cpu_ms": -1}, {"memory": {"total_mib": -1, "available_mib": 0}}, {"memory": 7}, {"frozen": "yes"}]
)
async def test_an_activity_that_cannot_be_is_refused(peer: Peer, steady: Guest, field: dict[str, Any]) -> None:
    answer(
        peer,
        FrameType.ACTIVITY_RESP,
        {"last_activity_unix": 1, "active_sessions": 0, "attached_sessions": 0, **field},
    )
    with pytest.raises(GuestFailed):
        await steady.activity()


def test_a_disk_is_too_full_by_what_its_users_can_have() -> None:
    roomy = FrozenMount(mount="/", used_bytes=95, total_bytes=105, available_bytes=5)
    tight = FrozenMount(mount="/", used_bytes=96, total_bytes=105, available_bytes=4)
    nothing = FrozenMount(mount="/", used_bytes=0, total_bytes=0, available_bytes=0)
    require_room([roomy, nothing])
    require_room([tight], mount="/v")
    require_room([tight], most=0.97)
    with pytest.raises(NoSpace, match=r"/ is 96\.0% full, the most is 95%"):
        require_room([roomy, tight])


async def test_an_agent_without_a_machine_freezes_nothing_and_says_so(agent_process: AgentProcess) -> None:
    guest = guest_of(agent_process, "secret")
    with pytest.raises(Forbidden, match="does not run a machine of its own"):
        await guest.freeze()
    await guest.thaw()
    activity = await guest.activity()
    assert (activity.frozen, activity.cpu_ms, activity.memory) == (False, None, None)


async def test_a_configuration_that_failed_keeps_the_token(peer: Peer) -> None:
    def script(caller: Caller) -> None:
        assert caller.read() == (FrameType.AUTH, b"old")
        caller.read()
        caller.send(frames.encode(FrameType.CONFIGURED, b'{"status":"error","message":"entropy: no device"}'))
        caller.read_until_gone()

    peer.serve(script)
    guest = Guest(peer.dialer, "old")
    for _ in range(2):
        with pytest.raises(GuestFailed, match="entropy: no device"):
            await guest.configure(CONFIG, 60)


async def test_entropy_and_machine_id_are_asked_for_by_name(agent_process: AgentProcess) -> None:
    guest = guest_of(agent_process, "secret")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"generation": 1}, "entropy has 0 bytes"),
        ({"machine_id": "x" * 32}, "machine_id is not 32"),
        ({"machine_id": "0" * 32}, "machine_id is not 32"),
    ]
    for fields, words in cases:
        config = MachineConfig(sandbox_id="s", hostname="h", token="secret", unix_time_ns=1, **fields)
        with pytest.raises(InvalidInput, match=words):
            await guest.configure(config, 60)
