from __future__ import annotations

import asyncio
import fcntl
import resource
import socket
from collections.abc import Iterator

import pytest

from hearth.errors import GuestFailed, NotFound
from hearth.guest.connection import FRAMES_PER_TURN, Connection
from hearth.wire import frames
from hearth.wire.frames import Decoder, Frame, FrameType

FILLS_ANY_SOCKET = bytes(1_000_000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A non-blocking end for the host and one for the guest."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def read_frames(sock: socket.socket, count: int) -> list[Frame]:
    decoder = Decoder()
    found: list[Frame] = []
    while len(found) < count:
        data = await asyncio.get_running_loop().sock_recv(sock, 65_536)
        assert data
        decoder.feed(data)
        found.extend(decoder.frames())
    return found


async def test_large_frames_of_concurrent_senders_never_interleave(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with Connection(ours) as connection:
        wires = [frames.encode(FrameType.STDIN, bytes([n]) * 300_000) for n in range(10)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            reading = group.create_task(read_frames(theirs, 10))
            for wire in wires:
                group.create_task(connection.send(wire))
    assert sorted(frame.payload[0] for frame in reading.result()) == list(range(10))
    assert all(frame.payload == frame.payload[:1] * 300_000 for frame in reading.result())


async def test_a_send_cancelled_half_way_closes_the_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    connection = Connection(pair[0])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.send(frames.encode(FrameType.STDIN, FILLS_ANY_SOCKET))
    with pytest.raises(GuestFailed, match="gone"):
        await connection.send(b"more")


async def test_a_send_to_a_peer_that_left_is_the_guests_failure(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with Connection(pair[0]) as connection, pytest.raises(GuestFailed, match="gone"):
        await connection.send(frames.encode(FrameType.KILL))


async def test_a_peer_that_leaves_ends_a_waiting_send(pair: tuple[socket.socket, socket.socket]) -> None:
    with Connection(pair[0]) as connection:
        sending = asyncio.create_task(connection.send(frames.encode(FrameType.STDIN, FILLS_ANY_SOCKET)))
        await asyncio.sleep(0)
        pair[1].close()
        async with asyncio.timeout(60):
            with pytest.raises(GuestFailed, match="gone"):
                await sending


async def test_closing_ends_a_waiting_receive(pair: tuple[socket.socket, socket.socket]) -> None:
    closed: list[bool] = []
    connection = Connection(pair[0])
    connection.on_close = lambda: closed.append(True)
    receiving = asyncio.create_task(connection.receive())
    await asyncio.sleep(0)
    connection.close()
    connection.close()
    with pytest.raises(GuestFailed, match="gone"):
        await receiving
    assert closed == [True]


async def test_two_receivers_are_a_mistake_of_ours(pair: tuple[socket.socket, socket.socket]) -> None:
    with Connection(pair[0]) as connection:
        first = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await connection.receive()
        pair[1].send(frames.encode(FrameType.KILL))
        assert await first == Frame(FrameType.KILL, b"")


async def test_a_clean_end_between_frames_is_none_and_stays_so(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].send(frames.encode_exit(0))
    pair[1].close()
    with Connection(pair[0]) as connection:
        assert await connection.receive() == Frame(FrameType.EXIT, b"\0\0\0\0")
        assert await connection.receive() is None
        assert await connection.receive() is None
        with pytest.raises(GuestFailed, match="too early"):
            await connection.expect(FrameType.EXIT)


async def test_unknown_types_and_probes_are_skipped(pair: tuple[socket.socket, socket.socket]) -> None:
    for frame_type in (0xEE, FrameType.PROBE, 0x00, FrameType.EXIT):
        pair[1].send(frames.encode(frame_type, b"x"))
    with Connection(pair[0]) as connection:
        assert await connection.expect(FrameType.EXIT) == Frame(FrameType.EXIT, b"x")


async def test_an_error_frame_is_raised_as_what_it_says(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].send(frames.encode_error("session not found"))
    with Connection(pair[0]) as connection, pytest.raises(NotFound):
        await connection.expect(FrameType.SESSION_INFO)


async def test_many_frames_at_hand_let_other_tasks_have_their_turns(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].send(frames.encode(FrameType.STDOUT) * FRAMES_PER_TURN * 4)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with Connection(pair[0]) as connection:
        await connection.receive()
        counter = asyncio.create_task(count())
        for _ in range(FRAMES_PER_TURN * 3):
            await connection.receive()
        counter.cancel()
    assert turns >= 2


async def test_raw_bytes_behind_a_frame_are_kept_and_handed_over(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].send(frames.encode(FrameType.FWD_RESP, b"{}") + b"early")
    connection = Connection(pair[0])
    await connection.expect(FrameType.FWD_RESP)
    handed_over, early = connection.detach()
    with handed_over:
        assert early == b"early"
        pair[1].send(b"late")
        assert await asyncio.get_running_loop().sock_recv(handed_over, 10) == b"late"
    with pytest.raises(GuestFailed, match="gone"):
        connection.detach()


async def test_raw_bytes_arrive_in_order_up_to_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].send(frames.encode(FrameType.FWD_RESP, b"{}") + b"one")
    with Connection(pair[0]) as connection:
        await connection.expect(FrameType.FWD_RESP)
        assert await connection.receive_raw() == b"one"
        assert not connection.is_readable()
        pair[1].send(b"two")
        assert connection.is_readable()
        assert await connection.receive_raw() == b"two"
        connection.end_write()
        assert pair[1].recv(10) == b""
        pair[1].close()
        assert connection.is_readable()
        assert await connection.receive_raw() == b""


async def test_the_socket_may_have_any_number(pair: tuple[socket.socket, socket.socket]) -> None:
    number = 2000  # beyond what select(2) takes
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], number + 100), limits[1]))
    try:
        sock = socket.socket(fileno=fcntl.fcntl(pair[0], fcntl.F_DUPFD_CLOEXEC, number))
        sock.setblocking(False)
        with Connection(sock) as connection:
            assert not connection.is_readable()
            pair[1].send(b"x")
            assert connection.is_readable()
            assert await connection.receive_raw() == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
