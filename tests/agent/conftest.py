"""The agent as a real process in test mode, and the proof that it left nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tests.agent.client import Client

from hearth.agent.seal import REFUSAL

START_TIMEOUT_S = 240.0
MACHINE_AGENT = os.environ.get("HEARTH_TEST_AGENT", "")
"""``HOST:PORT HOST:PORT`` of the agent of the machine that these tests run in; see test_suite_in_machine.py."""


class AgentProcess:
    """A running agent, its client and what it said on stderr; the process is None for the agent of a machine."""

    def __init__(self, process: subprocess.Popen[bytes] | None, client: Client, said: bytes) -> None:
        self.process = process
        self.client = client
        self.said = said

    @property
    def pid(self) -> int:
        if self.process is None:
            pytest.skip("looks into the agent's process, which is root's in a machine")
        return self.process.pid

    def children(self) -> list[int]:
        """Give the pids of the agent's living children (Linux)."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                found += [int(pid) for pid in (task / "children").read_text().split()]
        return found

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def status(self, field: str) -> int:
        """Give a number of /proc/PID/status, memory in KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
        raise KeyError(field)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait for a state of the operating system that nothing announces."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.005)


@contextmanager
def running_agent(*arguments: str, token: str | None = None, inside: Sequence[str] = ()) -> Iterator[AgentProcess]:
    """Start an agent, wait for its line, end it by pid; it must leave no child and no socket, and import nothing.

    ``inside`` is what executes it somewhere else, such as in a network namespace.
    """
    if MACHINE_AGENT:
        pytest.skip("needs an agent of its own, or a test mode that leaves the system alone")
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ha-"))
        elsewhere = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ha-cwd-")
        )  # what fuzzing names is made here
        control, forward = f"{directory}/c", f"{directory}/f"
        process = subprocess.Popen(
            [
                *inside,
                sys.executable,
                "-m",
                "hearth.agent",
                "--listen",
                f"unix:{control}",
                "--forward",
                f"unix:{forward}",
            ]
            + ([] if token is None else ["--token", token])
            + list(arguments),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=elsewhere,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stderr is not None
        readable, _, _ = select.select([process.stderr], [], [], START_TIMEOUT_S)
        assert readable, "the agent did not say that it listens"
        agent = AgentProcess(process, Client(control, forward, token), process.stderr.readline())
        assert b"listening" in agent.said, agent.said + process.stderr.read()
        yield agent
        children = agent.children() if sys.platform == "linux" else []
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=START_TIMEOUT_S)
        agent.said += rest
        assert process.returncode == 0, agent.said
        assert REFUSAL.encode() not in agent.said, agent.said
        assert b"internal error" not in agent.said, agent.said
        assert b"thread ended" not in agent.said, agent.said
        assert "--root" in arguments or not list(Path(directory).iterdir())  # locked in, it cannot reach them
        for pid in children:
            wait_until(lambda pid=pid: not is_running(pid), f"child {pid} gone")  # type: ignore[misc]


def is_running(pid: int) -> bool:
    """True while a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture(scope="session")
def agent() -> Iterator[AgentProcess]:
    """One agent for all tests that do not need one of their own."""
    if MACHINE_AGENT:
        control, forward = (address.rpartition(":") for address in MACHINE_AGENT.split())
        yield AgentProcess(None, Client((control[0], int(control[2])), (forward[0], int(forward[2]))), b"")
        return
    with running_agent() as running:
        yield running


@pytest.fixture
def client(agent: AgentProcess) -> Client:
    return agent.client


@pytest.fixture
def in_test_mode() -> None:
    """Skip a test that would change the machine it runs in."""
    if MACHINE_AGENT:
        pytest.skip("in a machine CONFIGURE sets clock, name and token: see test_machine.py")
