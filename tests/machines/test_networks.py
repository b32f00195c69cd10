"""Real machines on their owners' networks: they find each other by name, and nobody else finds them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.boot import boot_files
from tests.network.nameserver import nameserver
from tests.network.stage import HOST_ADDRESS, PUBLIC, Stage, stage

from hearth.config import DataDirectory
from hearth.engine.base import Engine, MachinePlace, MachineSpec
from hearth.engine.qemu.engine import QemuEngine
from hearth.guest.client import Guest
from hearth.host.cgroups import detect
from hearth.host.identity import new_sandbox_id
from hearth.network.policy import DEFAULT, Policy, parse_policy
from hearth.wire.messages import ExecRequest, MachineConfig

READY_TIMEOUT_S = 120.0
RUN_TIMEOUT_S = 60.0
SERVER = """
import socket, sys
server = socket.create_server(("", 8000))
while True:
    caller, _ = server.accept()
    caller.sendall(sys.argv[1].encode())
    caller.close()
"""
CALL = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 30).recv(99).decode())
except OSError as error:
    print(type(error).__name__)
"""


class Home:
    """Machines on a stage's networks."""

    def __init__(self, scene: Stage, data: DataDirectory, stack: contextlib.AsyncExitStack) -> None:
        self.scene = scene
        self._data = data
        self._stack = stack

    def _engine(self) -> Engine:
        dialer = self.scene.network.dialer
        return QemuEngine(verdicts=self._data.verdicts, dialer_for=dialer, cgroups=detect(self.scene.tag))

    async def machine(self, name: str, owner: str, policy: Policy = DEFAULT) -> tuple[str, Guest]:
        """Boot a machine that says its name on port 8000; gives its address too."""
        sandbox_id, engine, network = new_sandbox_id(), self._engine(), self.scene.network
        place = MachinePlace(id=sandbox_id, directory=self._data.machine(sandbox_id))
        spec = MachineSpec(place=place, cpus=1, memory_mib=256, boot=boot_files())
        self._stack.push_async_callback(network.teardown, sandbox_id)
        self._stack.push_async_callback(engine.remove, place)
        await engine.prepare(spec)
        link = await network.setup(sandbox_id, owner=owner, name=name, policy=policy)
        try:
            machine = await engine.launch(spec, link)
        finally:
            os.close(link.tap_fd)
        self._stack.push_async_callback(machine.release)
        guest = Guest(machine.dialer, None)
        await guest.wait_ready(READY_TIMEOUT_S)
        token = secrets.token_hex(32)
        config = MachineConfig(
            sandbox_id=sandbox_id,
            hostname=name,
            token=token,
            unix_time_ns=time.time_ns(),
            dns=[str(link.gateway)],
        )
        await guest.configure(config, timeout_s=RUN_TIMEOUT_S)
        guest = Guest(machine.dialer, token)
        await run(guest, "sh", "-c", 'setsid python3 -c "$@" >/dev/null 2>&1 </dev/null &', "sh", SERVER, name)
        return str(link.address), guest


async def run(guest: Guest, *argv: str) -> str:
    result = await guest.run(ExecRequest(argv=list(argv)), timeout_s=RUN_TIMEOUT_S, max_output_bytes=10_000)
    return result.stdout.decode().strip()


async def call(guest: Guest, host: str, port: int = 8000) -> str:
    return await run(guest, "python3", "-c", CALL, host, str(port))


async def answers(guest: Guest, host: str) -> str:
    """Call until the other's server is up."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while (said := await call(guest, host)) == "ConnectionRefusedError":
            await asyncio.sleep(0.2)
    return said


@pytest.fixture
async def home(images: None) -> AsyncIterator[Home]:
    with tempfile.TemporaryDirectory(prefix="hearth-nets-") as root:
        data = DataDirectory(root=Path(root))
        data.machines.mkdir()
        async with stage(slots=1) as scene, contextlib.AsyncExitStack() as stack:
            yield Home(scene, data, stack)


async def test_machines_of_an_owner_find_each_other_by_name_and_no_stranger_finds_them(home: Home) -> None:
    await nameserver(home.scene, {"api.example.com": ["1.2.3.4"]})
    web_address, web = await home.machine("web", "ann", parse_policy({"names": ["api.example.com"]}))
    db_address, db = await home.machine("db", "ann")
    _, stranger = await home.machine("spy", "bob")

    assert await answers(web, "db.hearth") == "db"
    assert await answers(db, "web") == "web"
    assert await call(web, db_address) == "db"
    assert await call(stranger, db_address) == "ConnectionRefusedError"
    assert await call(stranger, "db.hearth") == "gaierror"

    for port in (1024, 1025):
        assert await call(web, db_address, port) == "ConnectionRefusedError", "agents are the daemon's alone"
    for host in (HOST_ADDRESS, "169.254.169.254", "10.1.2.3", PUBLIC[0]):
        assert await call(web, host, 80) == "ConnectionRefusedError", host
    assert await call(web, "api.example.com", 80) == "world 1.2.3.4"
    assert await call(db, "api.example.com", 80) == "gaierror"

    await home.scene.network.fabric.apply(
        next(iter(event.sandbox_id for event in home.scene.events if event.host == "api.example.com")),
        parse_policy({"base": "public"}),
    )
    assert await call(db, PUBLIC[0], 80) == f"world {PUBLIC[0]}"
    assert web_address != db_address
