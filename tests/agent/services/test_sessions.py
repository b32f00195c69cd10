"""Sessions against a real agent process: terminals and pipes, detach and attach, stealing, limits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from tests.agent.client import AgentError, Client, Result, Wire
from tests.agent.conftest import AgentProcess, is_running, running_agent, wait_until

from hearth.wire import frames
from hearth.wire.frames import FrameType, encode_resize, encode_signal
from hearth.wire.messages import ExecKillRequest, ExecRequest, SessionInfo, decode_list

COUNTER = "i=0\nwhile True:\n os.write(1, b'%07d\\n' % i)\n i += 1"
RECORD = 8


def listed(client: Client) -> dict[str, SessionInfo]:
    with client.connect() as wire:
        wire.send(FrameType.EXEC_LIST_REQ)
        infos = decode_list(SessionInfo, wire.expect(FrameType.EXEC_LIST_RESP))
    return {info.session_id: info for info in infos}


def kill(client: Client, session_id: str) -> None:
    with client.connect() as wire:
        wire.request(FrameType.EXEC_KILL, ExecKillRequest(session_id=session_id))
        assert frames.parse_exit(wire.expect(FrameType.EXIT)) == 0


def wait_detached(client: Client, session_id: str) -> None:
    wait_until(lambda: not listed(client)[session_id].attached, "session detached")


def finish(wire: Wire) -> int:
    """Read to EXIT and close."""
    with wire:
        return Result(wire).exit_code


def test_a_piped_session_merges_output_and_tells_its_exit(client: Client) -> None:
    wire, info = client.session("sh", "-c", "read x; echo a; echo b >&2; exit 4")
    with wire:
        wire.send(FrameType.STDIN, b"\n")
        result = Result(wire)
    assert (result.stdout, result.stderr, result.exit_code) == (b"a\nb\n", b"", 4)
    assert info.argv == "sh -c read x; echo a; echo b >&2; exit 4"
    assert info.running
    assert info.attached
    assert not info.tty
    assert abs(info.created_at - time.time()) < 60


def test_a_terminal_session_has_a_controlling_terminal_of_the_size_asked_for(client: Client) -> None:
    wire, info = client.session("sh", "-c", "tty; stty size; exec </dev/tty; echo $TERM", tty=True, rows=31, cols=97)
    with wire:
        result = Result(wire)
    lines = result.stdout.decode().split("\r\n")
    assert info.tty
    assert lines[0].startswith("/dev/")
    assert lines[1:3] == ["31 97", "xterm-256color"]


def test_resize_reaches_the_terminal(client: Client) -> None:
    script = "trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done"
    wire, _ = client.session("sh", "-c", script, tty=True)
    with wire:
        wire.read_until(lambda data: b"up" in data)
        wire.socket.sendall(encode_resize(40, 120))
        assert wire.read_until(lambda data: b"40 120" in data)
        wire.send(FrameType.KILL)
        assert Result(wire).exit_code == 128 + signal.SIGTERM


def test_typing_works_and_end_of_file_ends_the_terminals_reader(client: Client) -> None:
    wire, _ = client.session("cat", tty=True)
    with wire:
        wire.send(FrameType.STDIN, b"hello\n")
        wire.read_until(lambda data: data.count(b"hello") == 2)
        wire.send(FrameType.STDIN_EOF)
        assert Result(wire).exit_code == 0


def test_end_of_file_closes_a_piped_sessions_input(client: Client) -> None:
    wire, _ = client.session("cat")
    with wire:
        wire.send(FrameType.STDIN, b"x" * 300_000)
        wire.send(FrameType.STDIN_EOF)
        assert len(Result(wire).stdout) == 300_000


def test_kill_is_sigterm_and_keeps_the_connection_until_exit(client: Client) -> None:
    wire, _ = client.session("sh", "-c", "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.02; done")
    with wire:
        wire.read_until(lambda data: b"up" in data)
        wire.send(FrameType.KILL)
        result = Result(wire)
    assert result.exit_code == 9
    assert b"bye" in result.stdout


def test_a_signal_frame_reaches_the_session(client: Client) -> None:
    wire, _ = client.session("sleep", "100")
    with wire:
        wire.socket.sendall(encode_signal(signal.SIGINT))
        assert Result(wire).exit_code == 130


def test_a_disconnect_detaches_and_attach_replays_then_goes_live(client: Client) -> None:
    wire, info = client.session("sh", "-c", "echo before; read line; echo got $line; read line; echo end")
    with wire:
        wire.read_until(lambda data: data == b"before\n")
    wait_detached(client, info.session_id)
    wire, again = client.attach(info.session_id)
    with wire:
        assert again.attached
        assert wire.expect(FrameType.STDOUT) == b"before\n"
        wire.send(FrameType.STDIN, b"one\n")
        assert wire.read_until(lambda data: data.endswith(b"\n")) == b"got one\n"
        wire.send(FrameType.STDIN, b"two\n")
        assert Result(wire).stdout == b"end\n"


@pytest.mark.parametrize("size", [5, 100_000])
def test_input_sent_just_before_a_disconnect_arrives(client: Client, size: int) -> None:
    rounds = 8
    wire, info = client.session("sh", "-c", f"echo up; head -c {rounds * size} | wc -c")
    for _ in range(rounds):
        wire.read_until(lambda data: data == b"up\n")  # closing with something unread would reset a TCP connection
        wire.send(FrameType.STDIN, b"x" * size)
        wire.close()
        wait_detached(client, info.session_id)
        wire, _ = client.attach(info.session_id)
    with wire:
        result = Result(wire)
    assert result.stdout.split() == [b"up", b"%d" % (rounds * size)]


def test_input_behind_an_attach_counts_though_its_client_reads_nothing(client: Client) -> None:
    wire, info = client.session("sh", "-c", "read word; echo got $word")
    wire.close()
    wait_detached(client, info.session_id)
    with client.start(ExecRequest(session_id=info.session_id)) as wire:
        wire.send(FrameType.STDIN, b"it\n")
    wait_until(lambda: listed(client)[info.session_id].exit_code == 0, "the session took the line")
    with client.attach(info.session_id)[0] as wire:
        assert Result(wire).stdout == b"got it\n"


def test_the_replay_is_the_last_64_kib_in_one_frame(client: Client) -> None:
    script = "import os,sys; os.write(1, b'x' * 100_000 + b'y' * 65_536); sys.stdin.read()"
    wire, info = client.session(sys.executable, "-c", script)
    wire.close()
    wait_detached(client, info.session_id)

    def replay() -> bytes:
        again, _ = client.attach(info.session_id)
        with again:
            return again.expect(FrameType.STDOUT)

    wait_until(lambda: replay() == b"y" * 65_536, "all output in the ring")
    kill(client, info.session_id)


def test_an_exited_session_gives_its_output_and_code_to_a_later_client(client: Client) -> None:
    wire, info = client.session("sh", "-c", "echo result; exit 5")
    wire.close()
    wait_until(lambda: not listed(client)[info.session_id].running, "exited")
    assert listed(client)[info.session_id].exit_code == 5
    wire, ended = client.attach(info.session_id)
    with wire:
        result = Result(wire)
    assert (result.stdout, result.exit_code) == (b"result\n", 5)
    assert (ended.running, ended.exit_code) == (False, 5)


def test_a_second_attach_steals(client: Client) -> None:
    first, info = client.session("cat")
    first.send(FrameType.STDIN, b"1\n")
    first.read_until(lambda data: data == b"1\n")
    second, _ = client.attach(info.session_id)
    assert finish(first) == 0
    with second:
        second.send(FrameType.STDIN, b"2\n")
        assert second.read_until(lambda data: len(data) == 4) == b"1\n2\n"
        second.send(FrameType.STDIN_EOF)
        assert Result(second).exit_code == 0


def test_a_stolen_clients_input_no_longer_counts(client: Client) -> None:
    first, info = client.session("cat")
    second, _ = client.attach(info.session_id)
    assert first.expect(FrameType.EXIT) == bytes(4)
    with second:
        try:
            first.send(FrameType.STDIN, b"stale\n")
            first.send(FrameType.KILL)
        except BrokenPipeError:
            pass
        first.close()
        second.send(FrameType.STDIN, b"fresh\n")
        second.send(FrameType.STDIN_EOF)
        assert Result(second).stdout == b"fresh\n"


def test_a_client_that_stopped_reading_can_be_stolen_from(client: Client) -> None:
    first, info = client.session("cat", "/dev/zero")
    with first:
        first.expect(FrameType.STDOUT)
        second, _ = client.attach(info.session_id)
        with second:
            assert len(second.read_until(lambda data: len(data) > 200_000)) > 200_000
    kill(client, info.session_id)


def test_if_detached_refuses_an_attached_session(client: Client) -> None:
    wire, info = client.session("cat")
    with wire, pytest.raises(AgentError, match=r"^session is attached$"):
        client.attach(info.session_id, if_detached=True)
    wait_detached(client, info.session_id)
    wire, _ = client.attach(info.session_id, if_detached=True)
    wire.send(FrameType.STDIN_EOF)
    assert finish(wire) == 0


@pytest.mark.parametrize(
    "ask",
    [lambda c: c.attach("s99999"), lambda c: kill(c, "s99999"), lambda c: c.attach("")],
    ids=["attach", "kill", "empty"],
)
def test_an_unknown_session_is_not_found(client: Client, ask: Callable[[Client], Any]) -> None:
    with pytest.raises(AgentError, match=r"^session not found$"):
        ask(client)


def test_the_idle_timer_kills_a_detached_session_only(client: Client) -> None:
    wire, info = client.session("sh", "-c", "sleep 100 & echo $!; wait", max_idle_sec=1)
    grandchild = int(wire.read_until(lambda data: data.endswith(b"\n")))
    left = time.monotonic()
    wire.close()
    wait_detached(client, info.session_id)
    wire, again = client.attach(info.session_id)
    with wire:
        wire.expect(FrameType.STDOUT)
        if again.running:  # else we were away for longer than it may be idle
            left = time.monotonic()
    wait_until(lambda: not is_running(grandchild), "idle session killed")
    assert time.monotonic() - left > 0.9
    wait_until(lambda: listed(client)[info.session_id].exit_code == 137, "exit code kept")


def test_exec_kill_ends_the_group_and_the_client_sees_it(client: Client) -> None:
    wire, info = client.session("sh", "-c", "sleep 100 & echo $!; wait")
    grandchild = int(wire.read_until(lambda data: data.endswith(b"\n")))
    kill(client, info.session_id)
    assert finish(wire) == 137
    wait_until(lambda: not is_running(grandchild), "grandchild killed")


def test_a_failed_start_leaves_no_session(client: Client) -> None:
    before = set(listed(client))
    for request in (
        ExecRequest(argv=["no-such-program"], tty=True),
        ExecRequest(argv=["no-such-program"], session=True),
    ):
        with (
            client.start(request) as wire,
            pytest.raises(AgentError, match=r"^start: "),
        ):
            wire.read()
    assert set(listed(client)) == before


def test_a_background_process_does_not_hold_the_exit_back(client: Client) -> None:
    for tty in (False, True):
        wire, _ = client.session("sh", "-c", "trap '' HUP; sleep 1000 & echo $!", tty=tty)
        with wire:
            result = Result(wire)
        assert result.exit_code == 0
        os.kill(int(result.stdout), signal.SIGKILL)  # it is still there


def test_more_than_twenty_sessions_are_refused_and_a_place_comes_free() -> None:
    with running_agent() as agent:
        client = agent.client
        wires = [client.session("cat") for _ in range(20)]
        with pytest.raises(AgentError, match=r"^session limit exceeded$"):
            client.session("cat")
        assert [info.session_id for _, info in wires] == [f"s{n}" for n in range(1, 21)]
        wires[0][0].send(FrameType.STDIN_EOF)
        assert finish(wires[0][0]) == 0
        extra, info = client.session("true")
        assert info.session_id == "s21"
        assert finish(extra) == 0
        for wire, _ in wires[1:]:
            wire.close()


def test_command_lines_too_long_for_one_list_are_cut(client: Client) -> None:
    words = ["\x01" * 30_000, "-"]
    sessions = [client.session("sh", "-c", "cat", *words) for _ in range(12)]
    infos = [listed(client)[info.session_id] for _, info in sessions]
    for (wire, own), info in zip(sessions, infos, strict=True):
        assert own.argv == f"sh -c cat {words[0]}"[:16_384]
        assert info.argv == own.argv[:512]
        wire.send(FrameType.STDIN_EOF)
        assert finish(wire) == 0


def test_no_session_lists_as_an_empty_array() -> None:
    with running_agent() as agent:
        assert agent.client.ask(FrameType.EXEC_LIST_REQ, None, FrameType.EXEC_LIST_RESP) == []


def test_a_session_slows_down_for_its_reader_and_loses_nothing(client: Client) -> None:
    total = 3_000_000
    wire, _ = client.session("sh", "-c", f"head -c {total} /dev/zero; echo end")
    with wire:
        result = Result(wire)
    assert len(result.stdout) == total + 4
    assert result.stdout.endswith(b"\0end\n")


def test_a_time_limit_ends_a_session(client: Client) -> None:
    started = time.monotonic()
    wire, _ = client.session("sleep", "1000", timeout_sec=0.2)
    assert finish(wire) == 137
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("seed", "tty"), [(0, False), (1, False), (2, False), (3, True)], ids=["pipes", "pipes-1", "pipes-2", "terminal"]
)
def test_no_byte_is_lost_doubled_or_reordered_around_any_switch(agent: AgentProcess, seed: int, tty: bool) -> None:
    """Clients come, go and steal at random under a writer that never stops; each must see one unbroken stretch."""
    random = Random(seed)
    wire, info = agent.client.session(sys.executable, "-c", f"import os\n{COUNTER}", tty=tty)
    last_read = 0
    for _ in range(25):
        steals = random.random() < 0.5
        if not steals:
            wire.close()
        old, (wire, _) = wire, agent.client.attach(info.session_id)
        first = check_stretch(wire, random.randrange(1, 200_000), RECORD + tty)  # a terminal ends lines with two bytes
        if steals:
            rest = Result(old)
            assert rest.exit_code == 0
            old.close()
        assert first >= last_read or steals
        last_read = first
    wire.close()
    kill(agent.client, info.session_id)


def check_stretch(wire: Wire, size: int, record: int) -> int:
    """Read at least ``size`` bytes, check that the counter in them never jumps, and give its first value."""
    data = wire.read_until(lambda so_far: len(so_far) >= size + 2 * record)
    start = data.index(b"\n") + 1
    numbers = data[start : start + (len(data) - start) // record * record].split()
    first = int(numbers[0])
    assert numbers == [b"%07d" % number for number in range(first, first + len(numbers))]
    return first
