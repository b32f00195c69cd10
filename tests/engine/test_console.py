"""The console keeps a machine's last words and nothing that could hurt their reader."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from hearth.engine.console import KEPT_BYTES, Console


@pytest.fixture
async def ends() -> AsyncIterator[tuple[socket.socket, Console]]:
    guest, host = socket.socketpair()
    host.setblocking(False)
    guest.setblocking(False)
    console = Console(host)
    try:
        yield guest, console
    finally:
        await console.close()
        guest.close()


async def test_what_was_printed_is_told_by_lines(ends: tuple[socket.socket, Console]) -> None:
    guest, console = ends
    guest.send(b"one\r\n\r\ntwo\nthree\n")

    assert await console.wait_for("three")
    assert console.tail(2) == "two\nthree"


async def test_a_flood_costs_bounded_memory_and_keeps_the_end(ends: tuple[socket.socket, Console]) -> None:
    guest, console = ends
    loop = asyncio.get_running_loop()
    for number in range(64):
        await loop.sock_sendall(guest, b"%06d " % number * 4096)
    await loop.sock_sendall(guest, b"the end")

    assert await console.wait_for("the end")
    assert len(console.text()) <= KEPT_BYTES
    assert "000000" not in console.text()


async def test_escape_sequences_never_reach_the_reader(ends: tuple[socket.socket, Console]) -> None:
    guest, console = ends
    guest.send(b"\x1b]0;owned\x07\x1b[2Jhello\x00\xff\x9b31m done\n")

    assert await console.wait_for("done")
    assert console.text() == "]0;owned[2Jhello31m done\n"


async def test_waiting_ends_when_the_machine_does(ends: tuple[socket.socket, Console]) -> None:
    guest, console = ends
    waiting = asyncio.create_task(console.wait_for("never printed"))
    guest.send(b"last words")
    guest.close()

    async with asyncio.timeout(60):
        assert await waiting is False
    assert console.tail() == "last words"
