"""What other systems lack is hidden from the agent: it must start and serve without."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client, Result
from tests.agent.conftest import is_running, wait_until

from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, FileWriteRequest, WatchRequest

HIDE = """
import ctypes, os, sys
for name in ("pidfd_open", "eventfd", "posix_fallocate", "splice", "setresuid", "memfd_create"):
    if hasattr(os, name):
        delattr(os, name)
class OtherLibrary:
    def __getattr__(self, name):
        raise AttributeError(name)
ctypes.CDLL = lambda *_, **__: OtherLibrary()
from hearth.agent.__main__ import main
main()
"""


def test_exec_sessions_and_files_work_without_what_only_linux_has() -> None:
    with tempfile.TemporaryDirectory(prefix="ha-") as directory:
        addresses = [f"{directory}/c", f"{directory}/f"]
        command = [sys.executable, "-c", HIDE, "--listen", f"unix:{addresses[0]}", "--forward", f"unix:{addresses[1]}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=directory) as process:
            try:
                assert process.stderr is not None
                assert select.select([process.stderr], [], [], 60)[0]
                assert b"listening" in process.stderr.readline()
                exercise(Client(addresses[0], addresses[1]), Path(directory))
            finally:
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert b"refused" not in said


def exercise(client: Client, directory: Path) -> None:
    assert client.run("sh", "-c", "cat; exit 3", stdin=b"x").exit_code == 3
    with client.start(ExecRequest(argv=["sh", "-c", "sleep 100 & echo $!; wait"])) as wire:
        grandchild = int(wire.expect(FrameType.STDOUT))
        wire.send(FrameType.KILL)
        assert Result(wire).exit_code == 137
    wait_until(lambda: not is_running(grandchild), "group killed")
    for tty in (False, True):
        session, info = client.session("sh", "-c", "read x; echo got $x", tty=tty)
        session.close()
        session, _ = client.attach(info.session_id)
        with session:
            session.send(FrameType.STDIN, b"it\n")
            assert b"got it" in Result(session).stdout
    with client.connect() as wire:
        wire.request(FrameType.FILE_WRITE_REQ, FileWriteRequest(path=str(directory / "w"), size=3))
        wire.send(FrameType.STDIN, b"abc")
        wire.expect(FrameType.FILE_WRITE_RESP)
    assert (directory / "w").read_bytes() == b"abc"
    with client.connect() as wire, pytest.raises(AgentError, match=r"Function not implemented"):
        wire.request(FrameType.WATCH_REQ, WatchRequest(path="/"))
        wire.read()
