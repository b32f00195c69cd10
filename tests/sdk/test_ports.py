"""Forwarding through the daemon, from both clients: many connections, clean ends, errors told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.proxy.stage import read_rest, serving

from hearth.errors import HearthError, InvalidInput, NotFound, Unavailable
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client, Sandbox

WAIT_S = 60


def digest(connection: socket.socket) -> None:
    """Answer with the digest of everything that came, once its end has come."""
    connection.sendall(hashlib.sha256(read_rest(connection)).digest())


@contextlib.contextmanager
def dialled(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, WAIT_S) as connection:
        yield connection


def test_bytes_go_there_and_back_and_either_way_ends_alone(client: Client, sandbox: Sandbox) -> None:
    data = os.urandom(3_000_000)
    with serving(digest) as server, client.ports.forward(sandbox.name, server.port) as address:
        assert address[0] == "127.0.0.1"
        with dialled(address) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert read_rest(connection) == hashlib.sha256(data).digest()


def test_many_connections_at_once(client: Client, sandbox: Sandbox) -> None:
    with (
        serving(digest) as server,
        client.ports.forward(sandbox.name, server.port) as address,
        contextlib.ExitStack() as open_ones,
    ):
        connections = [open_ones.enter_context(dialled(address)) for _ in range(60)]
        for number, connection in enumerate(connections):
            connection.sendall(str(number).encode())
        for number, connection in reversed(list(enumerate(connections))):
            connection.shutdown(socket.SHUT_WR)
            assert read_rest(connection) == hashlib.sha256(str(number).encode()).digest()


def test_the_end_of_forwarding_ends_its_connections_and_frees_the_port(client: Client, sandbox: Sandbox) -> None:
    with serving(digest, is_ended_by_peer=True) as server:
        with client.ports.forward(sandbox.name, server.port) as address:
            lasting = socket.create_connection(address, WAIT_S)
            lasting.sendall(b"x")
            assert server.accepted.acquire(timeout=WAIT_S)
        with lasting:
            assert read_rest(lasting) in (b"", hashlib.sha256(b"x").digest())
        with client.ports.forward(sandbox.name, server.port, local=address[1]) as again:
            assert again == address
            with (
                pytest.raises(Unavailable, match="cannot listen"),
                client.ports.forward(sandbox.name, server.port, local=address[1]),
            ):
                pass


@pytest.mark.parametrize("ref", ["nosuch", "shared"])
def test_a_connection_that_leads_nowhere_is_closed_and_told(client: Client, sandbox: Sandbox, ref: str) -> None:
    told: list[HearthError] = []
    heard = threading.Event()

    def on_refusal(error: HearthError) -> None:
        told.append(error)
        heard.set()

    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with client.ports.forward(ref, port, on_refusal=on_refusal) as address, dialled(address) as connection:
            assert read_rest(connection) == b""
            assert heard.wait(WAIT_S)
    assert isinstance(told[0], NotFound) if ref == "nosuch" else "nothing answers" in told[0].brief


async def test_the_asynchronous_client_forwards_too(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    with serving(digest) as server:
        async with (
            AsyncClient(daemon.url, daemon.token) as client,
            client.ports.forward(sandbox.name, server.port) as (host, port),
            asyncio.timeout(WAIT_S),
        ):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == hashlib.sha256(b"hello").digest()
            writer.close()
            await writer.wait_closed()
            assert server.port in [each.port for each in await client.ports.of(sandbox.name)]
            assert server.port in [each.port for each in (await client.ports.every()).items]
            made = await client.ports.publish(sandbox.name, server.port, alias="async")
            assert list(await client.ports.published(sandbox.name)) == [made]
            await client.ports.unpublish(sandbox.name, server.port)


def test_ports_are_checked_before_anything_travels(client: Client) -> None:
    with pytest.raises(InvalidInput, match="port"):
        client.ports.publish("web", 0)
    with pytest.raises(InvalidInput, match="port"):
        client.ports.unpublish("web", 65_536)
    with pytest.raises(InvalidInput, match="port"), client.ports.forward("web", 0):
        pass
