"""Every operation of the SDK has an example in its docstring, and it does what it says; here with bare agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.examples import ASYNCHRONOUS, BLOCKING, PAGE, Operation, carry_out, operations, page
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.sdk import AsyncClient, AsyncSandbox, Result, Sandbox
from hearth.sdk.client import Client


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon of its own: examples tell what is there, and others' sandboxes are not. It asks no registry."""
    golden = ("--image-directories", str(tmp_path_factory.getbasetemp()), "--registry-only", "127.0.0.1:1")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *golden) as running, running.client() as client, client.create(name="web"):
            yield running


@pytest.mark.parametrize("operation", operations(*BLOCKING, *ASYNCHRONOUS), ids=str)
def test_every_operation_has_an_example(operation: Operation) -> None:
    assert operation.examples, f"the docstring of {operation} shows no example"


def test_the_list_of_operations_is_as_they_are() -> None:
    assert PAGE.read_text() == page(), "run 'make twins'"


@pytest.mark.parametrize("operation", [each for each in operations(*BLOCKING) if not each.needs_machine], ids=str)
def test_what_an_example_shows_is_so(daemon: RunningDaemon, tmp_path: Path, operation: Operation) -> None:
    with daemon.client() as client, Client(daemon.url, daemon.token) as other:
        names = {"client": client, "sandbox": other.get("web"), "Sandbox": Sandbox, "Result": Result, "here": tmp_path}
        carry_out(operation, names, wait=lambda _: pytest.fail("a blocking example awaits something"))


@pytest.mark.parametrize("operation", [each for each in operations(*ASYNCHRONOUS) if not each.needs_machine], ids=str)
def test_what_an_asynchronous_example_shows_is_so(daemon: RunningDaemon, tmp_path: Path, operation: Operation) -> None:
    with asyncio.Runner() as runner:
        client, other = AsyncClient(daemon.url, daemon.token), AsyncClient(daemon.url, daemon.token)
        try:
            names = {
                "client": client,
                "sandbox": runner.run(other.get("web")),
                "AsyncSandbox": AsyncSandbox,
                "here": tmp_path,
            }
            carry_out(operation, names, wait=runner.run)
        finally:
            runner.run(client.close())
            runner.run(other.close())
