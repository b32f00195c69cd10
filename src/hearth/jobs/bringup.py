"""How a sandbox's machine comes up and goes away: named steps, each with its undo, all from the sandbox's id.

Every undo works in a fresh process after a crash: names of directories, namespaces and processes follow from the id.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
from dataclasses import dataclass, field

from hearth.config import DataDirectory, Settings
from hearth.engine.base import BootFiles, Engine, Machine, MachineDied, MachinePlace, MachineSpec
from hearth.guest.client import Guest
from hearth.host.clock import Clock
from hearth.jobs.plan import Plan, Step
from hearth.model import Sandbox
from hearth.network.machine import MachineNetwork
from hearth.network.plan import Link
from hearth.wire.messages import MachineConfig

KIND = "sandbox.create"
CONFIGURE_TIMEOUT_S = 30.0
ENTROPY_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """The tools that bring machines up; one for the life of a daemon."""

    data: DataDirectory
    settings: Settings
    engine: Engine
    network: MachineNetwork
    clock: Clock
    secret: bytes = field(repr=False)
    """Of this data directory: agents' tokens are derived from it, so that none need be stored."""

    def place(self, sandbox_id: str) -> MachinePlace:
        """Say where a sandbox's machine is."""
        return MachinePlace(id=sandbox_id, directory=self.data.machine(sandbox_id))

    async def put_out(self, sandbox_id: str) -> None:
        """End a machine and its network; its disk stays."""
        await self.engine.end(self.place(sandbox_id))
        if self.engine.capabilities.network:
            await self.network.teardown(sandbox_id)

    async def take_down(self, sandbox_id: str) -> None:
        """Remove everything a bring-up made, from the id alone; doing it twice is fine."""
        await self.engine.remove(self.place(sandbox_id))
        if self.engine.capabilities.network:
            await self.network.teardown(sandbox_id)

    def agent_token(self, sandbox_id: str) -> str:
        """Derive the token of one sandbox's agent; another sandbox's tells nothing about it."""
        return hmac.new(self.secret, f"agent:{sandbox_id}".encode(), "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The input of the job: whose machine it is. Undoing needs no more."""

    sandbox_id: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """What doing needs beyond the subject; undoing has no use for it."""

    sandbox: Sandbox
    boot: BootFiles


class Bringup:
    """One machine's way up. The steps leave what later steps need in here; the undos use nothing but the subject.

    Args:
        order: None for undoing alone, after a crash.
    """

    def __init__(self, workshop: Workshop, order: Order | None) -> None:
        self._workshop = workshop
        self._given = order
        self._link: Link | None = None
        self._machine: Machine | None = None
        self._guest: Guest | None = None

    def plan(self) -> Plan[Subject]:
        """Give the steps in order."""
        steps = [
            Step(name="disk", do=self._make_disk, undo=self._remove_machine),
            Step(name="network", do=self._set_up_network, undo=self._tear_down_network),
            Step(name="vmm", do=self._launch, undo=self._remove_machine),
            Step(name="agent", do=self._wait_for_agent, undo=self._nothing),
            Step(name="identity", do=self._configure, undo=self._nothing),
        ]
        if not self._workshop.engine.capabilities.network:
            steps = [step for step in steps if step.name != "network"]
        return Plan(kind=KIND, input_type=Subject, steps=steps)

    def hand_over(self) -> tuple[Machine, Guest]:
        """Give what a completed plan has brought up; from now on it is the caller's to end."""
        machine, guest = self._running_machine(), self._guest
        if guest is None:
            raise AssertionError("the plan has not run to its end")
        self._machine = self._guest = None
        return machine, guest

    async def discard(self) -> None:
        """End the machine that nobody took over, if there is one."""
        machine, self._machine = self._machine, None
        if machine is not None:
            await machine.kill()

    async def _make_disk(self, subject: Subject) -> None:
        await self._workshop.engine.prepare(self._spec(subject))

    async def _remove_machine(self, subject: Subject) -> None:
        await self.discard()
        await self._workshop.engine.remove(self._workshop.place(subject.sandbox_id))

    async def _set_up_network(self, subject: Subject) -> None:
        self._link = await self._workshop.network.setup(subject.sandbox_id)

    async def _tear_down_network(self, subject: Subject) -> None:
        self._close_tap()
        await self._workshop.network.teardown(subject.sandbox_id)

    async def _launch(self, subject: Subject) -> None:
        try:
            self._machine = await self._workshop.engine.launch(self._spec(subject), self._link)
        finally:
            self._close_tap()

    def _close_tap(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            os.close(link.tap_fd)

    async def _wait_for_agent(self, _: Subject) -> None:
        machine = self._running_machine()
        # Until it is configured the agent knows no token; configuring it brings one.
        guest = Guest(machine.dialer, None)
        ready = asyncio.create_task(guest.wait_ready(self._workshop.settings.boot_timeout_s), name="agent ready")
        ended = asyncio.create_task(machine.wait(), name="machine ended")
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise MachineDied(
                    "the machine ended before its agent answered",
                    details=ended.result(),
                    resolution="run 'hearth doctor'; the details hold the guest's last words",
                )
            await ready
        finally:
            for task in (ready, ended):
                task.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)
        self._guest = guest

    async def _configure(self, subject: Subject) -> None:
        if self._guest is None:
            raise AssertionError("configured before the agent answered")
        config = MachineConfig(
            sandbox_id=subject.sandbox_id,
            hostname=self._order().sandbox.spec.name,
            token=self._workshop.agent_token(subject.sandbox_id),
            unix_time_ns=int(self._workshop.clock.now().timestamp() * 1e9),
            entropy=base64.b64encode(os.urandom(ENTROPY_BYTES)).decode(),
            env=dict(self._order().sandbox.spec.env),
        )
        await self._guest.configure(config, timeout_s=CONFIGURE_TIMEOUT_S)

    async def _nothing(self, _: Subject) -> None:
        """Ending the VMM, an earlier step's undo, takes the guest's part along."""

    def _order(self) -> Order:
        if self._given is None:
            raise AssertionError("a bring-up without an order can only be undone")
        return self._given

    def _spec(self, subject: Subject) -> MachineSpec:
        wanted = self._order().sandbox.spec
        return MachineSpec(
            place=self._workshop.place(subject.sandbox_id),
            cpus=wanted.cpus,
            memory_mib=wanted.memory_mib,
            boot=self._order().boot,
        )

    def _running_machine(self) -> Machine:
        if self._machine is None:
            raise AssertionError("there is no machine yet")
        return self._machine
