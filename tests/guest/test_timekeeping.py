"""A machine that slept is told the time with whatever is asked of it first."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.agent.conftest import AgentProcess
from tests.guest.conftest import guest_of
from tests.guest.peer import Caller, Peer

from hearth.errors import GuestFailed, HearthError
from hearth.guest.client import Guest
from hearth.host.clock import ManualClock
from hearth.wire import frames
from hearth.wire.frames import Frame, FrameType
from hearth.wire.messages import ActivityInfo, ExecRequest

ACTIVITY = ActivityInfo(last_activity_unix=1, active_sessions=0, attached_sessions=0)
NEW_YEAR_NS = 1_767_225_600 * 10**9


def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def answering(peer: Peer, seen: list[list[Frame]]) -> None:
    def script(caller: Caller) -> None:
        received = [caller.read()]
        while received[-1].type in (FrameType.AUTH, FrameType.TIME_SYNC):
            received.append(caller.read())
        seen.append(received)
        caller.reply(FrameType.ACTIVITY_RESP, ACTIVITY)
        caller.read_until_gone()

    peer.serve(script)


async def test_the_time_of_sending_stands_between_the_token_and_the_first_request_only(peer: Peer) -> None:
    seen: list[list[Frame]] = []
    answering(peer, seen)
    now = clock()
    guest = Guest(peer.dialer, "tok", clock=now)
    await guest.activity()
    now.advance(3600)
    guest.woken()
    now.advance(0.25)
    await guest.activity()
    await guest.activity()
    auth, request = (FrameType.AUTH, b"tok"), (FrameType.ACTIVITY_REQ, b"")
    told = frames.encode_time_sync(NEW_YEAR_NS + 3_600_250_000_000)[frames.HEADER_SIZE :]
    assert seen == [[auth, request], [auth, (FrameType.TIME_SYNC, told), request], [auth, request]]


async def test_it_is_told_again_until_an_answer_came_and_errors_are_none(peer: Peer) -> None:
    guest = Guest(peer.dialer, None, clock=clock())
    guest.woken()
    first: list[int] = []

    def refusing(caller: Caller) -> None:
        first.append(caller.read().type)
        caller.send(frames.encode(FrameType.PROBE) + frames.encode_error("connection limit exceeded"))

    def leaving(caller: Caller) -> None:
        first.append(caller.read().type)

    for script, error in ((refusing, HearthError), (leaving, GuestFailed)):
        peer.serve(script)
        with pytest.raises(error):
            await guest.activity()
    seen: list[list[Frame]] = []
    answering(peer, seen)
    await guest.activity()
    await guest.activity()
    assert first == [FrameType.TIME_SYNC] * 2
    assert [len(received) for received in seen] == [2, 1]


async def test_an_answer_to_a_question_from_before_the_second_sleep_proves_nothing(peer: Peer) -> None:
    guest = Guest(peer.dialer, None, clock=clock())
    seen: list[list[Frame]] = []
    answering(peer, seen)
    connector = guest._connector
    guest.woken()
    with await connector.open(frames.encode(FrameType.ACTIVITY_REQ)) as connection:
        guest.woken()
        await connection.expect(FrameType.ACTIVITY_RESP)
    await guest.activity()
    await guest.activity()
    assert [len(received) for received in seen] == [2, 2, 1]


async def test_the_real_agent_takes_the_time_on_both_ports_and_answers_as_ever(agent_process: AgentProcess) -> None:
    before = datetime.now(UTC)
    guest = guest_of(agent_process, "secret", clock=clock())
    guest.woken()
    result = await guest.run(ExecRequest(argv=["echo", "awake"]), timeout_s=60, max_output_bytes=100)
    assert result.stdout == b"awake\n"
    guest.woken()
    with pytest.raises(HearthError, match=r"refused|nothing listens|Connection"):
        await guest.forward(1)
    assert abs((datetime.now(UTC) - before).total_seconds()) < 60
