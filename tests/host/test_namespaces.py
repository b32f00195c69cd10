from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hearth.errors import Conflict
from hearth.host import namespaces, netlink

pytestmark = pytest.mark.root


def inode() -> int:
    """Tell which network namespace this thread is in."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def nothing(_result: object) -> None:
    """Discard what owns nothing."""


def raise_loopback() -> None:
    with netlink.RouteSocket() as route:
        route.ask(netlink.bring_up(socket.if_nametoindex("lo")))


@pytest.fixture
async def name() -> AsyncIterator[str]:
    chosen = f"hearth-test-{secrets.token_hex(4)}"
    yield chosen
    await namespaces.delete(chosen)


async def test_a_namespace_is_made_entered_listed_and_removed_while_we_stay_where_we_are(name: str) -> None:
    ours = inode()
    made_in = await namespaces.create(name, inode, discard=nothing)
    assert made_in != ours
    assert inode() == ours
    assert await namespaces.enter(name, inode, discard=nothing) == made_in
    assert inode() == ours
    assert namespaces.list_names("hearth-test-") == {name}
    assert namespaces.list_names("hearth-other-") == set()
    await namespaces.delete(name)
    assert namespaces.list_names("hearth-test-") == set()


async def test_removing_what_is_not_there_is_fine(name: str) -> None:
    await namespaces.delete(name)
    await namespaces.delete(name)


async def test_a_half_made_name_is_listed_and_removed(name: str) -> None:
    namespaces.RUN.mkdir(exist_ok=True)
    (namespaces.RUN / name).touch()
    assert name in namespaces.list_names("hearth-test-")
    await namespaces.delete(name)
    assert name not in namespaces.list_names("hearth-test-")


async def test_a_taken_name_is_a_conflict_and_stays_as_it_was(name: str) -> None:
    first = await namespaces.create(name, inode, discard=nothing)
    with pytest.raises(Conflict, match=name):
        await namespaces.create(name, inode, discard=nothing)
    assert await namespaces.enter(name, inode, discard=nothing) == first


async def test_a_failed_configuration_leaves_no_namespace(name: str) -> None:
    def fail() -> None:
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        await namespaces.create(name, fail, discard=nothing)
    assert namespaces.list_names("hearth-test-") == set()


async def test_a_cancelled_creation_leaves_neither_namespace_nor_descriptor(name: str) -> None:
    task = asyncio.create_task(namespaces.create(name, lambda: os.open("/dev/null", os.O_RDONLY), discard=os.close))
    await asyncio.sleep(0)  # it has begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert namespaces.list_names("hearth-test-") == set()


async def test_entering_a_missing_namespace_says_so(name: str) -> None:
    with pytest.raises(FileNotFoundError):
        await namespaces.enter(name, inode, discard=nothing)


async def test_a_socket_connects_inside_the_namespace_and_not_outside(name: str) -> None:
    def listen() -> socket.socket:
        raise_loopback()
        return socket.create_server(("127.0.0.1", 0))

    server = await namespaces.create(name, listen, discard=socket.socket.close)
    with server:
        port = server.getsockname()[1]
        client = await namespaces.connect_in(name, ("127.0.0.1", port), 5.0)
        with client:
            assert client.getblocking() is False
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"from within")
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b"from within"
        with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
            outside.connect(("127.0.0.1", port))


async def test_a_refused_connection_is_told_at_once(name: str) -> None:
    await namespaces.create(name, raise_loopback, discard=nothing)
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionRefusedError):
            await namespaces.connect_in(name, ("127.0.0.1", 9), 30.0)


async def test_an_address_without_a_way_to_it_is_unreachable(name: str) -> None:
    await namespaces.create(name, raise_loopback, discard=nothing)
    with pytest.raises(OSError, match="unreachable"):
        await namespaces.connect_in(name, ("192.0.2.1", 9), 30.0)


async def test_forty_at_once_do_not_mix(name: str) -> None:
    names = [f"{name}-{number}" for number in range(40)]
    try:
        made = await asyncio.gather(*(namespaces.create(each, inode, discard=nothing) for each in names))
        entered = await asyncio.gather(*(namespaces.enter(each, inode, discard=nothing) for each in names))
        assert entered == made
        assert len(set(made)) == 40
    finally:
        await asyncio.gather(*(namespaces.delete(each) for each in names))
