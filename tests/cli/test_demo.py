"""`hearth demo` at a real daemon: what it shows, and that nothing of it is left whichever way it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from tests.cli.gate import gate_before
from tests.server.daemon import RunningDaemon, run_cli

from hearth.cli.commands.demo import PROGRAMS, Program, carry_out, destroy
from hearth.errors import GuestFailed, HearthError, NotFound, StartFailed
from hearth.sdk.client import Client, Sandbox

END_S = 120
GONE = "nothing is left behind"


def demo_sandboxes(client: Client) -> list[str]:
    return [sandbox.name for sandbox in client.list() if sandbox.name.startswith("demo-")]


def test_the_demo_shows_every_program_and_leaves_nothing(daemon: RunningDaemon, client: Client) -> None:
    done = run_cli(daemon.environment, "demo")
    out = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(f"▸ {program.title}" in out for program in PROGRAMS)
    assert "669 primes below 5000, the last is 4999" in out
    assert "┃ and this is stderr" in out
    assert GONE in out.splitlines()[-1]
    assert demo_sandboxes(client) == []


def test_an_interrupt_while_the_sandbox_is_made_leaves_none(daemon: RunningDaemon, client: Client) -> None:
    with gate_before(daemon.data.api_socket, "/sandboxes") as gate:
        environment = {**daemon.environment, "HEARTH_URL": gate.url, "HEARTH_TOKEN": daemon.token}
        with subprocess.Popen(
            [sys.executable, "-m", "hearth.cli", "demo"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert gate.reached.wait(END_S)
            assert len(demo_sandboxes(client)) == 1
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=END_S)
    assert (process.returncode, err) == (130, b"")
    assert GONE not in out.decode()
    assert demo_sandboxes(client) == []


def test_an_image_that_is_not_there_fails_the_demo(daemon: RunningDaemon, client: Client) -> None:
    done = run_cli(daemon.environment, "demo", "--image", "nosuch")
    assert done.returncode == 1
    assert b"nosuch" in done.stderr
    assert b"Traceback" not in done.stderr
    assert GONE not in done.stdout.decode()


@pytest.mark.parametrize(
    ("command", "expected", "kind", "said"),
    [
        (("sh", "-c", "exit 3"), 0, GuestFailed, "sh ended with 3, not with 0"),
        (("true",), 7, GuestFailed, "true ended with 0, not with 7"),
        (("no-such-python3",), 0, StartFailed, "No such file"),
    ],
)
def test_a_program_that_does_not_do_its_part_fails_the_demo(
    sandbox: Sandbox, command: tuple[str, ...], expected: int, kind: type[HearthError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        carry_out(sandbox, Program(title="a program", command=command, exit_code=expected))


def test_what_was_never_made_is_gone(client: Client) -> None:
    destroy(client, "demo-never-made")
    made = client.create(name="demo-made")
    destroy(client, "demo-made")
    with pytest.raises(NotFound):
        client.get(made.id)
