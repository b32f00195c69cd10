"""The blocking SDK at a real daemon."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.server.daemon import RunningDaemon

from hearth.errors import Conflict, InvalidInput, NotFound, StartFailed, TimedOut, Unauthenticated
from hearth.sdk import Client, CommandFailed, Output, Sandbox


def test_a_sandbox_lives_as_long_as_its_context(client: Client) -> None:
    with Sandbox.create(client, name="short", labels={"kind": "test"}, cpus=1) as sandbox:
        assert (sandbox.name, sandbox.view.state, sandbox.view.labels) == ("short", "running", {"kind": "test"})
        assert client.get(sandbox.id).view.id == client.get("short").view.id == sandbox.id
    with pytest.raises(NotFound):
        client.get("short")


def test_the_same_name_gives_the_same_sandbox(client: Client, sandbox: Sandbox) -> None:
    assert client.create(name="shared").id == sandbox.id


def test_without_a_name_the_daemon_makes_one(client: Client) -> None:
    with client.create() as sandbox:
        assert len(sandbox.name.split("-")) == 3


def test_creation_tells_what_each_step_took(sandbox: Sandbox) -> None:
    assert sandbox.view.timings
    assert all(timing.duration_ms >= 0 for timing in sandbox.view.timings)


def test_a_list_holds_what_carries_the_labels(client: Client, sandbox: Sandbox) -> None:
    with client.create(labels={"a": "1", "b": "2"}) as labelled:
        assert {each.id for each in client.list()} >= {sandbox.id, labelled.id}
        assert [each.id for each in client.list({"a": "1", "b": "2"})] == [labelled.id]
        assert client.list({"a": "2"}) == []


def test_a_command_gives_a_result_whatever_its_exit_code(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin=b"in\xff")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (3, b"in\xff", "no\n")
    with pytest.raises(CommandFailed, match="exit code 3: no"):
        result.check()


def test_a_stream_gives_its_pieces_and_then_the_exit_code(sandbox: Sandbox) -> None:
    with sandbox.stream(["sh", "-c", "echo a; exit 5"]) as running:
        assert list(running) == [Output(stream="stdout", data=b"a\n")]
        assert running.exit_code == 5


def test_leaving_a_stream_leaves_the_client_usable(client: Client, sandbox: Sandbox) -> None:
    with client.stream(sandbox.id, ["sh", "-c", "echo a; sleep 1000"]) as running:
        next(iter(running))
    assert client.run(sandbox.id, ["true"]).exit_code == 0


def test_errors_of_the_daemon_are_errors_of_their_class(
    client: Client, sandbox: Sandbox, daemon: RunningDaemon
) -> None:
    with pytest.raises(StartFailed):
        sandbox.run(["/nonexistent"])
    with pytest.raises(TimedOut):
        sandbox.run(["sleep", "1000"], timeout_sec=1)
    with pytest.raises(NotFound, match="nosuch"):
        client.create(image="nosuch")
    with pytest.raises(NotFound), client.stream("nosuch", ["true"]):
        pass
    with pytest.raises(InvalidInput, match="cpus"):
        client.create(cpus=64)
    with Client(daemon.url, "hk_wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.list()


def test_images_and_health_are_told(client: Client) -> None:
    assert {image.name for image in client.images.list()} == {"kernel", "agent", "debian"}
    assert client.health().status == "healthy"


def test_the_blocking_client_loads_neither_asyncio_nor_the_server() -> None:
    heavy = "{'asyncio', 'starlette', 'httpcore', 'rich'}"
    script = f"import sys, hearth.sdk.client; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == ""


def test_a_conflict_is_not_swallowed_by_the_context(client: Client) -> None:
    with pytest.raises(Conflict, match="mine"), client.create():
        raise Conflict("mine")
