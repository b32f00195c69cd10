"""Input of commands over real pipes and sockets: bounded, in order, closed behind the last of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from hearth.agent.command_input import PIPE_BYTES, CommandInput
from hearth.agent.connection import Connection, PeerGone
from hearth.wire.frames import Frame, FrameType, encode

MIB = 1 << 20


@pytest.fixture
def pipe() -> Iterator[tuple[int, CommandInput]]:
    """Give the end that a command reads, which does not block here, and the input into it."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    given = CommandInput(writing)
    try:
        yield reading, given
    finally:
        given.close()
        os.close(reading)


def take(reading: int, given: CommandInput) -> bytes:
    """Read until the input is closed, as a command would that takes what is there."""
    taken = bytearray()
    while True:
        try:
            if not (data := os.read(reading, PIPE_BYTES)):
                return bytes(taken)
            taken += data
        except BlockingIOError:
            given.write()


def test_what_a_pipe_does_not_hold_waits_and_comes_in_order(pipe: tuple[int, CommandInput]) -> None:
    reading, given = pipe
    data = os.urandom(3 * PIPE_BYTES + 7)
    given.add(data[:9])
    given.write()
    waiting = [given.waiting_pipe is not None]
    given.add(data[9:])
    given.write()
    waiting.append(given.waiting_pipe is not None)
    given.ended = True
    given.add(b"too late")
    assert take(reading, given) == data
    waiting.append(given.waiting_pipe is not None)
    assert waiting == [False, True, False]


def test_a_command_that_closed_its_input_gets_no_more_and_nothing_is_kept_for_it() -> None:
    reading, writing = os.pipe()
    given = CommandInput(writing)
    os.close(reading)
    given.add(b"x" * 2 * MIB)
    assert given.is_full
    given.write()
    given.add(b"x")
    assert (given.is_full, given.waiting_pipe) == (False, None)
    given.write()
    given.close()


def test_frames_that_do_not_fit_stay_until_the_command_takes_some(pipe: tuple[int, CommandInput]) -> None:
    reading, given = pipe
    ours, theirs = socket.socketpair()
    frames: list[Frame] = []

    def on_frame(frame: Frame) -> None:
        frames.append(frame)
        given.add(frame.payload)

    with closing(ours), closing(theirs):
        connection = Connection(ours)
        for number in range(40):
            theirs.sendall(encode(FrameType.STDIN, bytes([number]) * 32_768))
            connection.fill()
        given.take_frames(connection, on_frame)
        held = len(frames)
        assert given.is_full and held == (MIB + PIPE_BYTES) // 32_768
        assert os.read(reading, PIPE_BYTES)
        given.take_frames(connection, on_frame)
        assert given.is_full and len(frames) == held + 2


def test_a_client_that_breaks_the_protocol_is_gone(pipe: tuple[int, CommandInput]) -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        connection = Connection(ours)
        theirs.sendall(b"\0\0\0\0\0")
        connection.fill()
        with pytest.raises(PeerGone):
            pipe[1].take_frames(connection, lambda frame: None)
