"""Kept commands in a real machine: in their midst the daemon is killed, the machine sleeps and is copied."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.boot import link_images
from tests.machines.test_first_light import vmms_of
from tests.server.daemon import RunningDaemon, data_directory, running_daemon

from hearth.sdk.client import Client, Sandbox

END_S = 120.0
RESTART_S = 120.0
"""What a reader allows a daemon to come back in; no time is promised."""
COUNT = 30_000
COUNTER = f"""
import os, sys, time
for i in range({COUNT}):
    os.write(1 + i % 2, b'%07d\\n' % i)
    if i in ({COUNT // 3}, {2 * COUNT // 3}):
        while not os.path.exists('/tmp/go-%d' % (i * 3 // {COUNT})):
            time.sleep(0.01)
"""
STDOUT = b"".join(b"%07d\n" % number for number in range(0, COUNT, 2))
STDERR = b"".join(b"%07d\n" % number for number in range(1, COUNT, 2))
THIRD = COUNT // 3 * 8
"""So many bytes of both outputs have come when it waits for the first time, and one line more."""


class Reader:
    """A thread that streams the counting command and keeps what came."""

    def __init__(self, daemon: RunningDaemon, sandbox: str) -> None:
        self.got = {"stdout": b"", "stderr": b""}
        self.exit_code: int | None = None
        self.exec_id = ""
        self._client = Client(daemon.url, daemon.token, patience_s=RESTART_S)
        self._sandbox = sandbox
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        return sum(map(len, self.got.values()))

    def has(self, size: int) -> None:
        """Wait until so many bytes have come."""
        until(lambda: self.count >= size or not self._thread.is_alive(), f"{size} bytes")
        assert self.count >= size

    def join(self) -> None:
        self._thread.join(END_S)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        cmd = ["python3", "-c", COUNTER]
        with self._client as client, client.stream(self._sandbox, cmd, linger_sec=600) as running:
            self.exec_id = running.exec_id
            for output in running:
                self.got[output.stream] += output.data
            self.exit_code = running.exit_code


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def let_go(sandbox: Sandbox, number: int) -> None:
    sandbox.run(["touch", f"/tmp/go-{number}"]).check()


def whole(client: Client, exec_id: str) -> dict[str, bytes]:
    """Read a command's log from its beginning."""
    found = {"stdout": b"", "stderr": b""}
    with client.commands.logs(exec_id) as running:
        for output in running:
            found[output.stream] += output.data
    return found


@pytest.fixture(scope="module")
def machine(images: None) -> Iterator[tuple[RunningDaemon, str]]:
    """The second daemon of a machine whose first was killed while a command was streamed, and that command's id."""
    with data_directory() as data:
        link_images(data)
        with running_daemon(data, "--engine", "qemu", "--pool", "0") as first:
            with first.client() as client:
                client.create(name="journal")
            reader = Reader(first, "journal")
            reader.has(THIRD)
            first.process.kill()
            first.process.wait()
        with running_daemon(data, "--engine", "qemu", "--pool", "0") as second:
            with second.client() as client:
                box = client.get("journal")
                let_go(box, 1)
                reader.has(2 * THIRD)
                let_go(box, 2)
                reader.join()
                box.run(["sh", "-c", "rm /tmp/go-*"]).check()
            assert (reader.got, reader.exit_code) == ({"stdout": STDOUT, "stderr": STDERR}, 0)
            yield second, reader.exec_id


def test_a_killed_daemon_loses_nothing_of_a_command_in_a_machine(machine: tuple[RunningDaemon, str]) -> None:
    daemon, exec_id = machine
    with daemon.client() as client:
        found = client.commands.get(exec_id)
        assert (found.state, found.exit_code, found.cursor) == ("exited", 0, COUNT * 8)
        assert whole(client, exec_id) == {"stdout": STDOUT, "stderr": STDERR}


def test_a_machine_that_sleeps_takes_its_command_along_and_a_copy_does_not(machine: tuple[RunningDaemon, str]) -> None:
    daemon, _ = machine
    reader = Reader(daemon, "journal")
    with daemon.client() as client:
        box = client.get("journal")
        reader.has(THIRD)
        (copy,) = box.fork()
        assert copy.run(["sh", "-c", "pgrep -fc 'go-%d'; true"]).stdout.split()[0] in ("0", "1")  # the shell itself
        assert copy.execs()[0].cmd[0] == "sh"
        copy.destroy()
        assert box.stop().view.heat == "cold"
        assert client.commands.get(reader.exec_id).state == "running"
        let_go(box, 1)  # wakes it
        reader.has(2 * THIRD)
        box.pause()
        assert box.refresh().view.heat == "warm"
        box.resume()
        let_go(box, 2)
        reader.join()
        assert (reader.got, reader.exit_code) == ({"stdout": STDOUT, "stderr": STDERR}, 0)
        assert whole(client, reader.exec_id) == reader.got


def test_a_machine_that_dies_ends_its_commands_and_says_so(machine: tuple[RunningDaemon, str]) -> None:
    daemon, _ = machine
    with daemon.client() as client:
        box = client.get("journal")
        started = box.detach(["sh", "-c", "echo alive; exec sleep 1000"])
        with client.commands.logs(started.id) as running:
            output = iter(running)
            assert next(output).data == b"alive\n"
            box.run(["sh", "-c", "sync"]).check()
            kill_vmm(box)
            with pytest.raises(Exception, match="machine ended"):
                next(output)
        assert client.commands.get(started.id).state == "failed"
        assert whole_text(client, started.id) == b"alive\n"


def kill_vmm(box: Sandbox) -> None:
    """End a sandbox's VMM as a crash does."""
    for pid in vmms_of(box.id):
        os.kill(pid, signal.SIGKILL)


def whole_text(client: Client, exec_id: str) -> bytes:
    """Read what is kept of a command that failed."""
    with client.commands.logs(exec_id, follow=False) as running:
        return next(iter(running)).data
