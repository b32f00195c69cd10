"""An agent that dies below its supervisor: what it ran ends, the next one goes on, and nothing runs twice.

The supervisor is PID 1's own loop in an ordinary process that adopts orphans, as PID 1 does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client, Closed, Result
from tests.agent.conftest import is_running, wait_until
from tests.agent.services.test_sessions import listed
from tests.agent.services.test_system import configure

from hearth.agent.handover import Handover
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_CHILD_SUBREAPER is Linux's")

SUPERVISOR = """
import ctypes, sys
from hearth.agent.bringup.supervise import supervise
from hearth.agent.handover import Handover
from hearth.agent.options import parse
from hearth.agent.process import run
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
handover = Handover()
supervise(lambda: run(parse(sys.argv[1:]), handover=handover), lambda text: print(text, flush=True), handover)
"""


class Supervised:
    """A supervisor and a client of the agent it runs at the moment."""

    def __init__(self, process: subprocess.Popen[bytes], client: Client, said: Path) -> None:
        self.process = process
        self.client = client
        self.said = said

    @property
    def agent(self) -> int:
        """The pid of the agent: the one child that is a Python like the supervisor."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        command = Path(f"/proc/{self.process.pid}/cmdline").read_bytes()
        [agent] = [int(pid) for pid in children if _command_line(pid) == command]
        return agent

    def serves(self) -> bool:
        try:
            return self.client.run("true").exit_code == 0
        except (OSError, Closed):
            return False

    def kill_agent(self) -> None:
        """Kill the agent and wait until another one serves."""
        old = self.agent
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: not is_running(old) and self.serves(), "another agent")


def _command_line(pid: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextmanager
def supervised() -> Iterator[Supervised]:
    with tempfile.TemporaryDirectory(prefix="ha-") as directory:
        control, forward = f"{directory}/c", f"{directory}/f"
        command = [sys.executable, "-c", SUPERVISOR, "--listen", f"unix:{control}", "--forward", f"unix:{forward}"]
        said = Path(directory) / "said"
        with said.open("wb") as output, subprocess.Popen(command, stderr=output, stdout=output) as process:
            running = Supervised(process, Client(control, forward), said)
            try:
                wait_until(running.serves, "the first agent")
                yield running
            finally:
                agent = running.agent
                process.kill()
                os.kill(agent, signal.SIGTERM)  # which ends what it runs
                wait_until(lambda: not is_running(agent), "the agent gone")


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_dead_agents_init_script_ends_and_the_next_agent_starts_it_once(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with supervised() as running:
        configure(running.client, init=f"echo $$ >> {pids}; exec sleep 1000", token="t", env={"A": "1"})
        running.client.token = "t"
        for count in (1, 2, 3):
            wait_until(lambda count=count: len(pids_in(pids)) == count, "the script's start")  # type: ignore[misc]
            assert [is_running(pid) for pid in pids_in(pids)] == [False] * (count - 1) + [True]
            assert listed(running.client)["init"].running
            if count < 3:
                running.kill_agent()


def test_the_next_agent_keeps_token_and_environment() -> None:
    with supervised() as running:
        configure(running.client, token="t", env={"A": "1"})
        running.client.token = "t"
        running.kill_agent()
        assert running.client.run("sh", "-c", "echo $A").stdout == b"1\n"
        running.client.token = None
        with pytest.raises(AgentError, match=r"^auth required$"):
            running.client.run("true")


def test_all_that_a_dead_agent_ran_ends_with_it() -> None:
    with supervised() as running:
        client, script = running.client, "sleep 100 & echo $!; wait"
        plain = client.start(ExecRequest(argv=["sh", "-c", script]))
        session, _ = client.session("sh", "-c", script)
        pids = [int(wire.read_until(lambda data: data.endswith(b"\n"))) for wire in (plain, session)]
        with client.start(ExecRequest(argv=["sleep", "100"], detach=True)) as wire:
            wire.expect(FrameType.STDOUT)
        done = client.start(ExecRequest(argv=["sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!"]))
        survivor = int(Result(done).stdout)
        running.kill_agent()
        for wire in (plain, session, done):
            wire.close()
        for pid in pids:
            wait_until(lambda pid=pid: not is_running(pid), "grandchild killed")  # type: ignore[misc]
        assert listed(client) == {}
        assert is_running(survivor), "what a command that has ended left behind is nobody's to end"
        os.kill(survivor, signal.SIGKILL)
        assert b"and 3 process groups with it" in running.said.read_bytes()


def test_places_of_groups_that_ended_are_used_again() -> None:
    handover = Handover()
    sleepers = [subprocess.Popen(["sleep", "100"], process_group=0) for _ in range(4)]
    try:
        for sleeper in sleepers:
            handover.add_group(sleeper.pid)
        for sleeper in sleepers[:2]:
            handover.remove_group(sleeper.pid)
        handover.add_group(sleepers[0].pid)
        assert handover.end_groups() == 3
        assert handover.end_groups() == 0
        assert [sleeper.poll() for sleeper in sleepers[1:2]] == [None]
        assert [sleepers[number].wait(60) for number in (0, 2, 3)] == [-signal.SIGKILL] * 3
    finally:
        handover.close()
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
