"""Commands that outlive their clients and their daemon, and logs that outlive commands; real agents, no machines."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.test_app import UnixConnection, ask
from tests.server.test_execs import NDJSON, gone, run

from hearth.api.exec_schemas import ExecView
from hearth.errors import Conflict, InvalidInput, NotFound, Unavailable
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client, Sandbox

END_S = 60.0
COUNT = 40_000
COUNTER = f"import os\nfor i in range({COUNT}):\n os.write(1 + i % 2, b'%07d\\n' % i)"
STDOUT = b"".join(b"%07d\n" % number for number in range(0, COUNT, 2))
STDERR = b"".join(b"%07d\n" % number for number in range(1, COUNT, 2))


def lines(daemon: RunningDaemon, exec_id: str, query: str = "") -> list[dict[str, Any]]:
    """Give the lines of a command's output."""
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        headers = {"Authorization": f"Bearer {daemon.token}"}
        connection.request("GET", f"/api/v1/execs/{exec_id}/output?{query}", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type"), answer.getheader("X-Exec-ID")) == (
            200,
            NDJSON,
            exec_id,
        )
        return [json.loads(line) for line in answer]
    finally:
        connection.close()


def bytes_of(event: dict[str, Any]) -> bytes:
    return base64.b64decode(event["data"]) if event.get("encoding") == "base64" else event["data"].encode()


def text_of(events: list[dict[str, Any]], stream: str = "stdout") -> bytes:
    return b"".join(bytes_of(event) for event in events if event["type"] == stream)


def logs_on_disk(daemon: RunningDaemon, sandbox_id: str) -> list[Path]:
    return sorted((daemon.data.execs / sandbox_id).glob("*.log"))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO for a command to wait at, or to tell something through."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def own(client: Client) -> Iterator[Sandbox]:
    """A sandbox of the test's own."""
    with client.create() as made:
        yield made


def test_a_detached_command_is_answered_at_once_and_its_output_waits(
    daemon: RunningDaemon, sandbox: Sandbox, fifo: Path
) -> None:
    script = f"echo one; cat {fifo}; echo err >&2; exit 3"
    status, started = run(daemon, sandbox.name, cmd=["sh", "-c", script], detach=True, env={"SECRET": "s3cret"})
    assert (status, started["state"], started["cmd"], started["detached"]) == (
        202,
        "running",
        ["sh", "-c", script],
        True,
    )
    assert "s3cret" not in json.dumps(started)
    with daemon.client() as client, client.commands.logs(started["id"]) as running:
        assert next(iter(running)).data == b"one\n"
    first, so_far = lines(daemon, started["id"], "follow=false")[-2:]
    assert (first["data"], first["cursor"], so_far) == ("one\n", 4, {"type": "running", "cursor": 4})
    fifo.write_text("two\n")
    events = lines(daemon, started["id"])
    assert (text_of(events), text_of(events, "stderr"), events[-1]) == (
        b"one\ntwo\n",
        b"err\n",
        {"type": "exit", "exit_code": 3},
    )
    assert lines(daemon, started["id"], "after=8") == [
        {"type": "stderr", "data": "err\n", "cursor": 12},
        {"type": "exit", "exit_code": 3},
    ]


def test_every_command_is_listed_with_its_end_and_its_output_can_be_read_again(
    daemon: RunningDaemon, client: Client, own: Sandbox
) -> None:
    own.run(["sh", "-c", "echo hello; exit 7"])
    with own.stream(["printf", r"\377a\303"]) as running:
        streamed = b"".join(output.data for output in running)
    status, _ = run(daemon, own.id, cmd=["/nonexistent"])
    assert (status, streamed) == (422, b"\xffa\xc3")
    buffered, binary, missing = own.execs()
    assert [(each.state, each.exit_code) for each in (buffered, binary)] == [("exited", 7), ("exited", 0)]
    assert (missing.state, missing.problem and missing.problem.code) == ("failed", "start_failed")
    assert (buffered.cmd, buffered.cursor, buffered.kept, binary.kept) == (
        ["sh", "-c", "echo hello; exit 7"],
        6,
        False,
        True,
    )
    for each, expected in ((buffered, b"hello\n"), (binary, b"\xffa\xc3"), (missing, b"")):
        assert text_of(lines(daemon, each.id)) == expected
    assert lines(daemon, missing.id)[-1]["code"] == "start_failed"
    assert client.commands.get(buffered.id) == buffered


def test_a_cursor_is_any_byte_and_beyond_the_end_is_refused(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox
) -> None:
    started = sandbox.detach(["sh", "-c", "printf abc; sleep 0.05; printf def >&2"])
    whole = lines(daemon, started.id)
    assert whole[-1]["type"] == "exit"
    for after in range(7):
        got = b"".join(bytes_of(event) for event in lines(daemon, started.id, f"after={after}")[:-1])
        assert got == b"abcdef"[after:]
    with pytest.raises(InvalidInput, match="after"), client.commands.logs(started.id, after=7):
        pass
    status, _, problem = ask(daemon, "GET", f"/api/v1/execs/{started.id}/output?after=-1", token=daemon.token)
    assert (status, problem["code"]) == (400, "invalid")


def test_many_followers_each_get_all_of_it_once(daemon: RunningDaemon, sandbox: Sandbox, fifo: Path) -> None:
    started = sandbox.detach(["sh", "-c", f'cat {fifo}; exec python3 -c "$0"', COUNTER])
    found: dict[int, list[dict[str, Any]]] = {}

    def follow(number: int) -> None:
        found[number] = lines(daemon, started.id, f"after={number}")

    threads = [threading.Thread(target=follow, args=(0,)) for _ in range(1)]
    threads += [threading.Thread(target=follow, args=(number,)) for number in range(1, 12)]
    for thread in threads[1:]:
        thread.daemon = True
    fifo_writer = fifo.open("w")  # from here on it runs
    fifo_writer.write("0123456789ab")
    fifo_writer.flush()
    client = daemon.client()
    with client, client.commands.logs(started.id) as running:
        seen = 0
        for output in running:
            seen += len(output.data)
            if seen == 12:
                for thread in threads:
                    thread.start()
                fifo_writer.close()
    for thread in threads:
        thread.join(END_S)
    for number in range(12):
        events = found[number]
        assert (text_of(events), text_of(events, "stderr")) == (b"0123456789ab"[number:] + STDOUT, STDERR)
        assert events[-1] == {"type": "exit", "exit_code": 0}


def test_a_command_takes_input_later_and_its_end(client: Client, sandbox: Sandbox) -> None:
    started = sandbox.detach(["cat"], stdin="first ", keep_stdin=True)
    assert started.stdin_open
    client.commands.feed(started.id, b"\xff later", eof=False)
    client.commands.feed(started.id, "", eof=True)
    with client.commands.logs(started.id) as running:
        assert b"".join(output.data for output in running) == b"first \xff later"
    assert running.exit_code == 0
    with pytest.raises(Conflict, match="ended"):
        client.commands.feed(started.id, "more")
    without = sandbox.detach(["sleep", "1000"])
    with pytest.raises(Conflict, match="keep_stdin"):
        client.commands.feed(without.id, "more")
    client.commands.kill(without.id)


@pytest.mark.parametrize(("sent", "code"), [("KILL", 137), ("SIGTERM", 143), (2, 130)])
def test_signals_reach_a_commands_whole_group(
    client: Client, sandbox: Sandbox, fifo: Path, sent: str | int, code: int
) -> None:
    started = sandbox.detach(["sh", "-c", f"sleep 1000 & echo $! > {fifo}; wait"])
    child = int(fifo.read_text())
    client.commands.kill(started.id, sent)
    with client.commands.logs(started.id) as running:
        assert list(running) == []
    assert running.exit_code == code
    assert sent == 2 or gone(child)  # a shell's background child ignores SIGINT
    if sent == 2:
        os.kill(child, signal.SIGKILL)
    assert client.commands.kill(started.id).exit_code == code


def test_a_signal_that_is_none_is_refused(client: Client, sandbox: Sandbox) -> None:
    started = sandbox.detach(["sleep", "1000"])
    for wrong in ("NONSENSE", "term", 0, 65):
        with pytest.raises(InvalidInput, match="signal"):
            client.commands.kill(started.id, wrong)
    client.commands.kill(started.id)


def test_a_plain_command_can_be_followed_and_killed_by_others(
    daemon: RunningDaemon, client: Client, own: Sandbox
) -> None:
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(run(daemon, own.id, cmd=["sh", "-c", "echo up; sleep 1000"])))
    thread.start()
    try:
        running: list[ExecView] = []
        while not any(each.cursor for each in running):
            running = [each for each in own.execs() if each.state == "running"]
        assert lines(daemon, running[0].id, "follow=false")[0]["data"] == "up\n"
    finally:
        client.commands.kill(running[0].id)
        thread.join(END_S)
    assert ended[0][1]["exit_code"] == 137


def test_a_client_that_lingers_comes_back_to_its_command(daemon: RunningDaemon, sandbox: Sandbox, fifo: Path) -> None:
    connection = UnixConnection(str(daemon.data.api_socket))
    headers = {"Authorization": f"Bearer {daemon.token}", "Accept": NDJSON}
    body = json.dumps({"cmd": ["sh", "-c", f"echo one; cat {fifo}; exit 4"], "linger_sec": 600})
    connection.request("POST", f"/api/v1/sandboxes/{sandbox.id}/exec", body, headers)
    answer = connection.getresponse()
    exec_id = answer.getheader("X-Exec-ID") or ""
    assert json.loads(answer.readline()) == {"type": "stdout", "data": "one\n"}
    connection.close()
    answer.close()
    fifo.write_text("two\n")
    events = lines(daemon, exec_id, "after=4&attach=true")
    assert (text_of(events), events[-1]) == (b"two\n", {"type": "exit", "exit_code": 4})


def test_a_command_whose_client_does_not_come_back_is_killed(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox, fifo: Path
) -> None:
    connection = UnixConnection(str(daemon.data.api_socket))
    headers = {"Authorization": f"Bearer {daemon.token}", "Accept": NDJSON}
    body = json.dumps({"cmd": ["sh", "-c", f"echo $$ > {fifo}; exec sleep 1000"], "linger_sec": 0.2})
    connection.request("POST", f"/api/v1/sandboxes/{sandbox.id}/exec", body, headers)
    answer = connection.getresponse()
    exec_id, pid = answer.getheader("X-Exec-ID") or "", int(fifo.read_text())
    connection.close()
    answer.close()
    assert gone(pid)
    assert lines(daemon, exec_id)[-1]["code"] == "cancelled"


def test_a_stream_that_is_left_early_kills_its_command(client: Client, sandbox: Sandbox) -> None:
    with sandbox.stream(["sh", "-c", "echo $$; exec sleep 1000"]) as running:
        pid = int(next(iter(running)).data)
    assert gone(pid)


def test_a_slow_client_holds_its_command_back_and_misses_nothing(daemon: RunningDaemon, own: Sandbox) -> None:
    """More than a log keeps: without waiting for its client the command would have overtaken it."""
    size = 40_000_000
    with own.stream(["head", "-c", str(size), "/dev/zero"]) as running:
        read = 0
        for output in running:
            if read == 0:
                threading.Event().wait(1.0)  # a pause, not a wait: whatever the daemon does meanwhile must do no harm
            read += len(output.data)
    assert (read, running.exit_code, running.lost_bytes) == (size, 0, 0)
    (found,) = own.execs()
    assert found.cursor == size
    assert found.first_cursor > size - 20_000_000
    assert sum(path.stat().st_size for path in logs_on_disk(daemon, own.id)) <= 17 * 1024 * 1024
    gap, *rest = lines(daemon, found.id)
    assert gap == {"type": "gap", "start": 0, "cursor": found.first_cursor}
    assert len(text_of(rest)) == size - found.first_cursor


def test_an_ended_command_can_be_forgotten_and_a_running_one_not(
    daemon: RunningDaemon, client: Client, own: Sandbox
) -> None:
    started = own.detach(["sh", "-c", "echo x; exec sleep 1000"])
    with pytest.raises(Conflict, match="runs"):
        client.commands.forget(started.id)
    _wait(lambda: logs_on_disk(daemon, own.id) != [])
    client.commands.kill(started.id)
    with client.commands.logs(started.id) as running:
        list(running)
    client.commands.forget(started.id)
    assert (own.execs(), logs_on_disk(daemon, own.id)) == ([], [])
    with pytest.raises(NotFound):
        client.commands.get(started.id)


def test_with_a_sandbox_its_commands_and_logs_go(daemon: RunningDaemon, client: Client) -> None:
    made = client.create()
    started = made.detach(["sh", "-c", "echo $$; exec sleep 1000"])
    with client.commands.logs(started.id) as running:
        output = iter(running)
        pid = int(next(output).data)
        made.destroy()
        with pytest.raises(Exception, match=r"destroyed|ended|gone"):
            next(output)
    assert gone(pid)
    with pytest.raises(NotFound):
        client.commands.get(started.id)
    _wait(lambda: not (daemon.data.execs / made.id).exists())


def test_output_to_a_file_leaves_the_log_empty_and_tells_the_exit_code(
    daemon: RunningDaemon, sandbox: Sandbox, tmp_path: Path
) -> None:
    started = sandbox.detach(["sh", "-c", "echo out; echo err >&2; exit 5"], output_file=str(tmp_path / "log"))
    assert lines(daemon, started.id) == [{"type": "exit", "exit_code": 5}]
    assert (tmp_path / "log").read_text() == "out\nerr\n"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({"cmd": ["ls"], "output_file": "/x"}, "output_file"),
        ({"cmd": ["ls"], "detach": True, "linger_sec": 5}, "linger_sec"),
        ({"cmd": ["ls"], "linger_sec": -1}, "linger_sec"),
        ({"cmd": ["ls"], "linger_sec": 86401}, "linger_sec"),
        ({"cmd": [""], "detach": True}, "cmd"),
    ],
    ids=str,
)
def test_fields_that_do_not_go_together_are_refused(
    daemon: RunningDaemon, sandbox: Sandbox, command: dict[str, Any], field: str
) -> None:
    status, problem = run(daemon, sandbox.name, **command)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["error"] + problem["details"]


def test_a_time_limit_of_a_detached_command_is_told(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    started = sandbox.detach(["sleep", "1000"], timeout_sec=1)
    last = lines(daemon, started.id)[-1]
    assert (last["type"], last["code"]) == ("error", "timeout")


def test_a_key_of_one_sandbox_opens_its_commands_and_no_others(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox, own: Sandbox
) -> None:
    key = client.users.create_key("me", scope="exec", sandbox=own.id)
    mine, others = own.detach(["echo", "x"]), sandbox.detach(["echo", "x"])
    with Client(daemon.url, key.secret) as confined:
        with confined.commands.logs(mine.id) as running:
            assert [output.data for output in running] == [b"x\n"]
        assert [each.id for each in confined.commands.list(own.id)] == [mine.id]
        for exec_id in (others.id, "ex-none"):
            with pytest.raises(NotFound):
                confined.commands.get(exec_id)
            with pytest.raises(NotFound):
                confined.commands.kill(exec_id)
    status, _, _ = ask(daemon, "GET", f"/api/v1/execs/{mine.id}", token="hk_" + "0" * 64)
    assert status == 401


def test_the_command_line_starts_lists_shows_and_kills(daemon: RunningDaemon, own: Sandbox) -> None:
    def hearth(*words: str) -> tuple[int, str, str]:
        done = run_cli(daemon.environment, *words)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    status, out, _ = hearth("exec", "--detach", own.name, "sh", "-c", "echo one; echo two >&2; exit 6")
    exec_id = out.strip()
    assert status == 0
    assert hearth("logs", "--follow", exec_id) == (6, "one\n", "two\n")
    assert hearth("logs", "--after", "4", exec_id) == (0, "", "two\n")
    status, listed, _ = hearth("execs", own.name)
    assert (status, exec_id in listed, "exited 6" in listed) == (0, True, True)
    assert json.loads(hearth("ps", "--json", own.name)[1])[0]["exit_code"] == 6
    _, second, _ = hearth("exec", "-d", own.name, "sleep", "1000")
    assert hearth("kill", "-s", "term", second.strip())[:2] == (0, second)
    assert hearth("logs", "-f", second.strip())[0] == 143
    assert "ex-none" in hearth("logs", "ex-none")[2]
    assert hearth("execs", "--running", own.name)[1].count("\n") <= 2


def test_a_killed_daemon_loses_nothing_of_a_kept_command(tmp_path: Path) -> None:
    """The stream of the SDK goes on by itself over three daemons, two of them killed in the midst of the output."""
    with data_directory() as data:
        publish_images(data)
        fifos = [tmp_path / f"fifo{number}" for number in range(2)]
        for each in fifos:
            os.mkfifo(each)
        script = f'echo begin; cat {fifos[0]}; python3 -c "$0"; cat {fifos[1]}; exit 9'
        got: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        codes: list[int] = []

        def read(token: str) -> None:
            cmd = ["sh", "-c", script, COUNTER]
            with (
                Client(f"unix:{data.api_socket}", token) as reader,
                reader.stream("box", cmd, linger_sec=600) as running,  # however long daemons take to come back
            ):
                for output in running:
                    got[output.stream] += output.data
                codes.append(running.exit_code)

        with running_daemon(data) as first:
            with first.client() as made:
                made.create(name="box")
            thread = threading.Thread(target=read, args=(first.token,), daemon=True)
            thread.start()
            _wait(lambda: got["stdout"] == b"begin\n", thread)
            with fifos[0].open("w") as gate:
                first.process.kill()
                first.process.wait()
                gate.write("go\n")
        with running_daemon(data) as second:
            _wait(lambda: len(got["stdout"]) > 50_000, thread)
            second.process.kill()
            second.process.wait()
        with running_daemon(data) as third:
            with fifos[1].open("w") as gate:
                gate.write("end\n")
            thread.join(END_S)
            assert not thread.is_alive()
            assert codes == [9]
            assert got["stdout"] == b"begin\ngo\n" + STDOUT + b"end\n"
            assert got["stderr"] == STDERR
            with third.client() as client:
                (found,) = client.get("box").execs()
                assert (found.state, found.exit_code) == ("exited", 9)
                events = lines(third, found.id)
                assert text_of(events) == got["stdout"]


def test_a_plain_command_ends_with_its_daemon_and_says_so(fifo: Path) -> None:
    with data_directory() as data:
        publish_images(data)
        cmd = ["sh", "-c", f"echo $$ > {fifo}; sleep 1000"]
        with running_daemon(data) as first, first.client() as client:
            box = client.create(name="box")
            thread = threading.Thread(target=_fails, args=(box, cmd))
            thread.start()
            pid = int(fifo.read_text())
            assert client.commands.list("box") != []
            first.process.kill()
            first.process.wait()
            thread.join(END_S)
        assert gone(pid)
        with running_daemon(data) as second, second.client() as client:
            (found,) = client.get("box").execs()
            assert (found.state, found.problem and found.problem.code) == ("failed", "unavailable")


def _fails(box: Sandbox, cmd: list[str]) -> None:
    with pytest.raises(Unavailable):
        box.run(cmd)


async def test_the_asynchronous_client_does_the_same(daemon: RunningDaemon, shared: str) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client:
        box = await client.get(shared)
        started = await box.detach(["sh", "-c", "echo one; exec sleep 1000"])
        async with client.commands.logs(started.id) as running:
            async for output in running:
                assert output.data == b"one\n"
                await client.commands.kill(started.id)
        assert (running.exit_code, running.cursor) == (137, 4)
        async with box.stream(["printf", "abc"]) as stream:
            assert b"".join([output.data async for output in stream]) == b"abc"
        assert started.id in {each.id for each in await box.execs()}
        async with asyncio.timeout(END_S):
            await client.commands.forget(started.id)


def _wait(condition: Any, thread: threading.Thread | None = None) -> None:
    pause = threading.Event()
    for _ in range(int(END_S / 0.01)):
        if condition():
            return
        assert thread is None or thread.is_alive()
        pause.wait(0.01)
    raise AssertionError("it did not come to that")


def test_a_followers_connection_that_breaks_is_made_anew(daemon: RunningDaemon, sandbox: Sandbox, fifo: Path) -> None:
    """A door in between cuts every connection after some bytes: what the SDK gives is whole all the same."""
    with _Door(daemon.data.api_socket, fifo.parent / "door.sock", cut_after=60_000) as door:
        cmd = ["python3", "-c", COUNTER]
        with Client(f"unix:{door.path}", daemon.token) as client, client.stream(sandbox.id, cmd) as running:
            got = [b"", b""]
            for output in running:
                got[output.stream == "stderr"] += output.data
            assert (got, running.exit_code) == ([STDOUT, STDERR], 0)
        assert door.cuts > 5


class _Door:
    """Leads connections on, one at a time, and cuts each that brought so many bytes back."""

    def __init__(self, target: Path, path: Path, *, cut_after: int) -> None:
        self.path = path
        self.cuts = 0
        self._target = target
        self._cut_after = cut_after
        self._ends = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> _Door:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join(END_S)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            with self._listener.accept()[0] as client, socket.socket(socket.AF_UNIX) as server:
                if self._ends:
                    return
                server.connect(str(self._target))
                up = threading.Thread(target=_pump, args=(client, server, None))
                up.start()
                self.cuts += _pump(server, client, self._cut_after)
                for each in (client, server):
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                up.join(END_S)


def _pump(source: socket.socket, target: socket.socket, limit: int | None) -> bool:
    """Move bytes until an end, or the limit; tells whether that was it."""
    moved = 0
    try:
        while data := source.recv(16_384):
            target.sendall(data)
            moved += len(data)
            if limit is not None and moved > limit:
                return True
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return False
