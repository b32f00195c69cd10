"""What every engine does, whether its machines are machines or, for development, processes."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.boot import boot_files

from hearth.config import DataDirectory
from hearth.engine.base import BootFiles, Engine, Machine, MachinePlace, MachineSpec
from hearth.engine.local.engine import LocalEngine
from hearth.engine.qemu.engine import QemuEngine
from hearth.errors import Conflict
from hearth.guest.client import Guest
from hearth.host.cgroups import detect
from hearth.host.identity import new_sandbox_id
from hearth.network.machine import MachineNetwork
from hearth.wire.messages import ExecRequest

READY_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 30.0
TAG = "c0de"
NOWHERE = Path("/nowhere")
NO_FILES = BootFiles(kernel=NOWHERE, initramfs=NOWHERE, rootfs=NOWHERE, rootfs_sha256="0" * 64)


@dataclass(frozen=True, kw_only=True)
class Yard:
    """An engine, the files its machines boot, and its data directory. ``make_engine`` stands for a new daemon."""

    data: DataDirectory
    make_engine: Callable[[], Engine]
    network: MachineNetwork
    boot: BootFiles

    def spec(self, sandbox_id: str) -> MachineSpec:
        place = MachinePlace(id=sandbox_id, directory=self.data.machine(sandbox_id))
        return MachineSpec(place=place, cpus=1, memory_mib=256, boot=self.boot)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Machine, MachineSpec]]:
        """A machine whose agent may not answer yet; removed at the end."""
        engine, spec = self.make_engine(), self.spec(new_sandbox_id())
        machine: Machine | None = None
        try:
            machine = await self.start(engine, spec)
            yield machine, spec
        finally:
            if machine is not None:
                await machine.release()
            await engine.remove(spec.place)
            await self.network.teardown(spec.id)

    async def start(self, engine: Engine, spec: MachineSpec) -> Machine:
        await engine.prepare(spec)
        if not engine.capabilities.network:
            return await engine.launch(spec, None)
        link = await self.network.setup(spec.id)
        try:
            return await engine.launch(spec, link)
        finally:
            os.close(link.tap_fd)


@pytest.fixture(params=["local", pytest.param("qemu", marks=[pytest.mark.root, pytest.mark.vm])])
def yard(request: pytest.FixtureRequest) -> Iterator[Yard]:
    with tempfile.TemporaryDirectory(prefix="hearth-yard-") as root:
        data = DataDirectory(root=Path(root))
        data.machines.mkdir()
        network = MachineNetwork(TAG)
        if request.param == "local":
            yield Yard(data=data, make_engine=LocalEngine, network=network, boot=NO_FILES)
            return

        def qemu() -> Engine:
            return QemuEngine(verdicts=data.verdicts, dialer_for=network.dialer, cgroups=detect(TAG))

        yield Yard(data=data, make_engine=qemu, network=network, boot=boot_files())


async def says(machine: Machine, word: str) -> bytes:
    guest = Guest(machine.dialer, None)
    await guest.wait_ready(READY_TIMEOUT_S)
    request = ExecRequest(argv=["/bin/echo", word])
    return (await guest.run(request, timeout_s=RUN_TIMEOUT_S, max_output_bytes=1000)).stdout


async def test_a_launched_machine_runs_commands(yard: Yard) -> None:
    async with yard.running() as (machine, _):
        assert await says(machine, "hello") == b"hello\n"


async def test_a_removed_machine_leaves_nothing_and_may_be_removed_again(yard: Yard) -> None:
    async with yard.running() as (machine, spec):
        engine = yard.make_engine()
        await engine.remove(spec.place)
        await engine.remove(spec.place)

        assert not spec.directory.exists()
        assert await engine.adopt(spec.place) is None
        await machine.wait()
        await machine.kill()


async def test_a_new_daemon_adopts_the_machine_an_old_one_let_go(yard: Yard) -> None:
    async with yard.running() as (machine, spec):
        await says(machine, "before")
        await machine.release()

        adopted = await yard.make_engine().adopt(spec.place)
        assert adopted is not None
        assert await says(adopted, "after") == b"after\n"
        await adopted.kill()
        assert "ended" in (await adopted.wait()).how


async def test_there_is_nothing_to_adopt_where_nothing_was_launched(yard: Yard) -> None:
    engine, spec = yard.make_engine(), yard.spec(new_sandbox_id())
    assert await engine.adopt(spec.place) is None

    await engine.prepare(spec)
    assert await engine.adopt(spec.place) is None
    await engine.remove(spec.place)


async def test_killing_wakes_who_waits_and_tells_how_it_ended(yard: Yard) -> None:
    async with yard.running() as (machine, _):
        await machine.kill()

        assert (await machine.wait()).signal == signal.SIGKILL


async def test_one_id_has_one_machine(yard: Yard) -> None:
    async with yard.running() as (_, spec):
        with pytest.raises(Conflict):
            await yard.make_engine().prepare(spec)

        assert spec.directory.exists()


async def test_an_engine_says_how_it_runs_here(yard: Yard) -> None:
    report = await yard.make_engine().probe(yard.boot)

    assert report.engine in {"local", "qemu"}
    assert report.reason
    assert report.version
