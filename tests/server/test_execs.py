"""Commands through the API, run by a real agent: both forms of the answer, and how they end."""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.test_app import UnixConnection, ask

from hearth.sdk.client import Sandbox

END_S = 60
NDJSON = "application/x-ndjson"
TIMEOUTS_S = (1, 5, 25)
"""Of a command that is to say something before: where the host is busy the first may be too short for that."""


def run(daemon: RunningDaemon, sandbox: str, **command: object) -> tuple[int, Any]:
    """Run a command buffered and give status and answer."""
    path = f"/api/v1/sandboxes/{sandbox}/exec"
    status, _, body = ask(daemon, "POST", path, json.dumps(command).encode(), token=daemon.token)
    return status, body


@contextmanager
def streaming(daemon: RunningDaemon, sandbox: str, **command: object) -> Iterator[http.client.HTTPResponse]:
    """Start a command and give the answer whose head has come."""
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        headers = {"Authorization": f"Bearer {daemon.token}", "Accept": NDJSON}
        connection.request("POST", f"/api/v1/sandboxes/{sandbox}/exec", json.dumps(command), headers)
        yield connection.getresponse()
    finally:
        connection.close()


def events(daemon: RunningDaemon, sandbox: str, **command: object) -> list[dict[str, Any]]:
    with streaming(daemon, sandbox, **command) as answer:
        assert (answer.status, answer.getheader("Content-Type")) == (200, NDJSON)
        return [json.loads(line) for line in answer]


@contextmanager
def watched(pid: int) -> Iterator[int]:
    """Give a descriptor that is readable once the process is gone."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ended(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], END_S)[0])


def gone(pid: int) -> bool:
    """Wait for the end of a process that may have ended already."""
    try:
        with watched(pid) as descriptor:
            return ended(descriptor)
    except ProcessLookupError:
        return True


def test_a_command_gives_both_outputs_and_its_exit_code(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, result = run(daemon, sandbox.name, cmd=["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert status == 200
    assert result.pop("exec_id").startswith("ex-")
    assert result == {
        "exit_code": 7,
        "stdout": "out\n",
        "stderr": "err\n",
        "truncated": False,
        "encoding": "utf-8",
    }


def test_id_and_name_mean_the_same_sandbox(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert run(daemon, sandbox.id, cmd=["true"])[1]["exit_code"] == 0


def test_env_cwd_and_stdin_reach_the_command(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    script = 'echo "$GREETING"; pwd; cat'
    _, result = run(daemon, sandbox.name, cmd=["sh", "-c", script], env={"GREETING": "hé"}, cwd="/usr", stdin="in é")
    assert result["stdout"] == "hé\n/usr\nin é"


def test_stdin_may_be_binary_and_longer_than_any_pipe(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 2000
    stdin = base64.b64encode(data).decode()
    _, result = run(daemon, sandbox.name, cmd=["cat"], stdin=stdin, stdin_encoding="base64")
    assert result["encoding"] == "base64"
    assert base64.b64decode(result["stdout"]) == data


def test_a_command_that_ignores_its_input_is_no_failure(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, result = run(daemon, sandbox.name, cmd=["true"], stdin="x" * 900_000)
    assert (status, result["exit_code"]) == (200, 0)


def test_without_stdin_the_command_sees_its_end(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert run(daemon, sandbox.name, cmd=["cat"])[1]["exit_code"] == 0


def test_a_signal_shows_as_128_and_its_number(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert run(daemon, sandbox.name, cmd=["sh", "-c", "kill -9 $$"])[1]["exit_code"] == 137


def test_too_much_output_is_cut_and_said(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    script = "head -c 9000000 /dev/zero | tr '\\0' a; echo end >&2; exit 3"
    _, result = run(daemon, sandbox.name, cmd=["sh", "-c", script])
    assert (len(result["stdout"]), result["truncated"], result["exit_code"]) == (8_388_608, True, 3)
    assert result["stderr"] == "end\n"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({"cmd": []}, "cmd"),
        ({"cmd": [""]}, "cmd"),
        ({}, "cmd"),
        ({"cmd": "ls"}, "cmd"),
        ({"cmd": ["ls"], "timeout_sec": 0.5}, "timeout_sec"),
        ({"cmd": ["ls"], "timeout_sec": 86401}, "timeout_sec"),
        ({"cmd": ["ls"], "stdin": "?", "stdin_encoding": "base64"}, "stdin"),
        ({"cmd": ["ls"], "env": {"A=B": "c"}}, "env"),
        ({"cmd": ["ls"], "shell": True}, "shell"),
    ],
    ids=str,
)
def test_a_bad_command_is_400_naming_the_field(
    daemon: RunningDaemon, sandbox: Sandbox, command: dict[str, Any], field: str
) -> None:
    status, problem = run(daemon, sandbox.name, **command)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["error"] + problem["details"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ({"cmd": ["/nonexistent"]}, "No such file"),
        ({"cmd": ["/etc/passwd"]}, "Permission denied"),
        ({"cmd": ["true"], "cwd": "/nonexistent"}, "No such file"),
    ],
    ids=str,
)
def test_what_cannot_be_started_is_422_in_the_systems_words(
    daemon: RunningDaemon, sandbox: Sandbox, command: dict[str, Any], words: str
) -> None:
    status, problem = run(daemon, sandbox.name, **command)
    assert (status, problem["code"]) == (422, "start_failed")
    assert words in problem["details"]
    (last,) = events(daemon, sandbox.name, **command)
    assert (last["type"], last["code"], words in last["details"]) == ("error", "start_failed", True)


def test_an_unknown_sandbox_is_404_in_both_forms(daemon: RunningDaemon) -> None:
    assert run(daemon, "nosuch", cmd=["true"])[0] == 404
    with streaming(daemon, "nosuch", cmd=["true"]) as answer:
        assert (answer.status, json.loads(answer.read())["code"]) == (404, "not_found")


def test_a_stream_gives_events_as_they_come_and_ends_in_exit(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    with streaming(daemon, sandbox.name, cmd=["sh", "-c", "echo one; read x; echo two >&2; exit 4"]) as answer:
        first = json.loads(answer.readline())
        assert first == {"type": "stdout", "data": "one\n"}
        rest = [json.loads(line) for line in answer]
    assert rest == [{"type": "stderr", "data": "two\n"}, {"type": "exit", "exit_code": 4}]


def test_a_character_in_two_chunks_arrives_whole(daemon: RunningDaemon, sandbox: Sandbox, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = rf"printf 'a\303'; read word < {gate}; printf '\251b'"
    with streaming(daemon, sandbox.name, cmd=["sh", "-c", script]) as answer:
        assert json.loads(answer.readline()) == {"type": "stdout", "data": "a"}
        gate.write_text("go\n")
        rest = [json.loads(line) for line in answer]
    assert rest == [{"type": "stdout", "data": "éb"}, {"type": "exit", "exit_code": 0}]


def test_binary_output_says_that_it_is_base64(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    output, last = events(daemon, sandbox.name, cmd=["printf", r"\377\000"])
    assert output == {"type": "stdout", "data": "/wA=", "encoding": "base64"}
    assert last["type"] == "exit"


def test_half_a_character_at_the_end_is_not_lost(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    first, rest, last = events(daemon, sandbox.name, cmd=["printf", r"a\303"])
    assert (first["data"], rest) == ("a", {"type": "stdout", "data": "ww==", "encoding": "base64"})
    assert last["type"] == "exit"


def test_a_timeout_kills_the_group_and_says_so(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    for timeout_s in TIMEOUTS_S:
        command = ["sh", "-c", "sleep 1000 & echo $!; wait"]
        *outputs, last = events(daemon, sandbox.name, cmd=command, timeout_sec=timeout_s)
        assert (last["type"], last["code"]) == ("error", "timeout")
        if outputs:
            break
    assert set(last) == {"type", "error", "code", "details", "resolution", "request_id"}
    assert gone(int(outputs[0]["data"]))


def test_a_buffered_timeout_is_504(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, problem = run(daemon, sandbox.name, cmd=["sleep", "1000"], timeout_sec=1)
    assert (status, problem["code"]) == (504, "timeout")
    assert "timeout_sec" in problem["resolution"]


def test_a_streaming_client_that_leaves_takes_the_whole_group_along(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    with streaming(daemon, sandbox.name, cmd=["sh", "-c", "sleep 1000 & echo $!; wait"]) as answer:
        descriptor = os.pidfd_open(int(json.loads(answer.readline())["data"]))
        answer.close()
    try:
        assert ended(descriptor)
    finally:
        os.close(descriptor)


def test_a_buffered_client_that_leaves_takes_the_whole_group_along(
    daemon: RunningDaemon, sandbox: Sandbox, tmp_path: Path
) -> None:
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    command = {"cmd": ["sh", "-c", f"sleep 1000 & echo $! > {fifo}; wait"]}
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        headers = {"Authorization": f"Bearer {daemon.token}"}
        connection.request("POST", f"/api/v1/sandboxes/{sandbox.name}/exec", json.dumps(command), headers)
        pid = int(fifo.read_text())
        with watched(pid) as descriptor:
            connection.close()
            assert ended(descriptor)
    finally:
        connection.close()


def test_a_client_that_does_not_read_cannot_keep_a_command_beyond_its_time(
    daemon: RunningDaemon, sandbox: Sandbox, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {told}; exec cat /dev/zero"]
    for timeout_s in TIMEOUTS_S:
        with streaming(daemon, sandbox.name, cmd=command, timeout_sec=timeout_s) as answer:
            path = f"/api/v1/execs/{answer.getheader('X-Exec-ID')}"
            deadline_s = time.monotonic() + timeout_s + END_S
            while (found := ask(daemon, "GET", path, token=daemon.token)[2])["state"] == "running":
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            assert (found["state"], found["problem"]["code"]) == ("failed", "timeout")
            if told.exists() and (pid := told.read_text()):
                assert gone(int(pid))
                break
    else:
        raise AssertionError("the command did not even begin")


def test_many_commands_at_a_time_do_not_mix(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    results: dict[int, Any] = {}

    def one(number: int) -> None:
        results[number] = events(daemon, sandbox.name, cmd=["sh", "-c", f"echo {number}; exit {number}"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {
        number: [{"type": "stdout", "data": f"{number}\n"}, {"type": "exit", "exit_code": number}]
        for number in range(16)
    }


def test_a_daemon_that_stops_tells_streams_and_the_next_one_finds_the_sandbox() -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--drain", "1") as first:
            with first.client() as client:
                client.create(name="stays")
            with streaming(first, "stays", cmd=["sh", "-c", "echo up; sleep 1000"]) as answer:
                answer.readline()
                first.process.terminate()
                last = json.loads(answer.readlines()[-1])
            assert (last["type"], last["code"]) == ("error", "unavailable")
            assert first.process.wait(END_S) == 0
            assert not data.api_socket.exists()
        with running_daemon(data) as second:
            assert run(second, "stays", cmd=["true"])[1]["exit_code"] == 0


def test_a_second_signal_waits_for_nobody() -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--drain", "600") as daemon:
            with daemon.client() as client:
                client.create(name="busy")
            with streaming(daemon, "busy", cmd=["sh", "-c", "echo up; sleep 1000"]) as answer:
                answer.readline()
                daemon.process.terminate()
                daemon.wait_for_event("stopping")
                daemon.process.terminate()
                last = json.loads(answer.readlines()[-1])
            assert (last["type"], last["code"]) == ("error", "unavailable")
            assert daemon.process.wait(END_S) == 0
        with running_daemon(data):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_ends_in_time_is_waited_for(number: signal.Signals, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon:
            with daemon.client() as client:
                client.create(name="busy")
            with streaming(daemon, "busy", cmd=["sh", "-c", f"echo up; cat {fifo}; sleep 1; exit 3"]) as answer:
                answer.readline()
                daemon.process.send_signal(number)
                daemon.wait_for_event("stopping")
                fifo.write_text("done")
                rest = [json.loads(line) for line in answer]
            assert rest == [{"type": "stdout", "data": "done"}, {"type": "exit", "exit_code": 3}]
            assert daemon.process.wait(END_S) == 0
        with running_daemon(data):
            pass
