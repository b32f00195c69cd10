"""What a program sees that is started enclosed, as an ordinary user: run by root, which becomes one for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unprivileged import FIRST_UID, UID_COUNT

from hearth.errors import HostUnfit
from hearth.host import enclosure
from hearth.host.enclosure import Enclosed, open_gate, socket_inside
from hearth.host.spawn import Child, setpriv_prefix

pytestmark = pytest.mark.root

GATE = 12
ANSWER_S = 60.0
ECHO = (
    "import socket; l = socket.create_server(('127.0.0.1', 5000)); print('ready', flush=True); "
    "c, _ = l.accept(); c.sendall(c.recv(64))"
)


class Scene:
    """A program's gate and what it says."""

    def __init__(self, directory: Path) -> None:
        self.gate = directory / "gate"
        self.said = directory / "said"
        self.uid = FIRST_UID + secrets.randbelow(UID_COUNT)

    @contextlib.contextmanager
    def started(self, *argv: str, limits: dict[str, int] | None = None) -> Iterator[Child]:
        enclosed = Enclosed(argv=argv, limits=limits or {}, gate=GATE)
        with open_gate(self.gate) as gate, self.said.open("wb") as output:
            child = enclosure.start(
                enclosed,
                descriptors={GATE: gate.fileno()},
                output=output.fileno(),
                prefix=setpriv_prefix(self.uid, self.uid),
            )
        try:
            yield child
        finally:
            child.kill()
            child.close()
            os.waitid(os.P_PID, child.pid, os.WEXITED)

    async def run(self, script: str, **limits: int) -> list[str]:
        """Give the lines that a shell's script says."""
        with self.started("sh", "-c", f"{script}; sleep 1000 & echo done; wait", limits=limits):
            await self.heard("done")
        return self.said.read_text().splitlines()[:-1]

    async def heard(self, word: str) -> None:
        async with asyncio.timeout(ANSWER_S):
            while word not in self.said.read_text().split():
                await asyncio.sleep(0.01)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_files_are_the_systems_alone_and_nothing_can_be_written(scene: Scene) -> None:
    (names, refused) = await scene.run("echo $(ls /); touch /x 2>/dev/null || echo refused")
    assert set(names.split()) <= {"bin", "dev", "etc", "gnu", "lib", "lib32", "lib64", "libx32"} | {
        "nix",
        "opt",
        "proc",
        "sbin",
        "tmp",
        "usr",
    }
    assert refused == "refused"
    (devices, writable) = await scene.run("echo $(ls /dev); touch /usr/x /etc/x 2>/dev/null || echo refused")
    assert (devices, writable) == ("null urandom", "refused")


async def test_processes_and_links_of_the_host_are_out_of_sight(scene: Scene) -> None:
    (numbers, links, settings) = await scene.run(
        "echo $(ls /proc | grep -c '^[0-9]'); grep -c : /proc/$$/net/dev; ls /proc/sys 2>/dev/null | wc -l"
    )
    assert int(numbers) < 8
    assert (links, settings) == ("1", "0")


async def test_it_has_no_right_and_gets_none(scene: Scene) -> None:
    (effective, bounding, rise) = await scene.run("grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status")
    assert [line.split()[1] for line in (effective, bounding, rise)] == ["0" * 16, "0" * 16, "1"]


async def test_its_limits_hold(scene: Scene) -> None:
    assert await scene.run("ulimit -n; ulimit -c", RLIMIT_NOFILE=99, RLIMIT_CORE=0) == ["99", "0"]


async def test_only_what_was_handed_over_is_open(scene: Scene) -> None:
    assert await scene.run("ls /proc/$$/fd") == ["0", "1", "2"]


async def test_the_gate_leads_to_its_loopback_and_ours_leads_elsewhere(scene: Scene) -> None:
    with scene.started("/usr/bin/python3", "-c", ECHO):
        await scene.heard("ready")
        loop = asyncio.get_running_loop()
        made = await socket_inside(scene.gate)
        with made:
            async with asyncio.timeout(ANSWER_S):
                await loop.sock_connect(made, ("127.0.0.1", 5000))
                await loop.sock_sendall(made, b"hello")
                assert await loop.sock_recv(made, 64) == b"hello"
        with socket.socket() as ours, pytest.raises(ConnectionRefusedError):
            ours.connect(("127.0.0.1", 5000))


async def test_the_gate_closes_when_the_program_ends(scene: Scene) -> None:
    with scene.started("sleep", "1000") as child:
        (await socket_inside(scene.gate)).close()
        child.kill()
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    (await socket_inside(scene.gate)).close()
                except OSError:
                    break
                await asyncio.sleep(0.01)


async def test_nobody_at_a_gate_is_refused(scene: Scene) -> None:
    with pytest.raises(FileNotFoundError):
        await socket_inside(scene.gate)
    open_gate(scene.gate).close()
    with pytest.raises(ConnectionRefusedError):
        await socket_inside(scene.gate)


@pytest.mark.parametrize("program", ["hearth-no-such-program", "/etc/passwd"])
def test_a_program_that_is_none_is_told(scene: Scene, program: str) -> None:
    with pytest.raises(HostUnfit), scene.started(program):
        raise AssertionError("it was started")


def test_a_program_outside_the_system_is_not_to_be_seen(scene: Scene, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(HostUnfit) as refused, scene.started(str(program)):
        raise AssertionError("it was started")
    assert str(program) in refused.value.details


def test_this_host_permits_enclosures() -> None:
    assert enclosure.obstacle() is None
