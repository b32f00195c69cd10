"""Machines of the bench's own, without a daemon: what the daemon does to one, step by step, so that steps can be timed.

All run on an event loop that only runs while somebody waits for it. At the end nothing is left of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hearth.bench.daemon import data_directory, need_images
from hearth.bench.processes import find_program
from hearth.bench.row import Skipped
from hearth.bench.samples import SampleFailed
from hearth.config import Settings
from hearth.control.fleet import Member
from hearth.control.images import Images
from hearth.control.pool import Claimed, Pool
from hearth.control.templates import Shape, Templates
from hearth.control.tools import make_workshop
from hearth.engine.base import BootFiles, SleepingMachine
from hearth.engine.qemu.launcher import BINARY
from hearth.engine.qemu.machine import QemuMachine
from hearth.guest.client import Guest
from hearth.host.clock import SystemClock
from hearth.host.directory import prepare_directory
from hearth.host.identity import new_sandbox_id
from hearth.image.store import ImageStore
from hearth.jobs.bringup import Bringup, Order, Subject, Workshop, awake, sleeping
from hearth.model import Accelerator, Sandbox, SandboxSpec, SandboxState
from hearth.wire.messages import ExecRequest

GREETING = b"hearth\n"
ECHO = ExecRequest(argv=["echo", "hearth"])
COMMAND_TIMEOUT_S = 120.0
MAX_OUTPUT_BYTES = 1 << 20
FILL_TIMEOUT_S = 60.0
FILL_POLL_S = 0.02
IMAGE = "debian"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Seconds from the beginning: the agent's first reply, and the first output of ``echo``."""

    reply_s: float
    output_s: float


@dataclass(frozen=True, kw_only=True)
class Living:
    """A machine that is up and has its identity."""

    id: str
    member: Member
    moments: Moments

    @property
    def guest(self) -> Guest:
        return self.member.guest

    @property
    def machine(self) -> SleepingMachine:
        return awake(self.member.machine)

    @property
    def pid(self) -> int:
        """Of its VMM."""
        if not isinstance(self.member.machine, QemuMachine):
            raise AssertionError("the bench's machines are QEMU's")
        return self.member.machine.pid


@dataclass(kw_only=True)
class House:
    """Makes machines of one shape."""

    workshop: Workshop
    templates: Templates
    boot_files: BootFiles
    runner: asyncio.Runner
    accelerator: Accelerator
    spec: SandboxSpec
    template_id: str = ""
    _living: dict[str, Living] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        return Shape(boot=self.boot_files, cpus=self.spec.cpus, memory_mib=self.spec.memory_mib)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the loop until this is done."""
        return self.runner.run(work)

    async def boot(self) -> Living:
        """Boot a machine as one without a template is, to its first output."""
        return await self._bring_up(new_sandbox_id(), snapshot=None)

    async def clone(self) -> Living:
        """Clone the template, to the first output of the clone."""
        return await self._bring_up(new_sandbox_id(), snapshot=await self.template())

    async def copy(self, snapshot_id: str, known_as: str) -> Living:
        """Start another machine where a snapshot was taken of machine ``known_as``."""
        return await self._bring_up(new_sandbox_id(), snapshot=snapshot_id, known_as=known_as)

    async def template(self) -> str:
        """Give the template, made at the first call."""
        if not self.template_id:
            self.template_id = await self.templates.ensure(self.shape)
        return self.template_id

    @contextlib.contextmanager
    def pool(self) -> Iterator[Pool]:
        """Keep one clone ready; it is made only while the loop runs, so ``fill`` before others are measured."""
        pool = Pool(self.workshop, self.templates, ready=1, waiting=0)
        keeping = self.run(self._keep(pool))
        try:
            yield pool
        finally:
            keeping.cancel()
            self.run(_ended(keeping))

    async def fill(self, pool: Pool) -> None:
        """Wait until the pool's clone is ready.

        Raises:
            SampleFailed: it was not made.
        """
        deadline_s = time.monotonic() + FILL_TIMEOUT_S
        while not pool.sizes()["ready"]:
            if time.monotonic() > deadline_s:
                raise SampleFailed("nothing was made ahead")
            await asyncio.sleep(FILL_POLL_S)

    async def claim(self, pool: Pool) -> Living:
        """Bring up the clone that the pool has ready."""
        claimed = pool.claim(self.shape, await self.template())
        if claimed is None:
            raise SampleFailed("nothing was made ahead")
        return await self._bring_up(claimed.sandbox_id, snapshot=self.template_id, claimed=claimed)

    async def _keep(self, pool: Pool) -> asyncio.Task[None]:
        pool.claim(self.shape, await self.template())  # there is none yet: asking makes it wanted
        return asyncio.create_task(pool.run(), name="bench pool")

    async def end(self, living: Living) -> None:
        """End a machine and remove all it has."""
        self._living.pop(living.id, None)
        await living.member.machine.kill()
        await self.workshop.take_down(living.id)

    async def close(self) -> None:
        """End everything."""
        for living in list(self._living.values()):
            await self.end(living)
        await self.templates.close()
        await sleeping(self.workshop.engine).close()

    async def _bring_up(
        self, sandbox_id: str, *, snapshot: str | None, known_as: str | None = None, claimed: Claimed | None = None
    ) -> Living:
        sandbox = Sandbox(
            id=sandbox_id,
            owner="bench",
            spec=self.spec,
            state=SandboxState.CREATING,
            created_at=self.workshop.clock.now(),
            origin=snapshot,
        )
        order = Order(
            sandbox=sandbox,
            boot=self.boot_files,
            memory=None if snapshot is None else self.workshop.data.snapshot(snapshot),
            known_as=known_as,
            reserve=None if claimed is None else claimed.reserve,
        )
        bringup = Bringup(self.workshop, order)
        started = time.perf_counter()
        reply_s = 0.0
        try:
            for step in bringup.creation().steps:
                await step.do(Subject(sandbox_id=sandbox_id))
                if step.name == "agent":
                    await bringup.guest.activity()
                    reply_s = time.perf_counter() - started
            up = bringup.hand_over()
            member = Member(machine=up.machine, spec=up.spec, guest=up.guest)
            await first_output(up.guest)
        except BaseException:
            await bringup.discard()
            await self.workshop.take_down(sandbox_id)
            raise
        moments = Moments(reply_s=reply_s, output_s=time.perf_counter() - started)
        living = self._living[sandbox_id] = Living(id=sandbox_id, member=member, moments=moments)
        return living


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)


async def first_output(guest: Guest) -> float:
    """Run ``echo``; gives the seconds until its output is here.

    Raises:
        SampleFailed: it said something else.
    """
    started = time.perf_counter()
    said = b""
    async with guest.start(ECHO) as execution:
        async for output in execution:
            said += output.data
            if said == GREETING:
                return time.perf_counter() - started
    raise SampleFailed(f"the machine said {said!r}")


async def output_of(guest: Guest, script: str) -> str:
    """Run a shell script as root and give what it wrote.

    Raises:
        SampleFailed: it failed.
    """
    request = ExecRequest(argv=["/bin/sh", "-c", script], user="root")
    done = await guest.run(request, timeout_s=COMMAND_TIMEOUT_S, max_output_bytes=MAX_OUTPUT_BYTES)
    if done.exit_code != 0:
        raise SampleFailed(f"{script!r}: exit code {done.exit_code}: {done.stderr[-200:].decode(errors='replace')}")
    return done.stdout.decode()


@contextlib.contextmanager
def house(*, memory_mib: int = 256) -> Iterator[House]:
    """Give a house of QEMU machines for this host's images.

    Raises:
        Skipped: root, images or QEMU are missing.
    """
    need_root()
    need_images()
    find_program(BINARY)
    with data_directory() as fresh, asyncio.Runner() as runner:
        data = prepare_directory(fresh)
        workshop = make_workshop(data, Settings(), SystemClock())
        boot_files = runner.run(Images(ImageStore(data)).boot_files(IMAGE))
        report = runner.run(sleeping(workshop.engine).probe(boot_files))
        made = House(
            workshop=workshop,
            templates=Templates(workshop),
            boot_files=boot_files,
            runner=runner,
            accelerator=report.accelerator or Accelerator.TCG,
            spec=SandboxSpec(name="bench", memory_mib=memory_mib),
        )
        try:
            yield made
        finally:
            runner.run(made.close())


def need_root() -> None:
    """Check that machines can be made.

    Raises:
        Skipped: this is not root.
    """
    if os.geteuid() != 0:
        raise Skipped("real machines need root")
