from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from tests.guest.conftest import IMPATIENT
from tests.guest.peer import Caller, Peer

from hearth.errors import GuestFailed, TimedOut, Unavailable
from hearth.guest.client import Guest
from hearth.guest.connector import Connector
from hearth.guest.dial import UnixDialer
from hearth.guest.patience import Patience
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ActivityInfo, ExecRequest

REQUEST = frames.encode(FrameType.FILE_STAT_REQ, b'{"path":"/"}')
ACTIVITY = ActivityInfo(last_activity_unix=1, active_sessions=0, attached_sessions=0)


def waits(caller: Caller) -> None:
    caller.read_until_gone()


async def test_the_token_and_the_request_leave_in_one_write(peer: Peer) -> None:
    received = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def script(caller: Caller) -> None:
        data = caller.socket.recv(65_536)
        loop.call_soon_threadsafe(received.set_result, data)

    peer.serve(script)
    connector = Connector(peer.dialer, "tok", connection_limit=1, patience=Patience())
    with await connector.open(REQUEST):
        assert await received == frames.encode(FrameType.AUTH, b"tok") + REQUEST


async def test_no_more_connections_than_the_limit_and_a_free_one_is_used_again(peer: Peer) -> None:
    peer.serve(waits)
    connector = Connector(peer.dialer, None, connection_limit=2, patience=Patience(slot_s=1.0))
    first, second = await connector.open(REQUEST), await connector.open(REQUEST)
    with second:
        with pytest.raises(Unavailable, match="all connections"):
            await connector.open(REQUEST)
        waiting = asyncio.create_task(connector.open(REQUEST))
        await asyncio.sleep(0)
        first.close()
        (await waiting).close()
        with await connector.open(REQUEST):
            pass


async def test_an_urgent_request_needs_no_slot(peer: Peer) -> None:
    peer.serve(waits)
    connector = Connector(peer.dialer, None, connection_limit=1, patience=Patience())
    with await connector.open(REQUEST), await connector.open(REQUEST, urgent=True):
        pass


async def test_a_failed_or_cancelled_dial_gives_its_slot_back(tmp_path: Path) -> None:
    nowhere = UnixDialer(control=tmp_path / "c", forward=tmp_path / "f")
    connector = Connector(nowhere, None, connection_limit=1, patience=IMPATIENT)
    for _ in range(3):
        with pytest.raises(GuestFailed, match="cannot be reached"):
            await connector.open(REQUEST)


class Stalling:
    """Fails as a stopped machine's agent does, until it is told to go on; then it is the peer's."""

    def __init__(self, peer: Peer, error: OSError) -> None:
        self._peer = peer
        self._error: OSError | None = error
        self.attempts = 0
        self.asked_twice = asyncio.Event()

    def go_on(self) -> None:
        self._error = None

    async def connect(self, port: int) -> socket.socket:
        self.attempts += 1
        if self.attempts == 2:
            self.asked_twice.set()
        if self._error is not None:
            raise self._error
        return await self._peer.dialer.connect(port)


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError()], ids=["silent", "refusing"])
async def test_a_guest_that_stalls_is_dialled_until_it_goes_on(peer: Peer, error: OSError) -> None:
    peer.serve(waits)
    dialer = Stalling(peer, error)
    connector = Connector(dialer, None, connection_limit=1, patience=Patience())
    opening = asyncio.create_task(connector.open(REQUEST))
    async with asyncio.timeout(60):
        await dialer.asked_twice.wait()
        assert not opening.done()
        dialer.go_on()
        (await opening).close()


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError("nobody there")], ids=["silent", "refusing"])
async def test_a_guest_that_stays_away_is_given_up_in_time_with_its_slot_free(peer: Peer, error: OSError) -> None:
    dialer = Stalling(peer, error)
    connector = Connector(dialer, None, connection_limit=1, patience=IMPATIENT)
    for _ in range(2):
        with pytest.raises(GuestFailed, match=r"cannot be reached: .*, for 0\.05 s"):
            await connector.open(REQUEST)


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError()], ids=["silent", "refusing"])
async def test_who_asks_for_one_attempt_gets_one(peer: Peer, error: OSError) -> None:
    dialer = Stalling(peer, error)
    connector = Connector(dialer, None, connection_limit=1, patience=Patience())
    with pytest.raises(GuestFailed, match="cannot be reached"):
        await connector.open(REQUEST, once=True)
    assert dialer.attempts == 1


async def test_a_machine_that_is_gone_is_not_waited_for(peer: Peer) -> None:
    dialer = Stalling(peer, FileNotFoundError("no such namespace"))
    with pytest.raises(GuestFailed, match="no such namespace"):
        await Connector(dialer, None, connection_limit=1, patience=Patience()).open(REQUEST)
    assert dialer.attempts == 1


async def test_a_guest_that_takes_no_bytes_is_given_up(peer: Peer) -> None:
    def deaf(caller: Caller) -> None:
        peer.released.wait(60)

    peer.serve(deaf)
    connector = Connector(peer.dialer, None, connection_limit=1, patience=IMPATIENT)
    large = frames.encode(FrameType.EXEC_REQ, bytes(1_000_000))
    for _ in range(2):
        with pytest.raises(TimedOut, match="connecting to the guest took longer"):
            await connector.open(large)


async def test_a_refusal_sent_before_the_request_was_read_is_still_told(peer: Peer) -> None:
    def script(caller: Caller) -> None:
        caller.send(frames.encode_error("connection limit exceeded"))

    peer.serve(script)
    guest = Guest(peer.dialer, None)
    for _ in range(20):
        with pytest.raises(Unavailable, match="limit"):
            await guest.files.stat("/")
        with pytest.raises(Unavailable, match="limit"):
            await guest.run(ExecRequest(argv=["a" * 500_000]), timeout_s=60, max_output_bytes=10)


async def test_the_encoded_request_is_what_was_asked(peer: Peer) -> None:
    asked = []

    def script(caller: Caller) -> None:
        asked.append(caller.read())
        caller.reply(FrameType.ACTIVITY_RESP, ACTIVITY)
        caller.read_until_gone()

    peer.serve(script)
    assert await Guest(peer.dialer, None).activity() == ACTIVITY
    assert asked == [(FrameType.ACTIVITY_REQ, b"")]
