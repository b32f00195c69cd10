"""Plain and detached exec against a real agent process."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client, Result, Wire
from tests.agent.conftest import is_running, running_agent, wait_until

from hearth.wire import frames
from hearth.wire.frames import FrameType, encode_signal
from hearth.wire.messages import ExecRequest


def test_output_and_exit_code_come_back_apart(client: Client) -> None:
    result = client.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 7)


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_the_exit_code_is_the_commands(client: Client, code: int) -> None:
    assert client.run("sh", "-c", f"exit {code}").exit_code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_gives_128_and_its_number(client: Client, number: int) -> None:
    assert client.run("sh", "-c", f"kill -{int(number)} $$").exit_code == 128 + number


def test_stdin_reaches_the_command_and_ends_with_the_frame(client: Client) -> None:
    data = os.urandom(3_000_000)
    with client.start(ExecRequest(argv=["cat"])) as wire:
        sent = received = 0
        body = b""
        while sent < len(data) or received < len(data):
            if sent < len(data):
                wire.send(FrameType.STDIN, data[sent : sent + 50_000])
                sent += 50_000
            if sent >= len(data) or received < sent - 100_000:
                chunk = wire.expect(FrameType.STDOUT)
                body += chunk
                received += len(chunk)
        wire.send(FrameType.STDIN_EOF)
        assert Result(wire).exit_code == 0
    assert body == data


def test_a_half_closed_connection_ends_the_input(client: Client) -> None:
    with client.start(ExecRequest(argv=["wc", "-c"])) as wire:
        wire.send(FrameType.STDIN, b"12345")
        wire.half_close()
        result = Result(wire)
    assert result.stdout.strip() == b"5"


def test_input_behind_the_end_is_ignored(client: Client) -> None:
    with client.start(ExecRequest(argv=["cat"])) as wire:
        wire.send(FrameType.STDIN, b"a")
        wire.send(FrameType.STDIN_EOF)
        wire.send(FrameType.STDIN, b"b")
        assert Result(wire).stdout == b"a"


def test_a_command_that_closes_its_input_goes_on(client: Client) -> None:
    with client.start(ExecRequest(argv=["sh", "-c", "exec <&-; echo closed; sleep 0.05; echo on"])) as wire:
        assert wire.read_until(lambda data: b"closed" in data)
        wire.send(FrameType.STDIN, b"x" * 200_000)
        assert Result(wire).stdout.endswith(b"on\n")


def test_the_environment_is_built_from_nothing(client: Client) -> None:
    result = client.run("env", env={"A": "ü", "PATH": "/usr/bin:/bin"})
    found = dict(line.split("=", 1) for line in result.stdout.decode().splitlines())
    assert found.pop("A") == "ü"
    assert found["PATH"] == "/usr/bin:/bin"
    assert set(found) == {"PATH", "HOME", "LANG", "TERM"}


def test_the_directory_is_the_requests(client: Client, tmp_path: Path) -> None:
    assert client.run("pwd", cwd=str(tmp_path)).stdout.decode().strip() == str(tmp_path)


@pytest.mark.parametrize(
    ("argv", "cwd", "text"),
    [
        (["no-such-program"], None, "start: no-such-program: No such file or directory"),
        (["/no/such/program"], None, "start: /no/such/program: No such file or directory"),
        (["true"], "/no/such/dir", "start: directory /no/such/dir: No such file or directory"),
        (["true"], "/etc/passwd", "start: directory /etc/passwd: Not a directory"),
        (["/etc/passwd"], None, "start: /etc/passwd: Permission denied"),
        ([""], None, "start: : No such file or directory"),
        ([], None, "empty argv"),
        (["x" * 200_000], None, "start: "),
    ],
)
def test_a_failed_start_is_one_error_and_no_exit(client: Client, argv: list[str], cwd: str | None, text: str) -> None:
    with client.start(ExecRequest(argv=argv, cwd=cwd)) as wire:
        frame = wire.read_or_none()
        assert frame is not None
        assert frame.type == FrameType.ERROR
        assert frame.payload.decode().startswith(text)
        assert wire.read_or_none() is None


def test_an_unknown_user_is_a_failed_start(client: Client) -> None:
    with pytest.raises(AgentError, match=r"^start: user nobody-here: no such user"):
        client.run("true", user="nobody-here")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_named_user_runs_the_command(client: Client) -> None:
    account = pwd.getpwnam("nobody")
    for user in ("nobody", "65534"):
        words = client.run("sh", "-c", "id -u; id -g; id -G; echo $HOME", user=user).stdout.decode().split()
        assert words == ["65534", str(account.pw_gid), str(account.pw_gid), account.pw_dir]
    for tty in (False, True):
        with (
            client.start(ExecRequest(argv=["true"], cwd="/root", user="nobody", tty=tty)) as wire,
            pytest.raises(AgentError, match=r"^start: directory /root: Permission denied"),
        ):
            wire.read()
    assert client.run("pwd", cwd="/tmp", user="nobody").stdout == b"/tmp\n"
    result = client.run("sh", "-c", "echo x > /root/x; cat /etc/shadow", user="nobody")
    assert (result.stdout, result.stderr.count(b"ermission denied")) == (b"", 2)


def test_the_command_leads_its_own_process_group(client: Client) -> None:
    result = client.run(sys.executable, "-c", "import os; print(os.getpid() == os.getpgid(0))")
    assert result.stdout == b"True\n"


def test_no_descriptor_of_the_agent_reaches_the_command(client: Client) -> None:
    assert client.run("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '").stdout == b"0 1 2 3 "


def test_kill_ends_the_whole_group(client: Client) -> None:
    with client.start(ExecRequest(argv=["sh", "-c", "sleep 100 & echo $!; wait"])) as wire:
        grandchild = int(wire.read_until(lambda data: data.endswith(b"\n")))
        wire.send(FrameType.KILL)
        assert Result(wire).exit_code == 137
    wait_until(lambda: not is_running(grandchild), "grandchild killed")


def test_a_signal_frame_reaches_the_group(client: Client) -> None:
    with client.start(
        ExecRequest(argv=["sh", "-c", "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.01; done"])
    ) as wire:
        wire.read_until(lambda data: b"up" in data)
        wire.socket.sendall(encode_signal(signal.SIGUSR1))
        assert Result(wire).exit_code == 3


def test_a_client_that_disconnects_takes_the_group_with_it(client: Client) -> None:
    with client.start(ExecRequest(argv=["sh", "-c", "sleep 100 & echo $! $$; wait"])) as wire:
        pids = [int(word) for word in wire.read_until(lambda data: data.endswith(b"\n")).split()]
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), "group killed")  # type: ignore[misc]


def test_a_time_limit_kills_the_group(client: Client) -> None:
    started = time.monotonic()
    assert client.run("sh", "-c", "sleep 1000", timeout_sec=0.2).exit_code == 137
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("limit_s", [1e9, 1e300])
def test_a_huge_time_limit_is_no_limit(client: Client, limit_s: float) -> None:
    assert client.run("sleep", "0.02", timeout_sec=limit_s).exit_code == 0
    wire, _ = client.session("sleep", "0.02", timeout_sec=limit_s, max_idle_sec=2**60)
    with wire:
        assert Result(wire).exit_code == 0


def test_a_grandchild_that_holds_the_pipe_does_not_delay_exit(client: Client) -> None:
    with client.start(ExecRequest(argv=["sh", "-c", "sleep 1000 & echo $!"])) as wire:
        result = Result(wire)
    assert result.exit_code == 0
    os.kill(int(result.stdout), signal.SIGKILL)  # it is still there


def test_all_output_before_the_end_arrives_though_a_grandchild_writes_on(client: Client) -> None:
    script = "yes grandchild & head -c 60000 /dev/zero; kill -9 $$"
    with client.start(ExecRequest(argv=["sh", "-c", script])) as wire:
        result = Result(wire)
    assert result.exit_code == 137
    assert result.stdout.count(b"\0") == 60_000


def test_a_sleeping_reader_slows_the_command_and_costs_no_memory() -> None:
    total, most_kib = 1024 * 1024 * 1024, 32 * 1024
    with running_agent() as agent:
        agent.client.run("true")
        idle_kib = agent.status("VmRSS")
        with agent.client.start(ExecRequest(argv=["head", "-c", str(total), "/dev/zero"])) as wire:
            wire.expect(FrameType.STDOUT)
            [pid] = agent.children()
            wait_until(lambda: _stands_still(pid), "the command blocked on its full pipe")
            assert _bytes_written(pid) < most_kib * 1024, "all it wrote is in its pipe, the agent or the socket"
            assert agent.status("VmRSS") - idle_kib < most_kib
            left = total - _drain(wire)
            assert left < 1024 * 1024  # the first frame
        assert agent.status("VmHWM") - idle_kib < most_kib


def _drain(wire: Wire) -> int:
    return sum(len(frame.payload) for frame in wire.frames())


def _stands_still(pid: int) -> bool:
    """Look for 0.3 s whether a process waits for room in its pipe all the time."""
    written = _bytes_written(pid)
    time.sleep(0.3)
    return _is_blocked_writing(pid) and _bytes_written(pid) == written


def _bytes_written(pid: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


def test_kill_works_while_the_reader_sleeps(client: Client) -> None:
    with client.start(ExecRequest(argv=["cat", "/dev/zero"])) as wire:
        wire.expect(FrameType.STDOUT)
        wire.send(FrameType.KILL)
        assert Result(wire).exit_code == 137


def test_a_command_that_reads_nothing_does_not_stop_kill(client: Client) -> None:
    with client.start(ExecRequest(argv=["sleep", "100"])) as wire:
        wire.send(FrameType.STDIN, b"x" * 500_000)
        wire.send(FrameType.KILL)
        assert Result(wire).exit_code == 137


def test_a_flood_of_input_that_nobody_reads_is_held_back_and_bounded() -> None:
    frame = frames.encode(FrameType.STDIN, bytes(500_000))
    with running_agent() as agent:
        agent.client.run("true")
        idle_kib = agent.status("VmRSS")
        with agent.client.start(ExecRequest(argv=["sleep", "100"])) as wire:
            sent = 0
            wire.socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                while sent < 1024 * 1024 * 1024:
                    sent += wire.socket.send(frame[sent % len(frame) :])
            assert agent.status("VmHWM") - idle_kib < 8 * 1024
            assert sent < 8 * 1024 * 1024


def test_a_detached_command_writes_to_its_file(client: Client, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with client.start(
        ExecRequest(argv=["sh", "-c", "echo a; echo b >&2; cat; echo $$"], detach=True, output_file=str(output))
    ) as wire:
        started = json.loads(wire.expect(FrameType.STDOUT))
        list(wire.frames())
        assert wire.exit_code == 0
    assert started["output_file"] == str(output)
    wait_until(lambda: not is_running(started["pid"]), "detached command over")
    assert output.read_text() == f"a\nb\n{started['pid']}\n"


def test_a_detached_command_has_its_own_session_and_a_time_limit(client: Client) -> None:
    with client.start(ExecRequest(argv=["sleep", "100"], detach=True)) as wire:
        pid = json.loads(wire.expect(FrameType.STDOUT))["pid"]
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGKILL)
    with client.start(ExecRequest(argv=["sleep", "1000"], detach=True, timeout_sec=0.3)) as wire:
        pid = json.loads(wire.expect(FrameType.STDOUT))["pid"]
    wait_until(lambda: not is_running(pid), "time limit")


@pytest.mark.parametrize(
    ("argv", "output", "text"),
    [
        (["no-such-program"], "out", r"^start: no-such-program: No such file or directory"),
        (["true"], "missing/out", r"^start: output file .*missing/out: No such file or directory"),
        (["true"], "", r"^start: output file .*: Is a directory"),
    ],
)
def test_a_detached_command_that_cannot_start_says_why(
    client: Client, tmp_path: Path, argv: list[str], output: str, text: str
) -> None:
    request = ExecRequest(argv=argv, detach=True, output_file=f"{tmp_path}/{output}")
    with client.start(request) as wire:
        with pytest.raises(AgentError, match=text):
            wire.read()
        assert wire.read_or_none() is None


def test_frames_that_mean_nothing_here_are_skipped(client: Client) -> None:
    with client.start(ExecRequest(argv=["cat"])) as wire:
        for kind in (0x7E, FrameType.RESIZE, FrameType.AUTH, FrameType.EXEC_REQ):
            wire.send(kind, b"{}")
        wire.send(FrameType.STDIN, b"x")
        wire.send(FrameType.STDIN_EOF)
        result = Result(wire)
    assert (result.stdout, result.exit_code) == (b"x", 0)


def test_broken_input_frames_end_the_command(client: Client) -> None:
    with client.start(ExecRequest(argv=["sh", "-c", "echo $$; sleep 100"])) as wire:
        pid = int(wire.read_until(lambda data: data.endswith(b"\n")))
        wire.socket.sendall(bytes(8))
        wait_until(lambda: not is_running(pid), "group killed")


def _is_blocked_writing(pid: int) -> bool:
    return Path(f"/proc/{pid}/wchan").read_text() in ("pipe_write", "anon_pipe_write", "pipe_wait")
