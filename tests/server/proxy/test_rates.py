"""Who asks too often is told to wait, whoever he says he is; nobody else is. Bounds of a few requests, so that no load
of the machine can keep them from being reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator

import pytest
from tests.control.conftest import House, data, house, opened

from hearth.control.buckets import PublicRates, Rate
from hearth.server.app import observed
from hearth.server.proxy.options import PublicOptions
from hearth.server.proxy.public import Gateway
from hearth.server.proxy.serving import PublicServer
from hearth.server.proxy.trust import Trust, read_networks

__all__ = ["data", "house", "opened"]
BURST = 5
ZONE = "boxes.example"
pytestmark = pytest.mark.daemon


@contextlib.asynccontextmanager
async def public(house: House, *trusted: str) -> AsyncIterator[int]:
    """Serve a real daemon's public with room for a few requests of each address; gives its port."""
    rates = PublicRates(address=Rate(per_s=0.001, burst=BURST))
    gateway = Gateway(house.daemon, Trust(networks=read_networks(trusted)), rates=rates)
    server = PublicServer(observed(gateway.gate(ZONE)), PublicOptions(), None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]), name="server")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task
            await gateway.close()


async def asked(port: int, told: str | None = None) -> tuple[int, str | None]:
    """Ask for nothing that is published; gives the status and when to come again."""

    def ask() -> tuple[int, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            fields = {} if told is None else {"X-Forwarded-For": told}
            connection.request("GET", "/", headers={"Host": f"nothing.{ZONE}", **fields})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("retry-after")

    return await asyncio.to_thread(ask)


async def test_one_address_that_floods_is_told_to_wait_whatever_it_says(house: House) -> None:
    async with public(house) as port:
        for number in range(BURST):
            assert await asked(port, f"203.0.113.{number}") == (404, None)
        assert await asked(port, "203.0.113.99") == (429, "1")
        assert await asked(port) == (429, "1")


async def test_behind_a_trusted_proxy_each_client_has_a_bucket_of_its_own(house: House) -> None:
    async with public(house, "127.0.0.0/8") as port:
        for number in range(BURST):
            assert await asked(port, f"6.6.6.{number}, 203.0.113.9, 127.0.0.9") == (404, None)
        assert await asked(port, "203.0.113.9") == (429, "1")
        assert await asked(port, "203.0.113.10, 127.0.0.9") == (404, None)
