"""Connections as such: authentication, limits, broken and slow peers, and that nothing grows."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agent.client import AgentError, Client, Result, Wire
from tests.agent.conftest import AgentProcess, is_running, running_agent, wait_until
from tests.ports import free_port

from hearth.agent.server import prepare_for_peers
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest

TOKEN = "secret-token"


@pytest.fixture(scope="module")
def guarded() -> Iterator[AgentProcess]:
    with running_agent(token=TOKEN) as agent:
        yield agent


def first_answer(address: str, data: bytes) -> bytes:
    """Send raw bytes and give everything that comes back."""
    with Wire(address) as wire:
        wire.socket.sendall(data)
        return wire.raw_rest()


def error(text: str) -> bytes:
    return frames.encode_error(text)


def test_the_token_opens_and_has_no_reply_of_its_own(guarded: AgentProcess) -> None:
    assert guarded.client.run("echo", "in").stdout == b"in\n"


@pytest.mark.parametrize(
    "data",
    [
        frames.encode(FrameType.AUTH, b"wrong"),
        frames.encode(FrameType.AUTH, TOKEN.encode()[:-1]),
        frames.encode(FrameType.AUTH),
        frames.encode(FrameType.EXEC_LIST_REQ),
        bytes(4),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_anything_else_is_refused(guarded: AgentProcess, data: bytes) -> None:
    for address in (guarded.client.address, guarded.client.forward_address):
        assert isinstance(address, str)
        assert first_answer(address, data) == error("auth required")


@pytest.mark.slow
def test_a_silent_client_is_refused_after_five_seconds(guarded: AgentProcess) -> None:
    assert isinstance(guarded.client.address, str)
    started = time.monotonic()
    with Wire(guarded.client.address) as silent, Wire(guarded.client.address) as drip:
        sender = threading.Thread(target=_drip, args=(drip,))
        sender.start()
        for wire in (silent, drip):
            with pytest.raises(AgentError, match=r"^auth required$"):
                wire.read()
        assert time.monotonic() - started > 4.9
        sender.join()


def _drip(wire: Wire) -> None:
    """Send an AUTH frame byte by byte, too slowly."""
    for byte in frames.encode(FrameType.AUTH, TOKEN.encode())[:9]:
        try:
            wire.socket.sendall(bytes([byte]))
        except OSError:
            return
        time.sleep(0.5)


def test_the_token_file_is_read_and_the_token_shows_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from-a-file\n")
    with running_agent("--token-file", str(path)) as agent:
        agent.client.token = "from-a-file"
        assert agent.client.run("true").exit_code == 0
        assert b"from-a-file" not in Path(f"/proc/{agent.pid}/cmdline").read_bytes()
    assert b"from-a-file" not in agent.said


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\0\0\0\1\x7f", "unexpected frame type 0x7f"),
        (frames.encode(FrameType.AUTH, b"x"), "unexpected frame type 0x11"),
        (frames.encode(FrameType.STDIN, b"x"), "unexpected frame type 0x01"),
        (bytes(4), "protocol: frame length 0"),
        (b"\0\x10\0\1", "protocol: frame length 1048577 exceeds 1048576"),
        (frames.encode(FrameType.EXEC_REQ, b"{"), "invalid: malformed JSON"),
        (frames.encode(FrameType.EXEC_REQ, b"[]"), "invalid: ExecRequest: expected an object"),
        (frames.encode(FrameType.EXEC_REQ, b'{"argv":"ls"}'), "invalid: ExecRequest.argv: expected an array"),
        (frames.encode(FrameType.EXEC_REQ, b"[" * 100_000), "invalid: malformed JSON"),
        (frames.encode(FrameType.EXEC_REQ, b'{"argv":["a\\u0000b"]}'), "invalid: ExecRequest.argv[0]"),
    ],
)
def test_a_broken_request_is_answered_by_what_is_wrong_with_it(client: Client, data: bytes, answer: str) -> None:
    assert isinstance(client.address, str)
    reply = first_answer(client.address, data)
    assert reply[4] == FrameType.ERROR
    assert reply[5:].decode().startswith(answer)


def test_an_end_inside_a_frame_is_told_and_an_end_between_frames_is_not(client: Client) -> None:
    for data, answer in ((b"\0\0\0\5\x10a", b"protocol: stream ended inside a frame"), (b"", b"")):
        with client.connect() as wire:
            wire.socket.sendall(data)
            wire.half_close()
            assert answer in wire.raw_rest()


def test_the_connection_behind_the_fiftieth_is_told_so_and_places_come_free(agent: AgentProcess) -> None:
    client = agent.client
    wait_until(lambda: _threads_serving(agent) == 0, "earlier connections closed")
    wires = []
    for _ in range(50):
        wires.append(client.start(ExecRequest(argv=["cat"])))
        wires[-1].send(FrameType.STDIN, b"x")
        assert wires[-1].expect(FrameType.STDOUT) == b"x"
    for _ in range(3):
        with client.connect() as extra, pytest.raises(AgentError, match=r"^connection limit exceeded$"):
            extra.read()
    with Wire(client.forward_address) as other, pytest.raises(AgentError, match=r"^unexpected frame type"):
        other.send(FrameType.EXEC_LIST_REQ)
        other.read()
    for wire in wires:
        wire.send(FrameType.STDIN_EOF)
        assert Result(wire).exit_code == 0
        wire.close()
    assert client.run("true").exit_code == 0


def _threads_serving(agent: AgentProcess) -> int:
    return len([path for path in Path(f"/proc/{agent.pid}/fd").iterdir() if _is_connection(path)])


def _is_connection(path: Path) -> bool:
    try:
        inode = str(path.readlink()).removeprefix("socket:[").removesuffix("]")
    except FileNotFoundError:
        return False
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(row[6] == inode and row[5] == "03" for row in rows)


REQUEST_TYPES = [kind for kind in FrameType if kind.name.endswith("_REQ")] + [FrameType.CONFIGURE, FrameType.EXEC_KILL]
# The agent under test runs on this host: no word leads out of its own scratch directory.
WORDS = st.text(st.characters(exclude_characters="/."), max_size=8)
PATHS_TO_NOWHERE = ["/proc/self/nowhere", "s1", "true"]
JSON_SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.sampled_from(PATHS_TO_NOWHERE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["argv", "path", "size", "mode", "session_id", "port", "offset", "env", "files", "token"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150, deadline=None
)
@given(data=st.lists(st.binary(max_size=60) | st.sampled_from([b"\0\0\0\1", b"\0\0\0\x10\x10"]), max_size=6))
def test_random_bytes_never_end_the_agent(client: Client, data: list[bytes]) -> None:
    with client.connect() as wire:
        wire.socket.sendall(b"".join(data))
        wire.half_close()
        answer = wire.raw_rest()
    assert not answer or answer[4] in {int(kind) for kind in FrameType}
    assert b"internal" not in answer


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200, deadline=None
)
@given(
    kind=st.sampled_from([k for k in REQUEST_TYPES if k not in (FrameType.CONFIGURE, FrameType.POWER_OFF_REQ)]),
    body=JSON_SCRAPS,
)
def test_random_requests_are_answered_without_an_internal_error(client: Client, kind: FrameType, body: object) -> None:
    payload = json.dumps(body).encode()
    with client.connect() as wire:
        wire.send(kind, payload)
        wire.half_close()
        answer = wire.raw_rest()
    assert b"internal" not in answer


def test_a_client_that_resets_in_the_middle_of_output_leaves_nothing(agent: AgentProcess) -> None:
    with agent.client.start(ExecRequest(argv=["sh", "-c", "echo $$; cat /dev/zero"])) as wire:
        pid = int(wire.expect(FrameType.STDOUT).split(b"\n")[0])
    wait_until(lambda: not is_running(pid), "command killed")


def test_over_tcp_a_closed_client_is_told_from_a_half_closed_one() -> None:
    port = free_port()
    with running_agent("--listen", f"tcp:127.0.0.1:{port}") as agent:
        client = Client(("127.0.0.1", port), agent.client.forward_address)
        with client.start(ExecRequest(argv=["sh", "-c", "cat; sleep 0.2; echo end"])) as wire:
            wire.send(FrameType.STDIN, b"in")
            wire.half_close()
            assert Result(wire).stdout == b"inend\n"
        with client.start(ExecRequest(argv=["sh", "-c", "echo $$; exec sleep 100"])) as wire:
            pid = int(wire.expect(FrameType.STDOUT))
        wait_until(lambda: not is_running(pid), "command killed")
        wire, info = client.session("cat")
        wire.close()

        def attached() -> bool:
            sessions = client.ask(FrameType.EXEC_LIST_REQ, None, FrameType.EXEC_LIST_RESP)
            return any(session["session_id"] == info.session_id and session["attached"] for session in sessions)

        wait_until(lambda: not attached(), "session detached")


def test_hundreds_of_execs_leave_no_descriptor_and_no_thread(agent: AgentProcess) -> None:
    _exec_many(agent, 300)


@pytest.mark.slow
def test_ten_thousand_execs_leave_no_descriptor_thread_or_memory(agent: AgentProcess) -> None:
    _exec_many(agent, 500)
    before_kib, threads, descriptors = agent.status("VmRSS"), agent.status("Threads"), agent.descriptors()
    _exec_many(agent, 10_000)
    assert agent.status("VmRSS") - before_kib < 512, "less than 50 bytes for each"
    assert agent.status("Threads") <= threads
    assert agent.descriptors() <= descriptors


def _exec_many(agent: AgentProcess, count: int) -> None:
    """Run commands one after another; descriptors, children and threads are then as before."""
    wait_until(lambda: _threads_serving(agent) == 0, "earlier connections closed")
    _start_all_spare_threads(agent)
    wait_until(lambda: _threads_serving(agent) == 0, "warm-up closed")
    descriptors, threads = agent.descriptors(), agent.status("Threads")
    for number in range(count):
        result = agent.client.run("/bin/echo", str(number))
        assert result.stdout == b"%d\n" % number
    wait_until(lambda: agent.descriptors() <= descriptors, "descriptors released")
    assert agent.status("Threads") <= threads
    assert agent.children() == []


def _start_all_spare_threads(agent: AgentProcess) -> None:
    """Run some commands at once, so that as many threads as ever stay idle are there."""
    wires = [agent.client.start(ExecRequest(argv=["cat"])) for _ in range(10)]
    for wire in wires:
        with wire:
            wire.send(FrameType.STDIN_EOF)
            assert Result(wire).exit_code == 0


def test_ending_the_agent_ends_what_it_runs() -> None:
    with running_agent() as agent:
        plain = agent.client.start(ExecRequest(argv=["sh", "-c", "sleep 100 & echo $!; wait"]))
        session, _ = agent.client.session("sh", "-c", "sleep 100 & echo $!; wait")
        pids = [int(wire.read_until(lambda data: data.endswith(b"\n"))) for wire in (plain, session)]
    for wire in (plain, session):
        wire.close()
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), "grandchild killed")  # type: ignore[misc]


def test_a_stale_socket_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    with running_agent("--listen", f"unix:{stale}") as agent:
        assert Client(str(stale), agent.client.forward_address).run("true").exit_code == 0
        assert stale.stat().st_mode & 0o077 == 0
    assert not stale.exists()


def test_tcp_connections_inherit_that_they_send_at_once_and_notice_a_peer_that_vanished() -> None:
    wanted = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        prepare_for_peers(listening, 30.0)
        with socket.create_connection(listening.getsockname(), timeout=30):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                level = socket.IPPROTO_TCP
                assert {name: accepted.getsockopt(level, getattr(socket, name)) for name in wanted} == wanted
