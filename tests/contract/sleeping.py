"""Machines that sleep, for the contract suite: an engine, a template and short words for what tests do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from tests.boot import boot_files
from tests.contract.test_engines import READY_TIMEOUT_S, RUN_TIMEOUT_S, TAG, Yard

from hearth.config import DataDirectory
from hearth.engine.base import Engine, MachineSpec, SleepingEngine, SleepingMachine
from hearth.engine.qemu.engine import QemuEngine
from hearth.engine.snapshot import publish, stage
from hearth.guest.client import Guest
from hearth.guest.execution import Execution
from hearth.host.cgroups import detect
from hearth.host.clock import SystemClock
from hearth.host.identity import new_sandbox_id
from hearth.jobs.bringup import awake, sleeping
from hearth.network.machine import MachineNetwork
from hearth.network.plan import Link
from hearth.wire.messages import ExecRequest, MachineConfig

CONFIGURE_TIMEOUT_S = 30.0


@contextmanager
def yard_of(engine: str) -> Iterator[Yard]:
    """A data directory for machines of an engine."""
    assert engine == "qemu"
    with tempfile.TemporaryDirectory(prefix="hearth-bed-") as root:
        data = DataDirectory(root=Path(root))
        data.machines.mkdir()
        data.snapshots.mkdir(mode=0o700)
        network = MachineNetwork(TAG)

        def make_engine() -> Engine:
            return QemuEngine(verdicts=data.verdicts, dialer_for=network.dialer, cgroups=detect(TAG))

        yield Yard(data=data, make_engine=make_engine, network=network, boot=boot_files())


class AheadClock(SystemClock):
    """The clock of a host on which so many seconds more have passed."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return super().now() + self._ahead


@dataclass(kw_only=True)
class Clone:
    """A machine that runs and its agent, with the token it knows."""

    machine: SleepingMachine
    spec: MachineSpec
    token: str | None = None
    ahead_s: float = 0.0
    """By how much the time it is told is ahead of ours."""
    guest: Guest = field(init=False)

    def __post_init__(self) -> None:
        self.guest = self.guest_with(self.token)

    def guest_with(self, token: str | None) -> Guest:
        return Guest(self.machine.dialer, token, clock=AheadClock(self.ahead_s))

    def moved(self, machine: SleepingMachine) -> None:
        """Go on with what the machine is now."""
        self.machine = machine
        self.guest = self.guest_with(self.token)

    async def adopt(self, engine: Engine) -> None:
        machine = await engine.adopt(self.spec.place)
        assert machine is not None
        self.moved(awake(machine))

    async def run(self, script: str, *, fifo: bool = False) -> str:
        """Run a script as root and give what it said; it must end well. ``fifo`` makes /dev/shm/pipe first."""
        if fifo:
            script = f"mkfifo /dev/shm/pipe; exec 3<>/dev/shm/pipe; {{ {script}; }} >/dev/null 2>&1"
        request = ExecRequest(argv=["/bin/sh", "-c", script], user="root")
        result = await self.guest.run(request, timeout_s=RUN_TIMEOUT_S, max_output_bytes=100_000)
        assert result.exit_code == 0, result
        return result.stdout.decode().strip()

    def started(self, *argv: str) -> Execution:
        return self.guest.start(ExecRequest(argv=list(argv)))

    async def configure(self, name: str) -> None:
        """Give it an identity of its own."""
        token = self.token or secrets.token_hex()
        config = MachineConfig(
            sandbox_id=self.spec.id,
            hostname=name,
            token=token,
            unix_time_ns=int(AheadClock(self.ahead_s).now().timestamp() * 1e9),
            entropy=base64.b64encode(os.urandom(64)).decode(),
            machine_id=self.spec.id.encode().hex().ljust(32, "0")[-32:],
            generation=int.from_bytes(self.spec.id.encode()[-5:], "big"),
        )
        await self.guest.configure(config, timeout_s=CONFIGURE_TIMEOUT_S)
        self.token = token


@dataclass(kw_only=True)
class Bed:
    """``template`` is a full snapshot with a disk; ``sleeper`` a clone of it, asleep in ``stopped``.

    ``lone`` is a machine that had no template, asleep in ``full``.
    """

    yard: Yard
    engine: SleepingEngine
    template: Path
    lone: MachineSpec
    full: Path
    sleeper: MachineSpec = field(init=False)
    stopped: Path = field(init=False)

    @property
    def snapshots(self) -> Path:
        return self.yard.data.snapshots

    @asynccontextmanager
    async def another_engine(self) -> AsyncIterator[SleepingEngine]:
        """An engine that has seen nothing yet, as a new daemon's."""
        engine = sleeping(self.yard.make_engine())
        try:
            yield engine
        finally:
            await engine.close()

    @asynccontextmanager
    async def cold_clone(self) -> AsyncIterator[tuple[MachineSpec, Link]]:
        """A disk over the template's and a network, without a VMM; all of it is removed at the end."""
        spec = replace(self.yard.spec(new_sandbox_id()), origin=self.template)
        await self.engine.prepare(spec)
        try:
            link = await self.yard.network.setup(spec.id)
            try:
                yield spec, link
            finally:
                os.close(link.tap_fd)
        finally:
            await self.engine.remove(spec.place)
            await self.yard.network.teardown(spec.id)

    @asynccontextmanager
    async def clone(self) -> AsyncIterator[Clone]:
        """A clone of the template that runs; whatever becomes of it, it is removed at the end."""
        async with self.cold_clone() as (spec, link):
            waiting = await self.engine.wait_for(spec, self.template, link)
            clone = await _run(await waiting.load(), spec)
            try:
                yield clone
            finally:
                await clone.machine.kill()

    async def start(self, engine: SleepingEngine, spec: MachineSpec, snapshot: Path) -> SleepingMachine:
        """Bring a sleeping machine to the moment it fell asleep; a failure leaves its network to nobody."""
        link = await self.yard.network.setup(spec.id)
        try:
            return await (await engine.wait_for(spec, snapshot, link)).load()
        except BaseException:
            assert await engine.adopt(spec.place) is None, "a start that failed left its VMM"
            await engine.end(spec.place)
            await self.yard.network.teardown(spec.id)
            raise
        finally:
            os.close(link.tap_fd)

    @asynccontextmanager
    async def woken(self, spec: MachineSpec, snapshot: Path) -> AsyncIterator[Clone]:
        """A machine that slept; its snapshot is good no more afterwards."""
        machine = await self.start(self.engine, spec, snapshot)
        clone = await _run(machine, spec)
        try:
            yield clone
        finally:
            await self.take_down(clone.machine, spec)

    async def take_down(self, machine: SleepingMachine, spec: MachineSpec) -> None:
        """End a machine and its network; its disk stays."""
        await machine.kill()
        await self.engine.end(spec.place)
        await self.yard.network.teardown(spec.id)

    async def put_to_sleep(self, clone: Clone) -> Path:
        """Take a machine's memory, end it and its network."""
        final = self.snapshots / f"stop-{clone.spec.id}-{secrets.token_hex(3)}"
        await snapshot_of(clone, final, with_disk=False)
        await self.take_down(clone.machine, clone.spec)
        return final

    async def wake(self, clone: Clone, snapshot: Path) -> None:
        """Let a machine go on where it fell asleep."""
        clone.moved(await self.start(self.engine, clone.spec, snapshot))
        await clone.machine.resume()
        await clone.guest.thaw()


async def _run(machine: SleepingMachine, spec: MachineSpec) -> Clone:
    clone = Clone(machine=machine, spec=spec)
    await machine.resume()
    await clone.guest.thaw()
    return clone


async def snapshot_of(clone: Clone, final: Path, *, with_disk: bool) -> None:
    """Publish a snapshot of a running machine, which is paused and frozen afterwards."""
    await clone.guest.freeze()
    clone.guest.disconnect()
    await clone.machine.pause()
    staging = await asyncio.to_thread(stage, final)
    capture = await clone.machine.capture(clone.spec, staging, with_disk=with_disk)
    await capture.store()
    await asyncio.to_thread(publish, staging, final)


MARK = "echo {0} > /dev/shm/mark; echo {0} > /var/tmp/mark; sync /var/tmp/mark"


@asynccontextmanager
async def full_snapshot(yard: Yard) -> AsyncIterator[Bed]:
    """Boot one machine, take it as a template, put it to sleep; then a clone of it, too."""
    engine = sleeping(yard.make_engine())
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(engine.close)
        spec = yard.spec(new_sandbox_id())
        undo.push_async_callback(yard.network.teardown, spec.id)
        undo.push_async_callback(engine.remove, spec.place)
        booted = Clone(machine=awake(await yard.start(engine, spec)), spec=spec)
        undo.push_async_callback(booted.machine.kill)
        await booted.guest.wait_ready(READY_TIMEOUT_S)
        await booted.run("true")
        template = yard.data.snapshots / "template"
        await snapshot_of(booted, template, with_disk=True)
        await booted.machine.resume()
        await booted.guest.thaw()
        await booted.run(MARK.format("lone"))
        bed = Bed(yard=yard, engine=engine, template=template, lone=spec, full=Path())
        bed.full = await bed.put_to_sleep(booted)
        async with bed.clone() as sleeper:
            bed.sleeper = sleeper.spec
            await sleeper.run(MARK.format("sleeper"))
            bed.stopped = await bed.put_to_sleep(sleeper)
            yield bed
