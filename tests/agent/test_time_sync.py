"""Where TIME_SYNC may stand; in test mode the clock it would set is the host's, and is left alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.agent.client import AgentError, Client, Wire
from tests.agent.conftest import AgentProcess, running_agent

from hearth.wire import frames
from hearth.wire.frames import FrameType

FAR_AHEAD = frames.encode_time_sync(4_000_000_000 * 10**9, bytes(64))
ACTIVITY = frames.encode(FrameType.ACTIVITY_REQ)
AUTH = frames.encode(FrameType.AUTH, b"tok")


@pytest.fixture(scope="module")
def guarded() -> Iterator[AgentProcess]:
    with running_agent(token="tok") as running:
        yield running


def ask(client: Client, data: bytes, *, forward: bool = False) -> Wire:
    wire = Wire(client.forward_address if forward else client.address)
    wire.socket.sendall(data)
    return wire


def test_it_is_taken_between_token_and_request_and_the_hosts_clock_stays(guarded: AgentProcess) -> None:
    before = time.time()
    for data in (AUTH + FAR_AHEAD + ACTIVITY, AUTH + ACTIVITY):
        with ask(guarded.client, data) as wire:
            wire.expect(FrameType.ACTIVITY_RESP)
    assert 0 <= time.time() - before < 60


def test_it_is_taken_on_the_forward_port_too(guarded: AgentProcess) -> None:
    request = frames.encode(FrameType.FWD_REQ, b'{"port":1}')
    with ask(guarded.client, AUTH + FAR_AHEAD + request, forward=True) as wire:
        assert b"error" in wire.expect(FrameType.FWD_RESP)


def test_an_agent_without_a_token_takes_it_first(client: Client) -> None:
    with ask(client, frames.encode_time_sync(time.time_ns()) + ACTIVITY) as wire:
        wire.expect(FrameType.ACTIVITY_RESP)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (FAR_AHEAD + AUTH + ACTIVITY, "auth required"),
        (AUTH + FAR_AHEAD + FAR_AHEAD + ACTIVITY, "unexpected frame type 0x7c"),
        (AUTH + FAR_AHEAD + AUTH + ACTIVITY, "unexpected frame type 0x11"),
        (AUTH + frames.encode(FrameType.TIME_SYNC, bytes(7)) + ACTIVITY, "protocol: TIME_SYNC payload has 7 bytes"),
        (AUTH + frames.encode(FrameType.TIME_SYNC, b"\xff" * 8) + ACTIVITY, "protocol: TIME_SYNC says"),
    ],
)
def test_everywhere_else_it_is_refused(guarded: AgentProcess, data: bytes, words: str) -> None:
    with ask(guarded.client, data) as wire, pytest.raises(AgentError, match=f"^{words}"):
        wire.read()


def test_behind_it_the_request_may_be_missing(guarded: AgentProcess) -> None:
    with ask(guarded.client, AUTH + FAR_AHEAD) as wire:
        wire.half_close()
        assert wire.read_or_none() is None
