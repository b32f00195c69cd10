"""Clients that are slow, silent or gone: each is given up in bounded time, and no other has to wait for it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from tests.agent.client import AgentError, Result, Wire
from tests.agent.conftest import AgentProcess, is_running, running_agent, wait_until

from hearth.agent.patience import Patience
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, FileWriteRequest, TarWriteRequest, encode

LIMIT_S = 0.2
CONTROL_CONNECTIONS = 50
DRIP_PAUSE_S = 0.02
Start = Callable[[Wire], None]


@pytest.fixture(scope="module")
def hasty() -> Iterator[AgentProcess]:
    """An agent with little patience for requests: not to be sent one that is to be served."""
    with running_agent("--patience", f"request_s={LIMIT_S}") as agent:
        yield agent


@pytest.fixture(scope="module")
def hasty_for_bodies() -> Iterator[AgentProcess]:
    """An agent that waits for requests as any does, and hardly for bodies."""
    with running_agent("--patience", f"body_s={LIMIT_S}") as agent:
        yield agent


@contextmanager
def dripping(wire: Wire, data: bytes) -> Iterator[None]:
    """Send data a byte at a time from another thread, until it is all sent or refused."""
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            for byte in data:
                wire.socket.sendall(bytes([byte]))
                if over.wait(DRIP_PAUSE_S):
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def request_in_pieces(size: int) -> bytes:
    return frames.encode(FrameType.EXEC_REQ, encode(ExecRequest(argv=["x" * size])))


def test_a_request_that_drips_to_its_end_in_time_is_served(agent: AgentProcess) -> None:
    data = frames.encode(FrameType.EXEC_LIST_REQ)
    with agent.client.connect() as wire, dripping(wire, data):
        assert isinstance(json.loads(wire.expect(FrameType.EXEC_LIST_RESP)), list)


@pytest.mark.parametrize("sent", [0, 2, 5, 50], ids=["nothing", "half a header", "a header", "half a payload"])
def test_a_request_that_never_ends_is_given_up(hasty: AgentProcess, sent: int) -> None:
    started = time.monotonic()
    with hasty.client.connect() as wire:
        with suppress(BrokenPipeError):  # given up already: then nothing was sent
            wire.socket.sendall(request_in_pieces(100)[:sent])
        with pytest.raises(AgentError, match=rf"^protocol: no request within {LIMIT_S} s"):
            wire.read()
    assert time.monotonic() - started > LIMIT_S - 0.05


def test_a_request_that_drips_too_long_is_given_up(hasty: AgentProcess) -> None:
    with (
        hasty.client.connect() as wire,
        dripping(wire, request_in_pieces(1000)),
        pytest.raises(AgentError, match=r"^protocol: no request within"),
    ):
        wire.read()


def slow_clients(agent: AgentProcess, stack: ExitStack) -> list[Wire]:
    """Fill all places but two with clients that have sent a part of a request."""
    slow = []
    for number in range(CONTROL_CONNECTIONS - 2):
        wire = stack.enter_context(agent.client.connect())
        with suppress(BrokenPipeError):  # it was too slow already
            wire.socket.sendall(request_in_pieces(100)[: number % 12])
        slow.append(wire)
    return slow


def test_nobody_waits_until_slow_clients_are_given_up() -> None:
    with running_agent() as agent, ExitStack() as stack:
        slow = slow_clients(agent, stack)
        assert agent.client.run("echo", "served").stdout == b"served\n"
        answered, _, _ = select.select([wire.socket for wire in slow], [], [], 0)
        assert answered == []


def test_slow_clients_take_up_their_places_for_a_bounded_time(hasty: AgentProcess) -> None:
    for _ in range(2):
        with ExitStack() as stack:
            for wire in slow_clients(hasty, stack):
                with pytest.raises(AgentError, match=r"^protocol: no request within"):
                    wire.read()
        wait_until(lambda: connections_of(hasty) == 0, "their places free again")


def connections_of(agent: AgentProcess) -> int:
    """Count the connections that an agent has."""
    listening = 2
    return sum(1 for path in Path(f"/proc/{agent.pid}/fd").iterdir() if _leads_to_a_socket(path)) - listening


def _leads_to_a_socket(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return str(path.readlink()).startswith("socket:")
    return False


def begin_file(path: Path) -> Start:
    def begin(wire: Wire) -> None:
        wire.request(FrameType.FILE_WRITE_REQ, FileWriteRequest(path=str(path / "f"), size=1_000_000))

    return begin


def begin_archive(path: Path) -> Start:
    return lambda wire: wire.request(FrameType.TAR_WRITE_REQ, TarWriteRequest(path=str(path)))


@pytest.mark.parametrize("begin", [begin_file, begin_archive])
@pytest.mark.parametrize("body", ["nothing", "a piece", "half a frame"])
def test_a_body_that_stands_still_is_given_up(
    hasty_for_bodies: AgentProcess, tmp_path: Path, begin: Callable[[Path], Start], body: str
) -> None:
    data = {"nothing": b"", "a piece": frames.encode(FrameType.STDIN, bytes(512))}.get(body, b"\0\0\1\0\1abc")
    with hasty_for_bodies.client.connect() as wire:
        begin(tmp_path)(wire)
        with suppress(BrokenPipeError):  # given up already: it stood still before
            wire.socket.sendall(data)
        with pytest.raises(AgentError, match=r"^protocol: the body stood still"):
            wire.read()
    wait_until(lambda: list(tmp_path.iterdir()) == [], "the temporary removed")


@pytest.mark.parametrize("begin", [begin_file, begin_archive])
def test_a_body_of_tiny_frames_is_given_up(
    hasty_for_bodies: AgentProcess, tmp_path: Path, begin: Callable[[Path], Start]
) -> None:
    with hasty_for_bodies.client.connect() as wire:
        begin(tmp_path)(wire)
        with (
            dripping(wire, frames.encode(FrameType.STDIN, b"\0") * 1000),
            pytest.raises(AgentError, match=r"^protocol: the body stood still or dripped"),
        ):
            wire.read()


def test_an_ended_sessions_exit_code_is_kept_for_its_time_and_no_longer() -> None:
    kept_s = 3.0
    with running_agent("--patience", f"exited_kept_s={kept_s}") as agent:
        client = agent.client
        started = time.monotonic()
        wire, info = client.session("sh", "-c", "echo out; exit 6")
        with wire:
            assert Result(wire).exit_code == 6
        try:
            wire, again = client.attach(info.session_id)
        except AgentError:
            assert time.monotonic() - started > kept_s, "it was forgotten before its time"
        else:
            with wire:
                result = Result(wire)
            assert (again.running, again.exit_code, result.stdout, result.exit_code) == (False, 6, b"out\n", 6)
        wait_until(lambda: not client.ask(FrameType.EXEC_LIST_REQ, None, FrameType.EXEC_LIST_RESP), "forgotten")
        assert time.monotonic() - started > kept_s
        with pytest.raises(AgentError, match=r"^session not found$"):
            client.attach(info.session_id)


def test_every_exit_code_of_its_time_is_kept_and_the_last_outputs() -> None:
    with running_agent("--patience", "exited_kept_s=3600") as agent:
        client, count = agent.client, 30
        for number in range(count):
            wire, _ = client.session("sh", "-c", f"echo out; exit {number}")
            with wire:
                assert Result(wire).exit_code == number
        listed = client.ask(FrameType.EXEC_LIST_REQ, None, FrameType.EXEC_LIST_RESP)
        assert {info["session_id"]: info["exit_code"] for info in listed} == {
            f"s{number + 1}": number for number in range(count)
        }
        for session_id, output in (("s1", b""), (f"s{count}", b"out\n")):
            wire, info = client.attach(session_id)
            with wire:
                assert Result(wire).stdout == output
            assert info.exit_code == int(session_id[1:]) - 1


def test_the_times_that_the_protocol_fixes_are_the_defaults() -> None:
    patience = Patience()
    assert (patience.auth_s, patience.exited_kept_s) == (5.0, 30.0)
    assert (patience.request_s, patience.body_s, patience.peer_lost_s) == (30.0, 300.0, 60.0)


AGENT_ADDRESS, CLIENT_ADDRESS = "192.0.2.1", "192.0.2.2"
PORT = 1024
LOST_S = 2.0
CLIENT = """
import sys
from tests.agent.client import Client
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest
address = (sys.argv[1], int(sys.argv[2]))
wire = Client(address, address).start(ExecRequest(argv=["sh", "-c", sys.argv[3]]))
print(int(wire.read_until(lambda data: data.count(b"\\n") > 0).split()[0]), flush=True)
sys.stdin.read()
"""


class Link:
    """Two namespaces of their own, a cable between them; ``cut`` pulls it."""

    def __init__(self) -> None:
        self.agent_side, self.client_side = (f"ht-{side}-{uuid4().hex[:6]}" for side in "ac")

    def inside(self, namespace: str) -> list[str]:
        return ["ip", "netns", "exec", namespace]

    def make(self) -> None:
        for namespace in (self.agent_side, self.client_side):
            _ip("netns", "add", namespace)
        _ip("-n", self.agent_side, "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", self.client_side)
        for namespace, address in ((self.agent_side, AGENT_ADDRESS), (self.client_side, CLIENT_ADDRESS)):
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "v")
            for name in ("lo", "v"):
                _ip("-n", namespace, "link", "set", name, "up")

    def cut(self) -> None:
        """Drop every packet without a word, as a host does that is not there any more."""
        _ip("-n", self.agent_side, "neighbour", "replace", CLIENT_ADDRESS, "lladdr", "02:00:00:00:00:99", "dev", "v")

    def remove(self) -> None:
        for namespace in (self.agent_side, self.client_side):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def link() -> Iterator[Link]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    link = Link()
    try:
        link.make()
        yield link
    finally:
        link.remove()


@contextmanager
def client_behind(link: Link, script: str) -> Iterator[int]:
    """Run a client on the other side of the link; gives the pid of its command once that has said it."""
    command = [*link.inside(link.client_side), sys.executable, "-c", CLIENT, AGENT_ADDRESS, str(PORT), script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0]
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    "script", ["echo $$; exec sleep 100", "echo $$; exec cat /dev/zero"], ids=["idle", "with output under way"]
)
def test_a_peer_that_vanished_is_noticed_and_everything_of_it_freed(link: Link, script: str) -> None:
    arguments = ("--listen", f"tcp:{AGENT_ADDRESS}:{PORT}", "--patience", f"peer_lost_s={LOST_S}")
    with running_agent(*arguments, inside=link.inside(link.agent_side)) as agent:
        before = agent.descriptors()
        with client_behind(link, script) as pid:
            assert agent.descriptors() > before
            link.cut()
            cut = time.monotonic()
            wait_until(lambda: not is_running(pid), "the command of the lost client killed")
            assert time.monotonic() - cut > LOST_S / 2
            wait_until(lambda: agent.descriptors() <= before, "its connection and pipes closed")


@pytest.mark.root
@pytest.mark.slow
def test_a_peer_that_reads_nothing_is_not_taken_for_one_that_vanished(link: Link) -> None:
    lost_s = 1.0
    arguments = ("--listen", f"tcp:{AGENT_ADDRESS}:{PORT}", "--patience", f"peer_lost_s={lost_s}")
    with (
        running_agent(*arguments, inside=link.inside(link.agent_side)) as agent,
        client_behind(link, "echo $$; exec cat /dev/zero") as pid,
    ):
        wait_until(lambda: agent.children() == [pid], "the command runs")
        time.sleep(4 * lost_s)  # the client reads nothing all that time, and its kernel says so
        assert is_running(pid)
