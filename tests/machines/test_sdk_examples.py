"""Examples in the SDK's docstrings that need machines which sleep, copy and take volumes; the others run without.

Of the two halves of the SDK one class each: the text of the other is made of the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.sdk.examples import Operation, carry_out, operations
from tests.server.daemon import RunningDaemon

from hearth.sdk import AsyncClient, AsyncSandbox, Client
from hearth.sdk.images import Images


@pytest.fixture(scope="module")
def web(house: RunningDaemon) -> Iterator[RunningDaemon]:
    with house.client() as client, client.create(name="web"):
        yield house


@pytest.mark.parametrize("operation", [each for each in operations(Client, Images) if each.needs_machine], ids=str)
def test_what_an_example_shows_is_so(web: RunningDaemon, operation: Operation) -> None:
    with web.client() as client:
        carry_out(operation, {"client": client}, wait=lambda _: pytest.fail("a blocking example awaits something"))
        client.start("web")  # whatever was shown: namespaces come and go with its sleep, and are counted


@pytest.mark.parametrize("operation", [each for each in operations(AsyncSandbox) if each.needs_machine], ids=str)
def test_what_an_asynchronous_example_shows_is_so(web: RunningDaemon, operation: Operation) -> None:
    with asyncio.Runner() as runner:
        client = AsyncClient(web.url, web.token)
        try:
            carry_out(operation, {"client": client, "sandbox": runner.run(client.get("web"))}, wait=runner.run)
        finally:
            runner.run(client.close())
