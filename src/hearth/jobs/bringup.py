"""How a sandbox's machine comes up and goes away: named steps, each with its undo, all from the sandbox's id.

A machine boots, or it wakes with the memory of a snapshot: its own when it was stopped, a template's or another's when
it is a clone. Every undo works in a fresh process after a crash: all names follow from the id.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hearth.config import DataDirectory, Settings
from hearth.engine.base import (
    BootFiles,
    Engine,
    Machine,
    MachinePlace,
    MachineSpec,
)
from hearth.engine.manifest import VolumeRecord
from hearth.engine.snapshot import consume, discard
from hearth.guest.client import Guest
from hearth.host.clock import Clock
from hearth.jobs.abilities import awake as awake
from hearth.jobs.abilities import growing
from hearth.jobs.abilities import sleeping as sleeping
from hearth.jobs.answers import while_it_lives
from hearth.jobs.networks import connect
from hearth.jobs.outfitting import run_init, write_files
from hearth.jobs.plan import Plan, Step
from hearth.jobs.reserve import Reserve
from hearth.jobs.secrets import NOTHING_INJECTED, SecretSource
from hearth.jobs.volumes import MachineVolumes, TakenVolumes
from hearth.model import Sandbox, VolumePlacement
from hearth.network.machine import MachineNetwork
from hearth.network.plan import Link
from hearth.outfit import NO_OUTFIT, Outfit
from hearth.quota import MEBIBYTE
from hearth.wire.messages import FileContent, MachineConfig, VolumeMount

Undo = Callable[["Subject"], Awaitable[None]]
CREATE_KIND = "sandbox.create"
START_KIND = "sandbox.start"
MEMORY_PREFIX = "stop-"
CONFIGURE_TIMEOUT_S = 30.0
GROW_S_PER_BYTE = 300.0 / (1 << 40)
"""Added to that: an emulated guest on a quiet host grew its root to 1 TiB in 10 s."""
GENERATION_BITS = 48
ENTROPY_BYTES = 64
INIT_USER = "root"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """The tools that bring machines up; one for the life of a daemon."""

    data: DataDirectory
    settings: Settings
    engine: Engine
    network: MachineNetwork
    volumes: MachineVolumes
    clock: Clock
    secret: bytes = field(repr=False)
    """Of this data directory: agents' tokens are derived from it, so that none need be stored."""
    secrets: SecretSource | None = None
    """Opens users' secrets; without it machines get none."""
    image_env: Callable[[Sandbox], Awaitable[Mapping[str, str]]] | None = None
    """Tells the variables that a sandbox's image sets; what its user said counts more."""

    def place(self, sandbox_id: str) -> MachinePlace:
        """Say where a sandbox's machine is."""
        return MachinePlace(id=sandbox_id, directory=self.data.machine(sandbox_id))

    async def put_out(self, sandbox_id: str) -> None:
        """End a machine and its network; its disk stays."""
        await self.engine.end(self.place(sandbox_id))
        if self.engine.capabilities.network:
            await self.network.teardown(sandbox_id)

    async def take_down(self, sandbox_id: str) -> None:
        """Remove everything of a machine, its memory on disk too, from the id alone; doing it twice is fine."""
        await self.engine.remove(self.place(sandbox_id))
        if self.engine.capabilities.network:
            await self.network.teardown(sandbox_id)
        await self.volumes.clear(sandbox_id)
        await asyncio.to_thread(discard, self.memory(sandbox_id))

    def memory(self, sandbox_id: str) -> Path:
        """Say where a stopped sandbox's memory is."""
        return self.data.snapshot(f"{MEMORY_PREFIX}{sandbox_id}")

    def agent_token(self, sandbox_id: str) -> str:
        """Derive the token of one sandbox's agent; another sandbox's tells nothing about it."""
        return self._derive("agent", sandbox_id).hexdigest()

    def machine_id(self, sandbox_id: str) -> str:
        """Derive what stands in the guest's /etc/machine-id: 32 hex digits, the same for the life of the sandbox."""
        return self._derive("machine-id", sandbox_id).hexdigest()[:32]

    def generation(self, sandbox_id: str) -> int:
        """Derive the number by which a guest learns that its memory was copied: a fork has another than its source."""
        return int.from_bytes(self._derive("generation", sandbox_id).digest()[: GENERATION_BITS // 8], "big")

    def identity(
        self,
        sandbox_id: str,
        *,
        hostname: str,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, FileContent] | None = None,
        volumes: Sequence[VolumeMount] = (),
        generation: int | None = None,
        token: str | None = None,
        root_bytes: int | None = None,
    ) -> MachineConfig:
        """Say who a machine is from now on, with the time and fresh random bytes; use it at once.

        Args:
            generation, token: others than the sandbox's own, for a machine that is not anybody's yet.
            root_bytes: what the root file system is to grow to; None leaves it.
        """
        return MachineConfig(
            sandbox_id=sandbox_id,
            hostname=hostname,
            token=self.agent_token(sandbox_id) if token is None else token,
            unix_time_ns=int(self.clock.now().timestamp() * 1e9),
            entropy=base64.b64encode(os.urandom(ENTROPY_BYTES)).decode(),
            env=dict(env or {}),
            files=dict(files or {}),
            dns=self.network.resolvers,
            volumes=[*volumes],
            machine_id=self.machine_id(sandbox_id),
            generation=self.generation(sandbox_id) if generation is None else generation,
            root_bytes=root_bytes,
        )

    def _derive(self, purpose: str, sandbox_id: str) -> hmac.HMAC:
        return hmac.new(self.secret, f"{purpose}:{sandbox_id}".encode(), "sha256")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The input of the job: whose machine it is. Undoing needs no more."""

    sandbox_id: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """What doing needs beyond the subject; undoing has no use for it.

    Args:
        memory: the snapshot to wake with; None boots the kernel.
        consumed: ``memory`` is the machine's own and is used up: what it is from now on, the disk says.
        known_as: the sandbox whose token the agent in ``memory`` expects; None where it was never configured.
        reserve: a machine that was made ahead under this sandbox's id: its disk, network and VMM are there.
        placements: the volumes it gets.
        known: those of them that ``memory`` knows, and how they were then.
        outfit: what a new sandbox gets before it is its user's.
    """

    sandbox: Sandbox
    boot: BootFiles
    memory: Path | None = None
    consumed: bool = False
    known_as: str | None = None
    reserve: Reserve | None = None
    placements: Sequence[VolumePlacement] = ()
    known: Sequence[VolumeRecord] = ()
    outfit: Outfit = NO_OUTFIT

    @property
    def disk_bytes(self) -> int | None:
        """The size the disk is to have where that is not its image's; memory of the machine's own knows it."""
        disk_mib = self.sandbox.spec.disk_mib
        return None if disk_mib is None or self.consumed else disk_mib * MEBIBYTE

    @property
    def has_volumes(self) -> bool:
        return bool(self.placements or self.known)

    @property
    def token_owner(self) -> str | None:
        """The sandbox whose token the agent expects: a clone made ready has this one's already."""
        is_ready = self.reserve is not None and self.reserve.ready is not None
        return self.sandbox.id if is_ready else self.known_as

    def machine_spec(self, workshop: Workshop) -> MachineSpec:
        """Describe the machine to the engine."""
        return machine_spec(workshop, self.sandbox, self.boot)


@dataclass(frozen=True, kw_only=True)
class BroughtUp:
    """A machine that is up and its agent, with its identity."""

    machine: Machine
    spec: MachineSpec
    guest: Guest


class Bringup:
    """One machine's way up. The steps leave what later steps need in here; the undos use nothing but the subject.

    Args:
        order: None for undoing alone, after a crash.
    """

    def __init__(self, workshop: Workshop, order: Order | None) -> None:
        self._workshop = workshop
        self._given = order
        self._link: Link | None = None
        self._taken = TakenVolumes()
        self._machine: Machine | None = None
        self._guest: Guest | None = None

    def creation(self) -> Plan[Subject]:
        """Give the steps of a new sandbox; undone, nothing is left of it."""
        disk = Step(name="disk", do=self._make_disk, undo=self._remove_machine)
        steps = self._steps(self._remove_machine, self._give_back_volumes)
        return Plan(kind=CREATE_KIND, input_type=Subject, steps=[disk, *steps, *self._outfitting()])

    def start(self) -> Plan[Subject]:
        """Give the steps of a stopped sandbox's way up; undone, its disk is as the guest left it."""
        return Plan(kind=START_KIND, input_type=Subject, steps=self._steps(self._end_machine, self._close_volumes))

    def plans(self) -> Sequence[Plan[Subject]]:
        """Give all plans there are, for undoing what a crash left."""
        return (self.creation(), self.start())

    def _steps(self, undo_launch: Undo, undo_volumes: Undo) -> list[Step[Subject]]:
        volumes = Step(name="volumes", do=self._take_volumes, undo=undo_volumes)  # given back after the VMM's end
        network = Step(name="network", do=self._set_up_network, undo=self._tear_down_network)
        return [
            *([volumes] if self._given is None or self._given.has_volumes else []),
            *([network] if self._workshop.engine.capabilities.network else []),
            Step(name="vmm", do=self._launch, undo=undo_launch),
            Step(name="agent", do=self._reach_agent, undo=self._nothing),
            Step(name="identity", do=self._configure, undo=self._nothing),
        ]

    def _outfitting(self) -> list[Step[Subject]]:
        outfit = NO_OUTFIT if self._given is None else self._given.outfit
        files = Step(name="files", do=self._write_files, undo=self._nothing)
        init = Step(name="init", do=self._run_init, undo=self._nothing)
        return [*([files] if outfit.files else []), *([init] if outfit.init else [])]

    @property
    def guest(self) -> Guest:
        """The agent, from the step ``agent`` on."""
        if self._guest is None:
            raise AssertionError("the agent is not reached yet")
        return self._guest

    def hand_over(self) -> BroughtUp:
        """Give what a completed plan has brought up; from now on it is the caller's to end."""
        machine, guest = self._running_machine(), self.guest
        self._machine = self._guest = None
        return BroughtUp(machine=machine, spec=self._order().machine_spec(self._workshop), guest=guest)

    async def discard(self) -> None:
        """End the machine that nobody took over, if there is one."""
        self._taken.close()
        machine, self._machine = self._machine, None
        if machine is not None:
            await machine.kill()

    async def _take_volumes(self, _: Subject) -> None:
        order = self._order()
        self._taken = await self._workshop.volumes.take(order.placements)
        if order.memory is not None:
            self._taken.require_known(order.memory.name, order.known, all_of_them=order.consumed)

    async def _close_volumes(self, _: Subject) -> None:
        self._taken.close()

    async def _give_back_volumes(self, subject: Subject) -> None:
        self._taken.close()
        await self._workshop.volumes.clear(subject.sandbox_id)

    async def _make_disk(self, _: Subject) -> None:
        if self._order().reserve is None:
            await self._workshop.engine.prepare(self._order().machine_spec(self._workshop))

    async def _remove_machine(self, subject: Subject) -> None:
        await self.discard()
        await self._workshop.engine.remove(self._workshop.place(subject.sandbox_id))

    async def _end_machine(self, subject: Subject) -> None:
        await self.discard()
        await self._workshop.engine.end(self._workshop.place(subject.sandbox_id))

    async def _set_up_network(self, _: Subject) -> None:
        order = self._order()
        self._link = await connect(self._workshop.network, order.sandbox, made=order.reserve is not None)

    async def _tear_down_network(self, subject: Subject) -> None:
        self._close_tap()
        await self._workshop.network.teardown(subject.sandbox_id)

    async def _launch(self, _: Subject) -> None:
        try:
            self._machine = await self._start_vmm(self._order().machine_spec(self._workshop))
        finally:
            self._close_tap()
        disk_bytes = self._order().disk_bytes
        if disk_bytes is not None and self._order().memory is not None:
            await growing(self._machine).grow_disk(disk_bytes)
        with self._taken as taken:
            await taken.plug_into(self._machine, self._order().known if self._order().memory is not None else ())

    async def _start_vmm(self, spec: MachineSpec) -> Machine:
        memory, engine, reserve = self._order().memory, self._workshop.engine, self._order().reserve
        if reserve is not None:
            return await reserve.take()
        if memory is None:
            return await engine.launch(spec, self._link)
        waiting = await sleeping(engine).wait_for(spec, memory, self._link)
        return await waiting.load()

    def _close_tap(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            os.close(link.tap_fd)

    async def _reach_agent(self, _: Subject) -> None:
        order, machine = self._order(), self._running_machine()
        if order.memory is None:
            await self._wait_for_agent(machine)
            return
        if order.consumed:
            # Before the first instruction: from then on this memory belongs to an older disk.
            await asyncio.to_thread(consume, order.memory)
        token = self._workshop.agent_token(order.token_owner) if order.token_owner else None
        self._guest = Guest(machine.dialer, token)
        await awake(machine).resume()

    async def _wait_for_agent(self, machine: Machine) -> None:
        # Until it is configured the agent knows no token; configuring it brings one.
        guest = Guest(machine.dialer, None)
        ready = guest.wait_ready(self._workshop.settings.boot_timeout_s)
        await while_it_lives(machine, ready, until="its agent answered")
        self._guest = guest

    async def _configure(self, subject: Subject) -> None:
        sandbox, source = self._order().sandbox, self._workshop.secrets
        injected = NOTHING_INJECTED if source is None else await source.injected(sandbox)
        image_env = {} if self._workshop.image_env is None else await self._workshop.image_env(sandbox)
        config = self._workshop.identity(
            subject.sandbox_id,
            hostname=sandbox.spec.name,
            env={**image_env, **sandbox.spec.env, **injected.env},
            files=injected.contents(),
            volumes=self._workshop.volumes.mounts(self._order().placements),
            root_bytes=self._order().disk_bytes,
        )
        timeout_s = CONFIGURE_TIMEOUT_S + GROW_S_PER_BYTE * (config.root_bytes or 0)
        configuring = self.guest.configure(config, timeout_s=timeout_s)
        await while_it_lives(self._running_machine(), configuring, until="it was configured")

    async def _write_files(self, _: Subject) -> None:
        await write_files(self.guest, self._order().outfit.files)

    async def _run_init(self, _: Subject) -> None:
        # A machine of our own has a root of its own; elsewhere commands are whoever we are.
        user = INIT_USER if self._workshop.engine.capabilities.isolated else None
        await run_init(self.guest, self._order().outfit, user)

    async def _nothing(self, _: Subject) -> None:
        """Ending the VMM, an earlier step's undo, takes the guest's part along."""

    def _order(self) -> Order:
        if self._given is None:
            raise AssertionError("a bring-up without an order can only be undone")
        return self._given

    def _running_machine(self) -> Machine:
        if self._machine is None:
            raise AssertionError("there is no machine yet")
        return self._machine


def machine_spec(workshop: Workshop, sandbox: Sandbox, boot: BootFiles) -> MachineSpec:
    """Describe a sandbox's machine to the engine."""
    return MachineSpec(
        place=workshop.place(sandbox.id),
        cpus=sandbox.spec.cpus,
        memory_mib=sandbox.spec.memory_mib,
        boot=boot,
        origin=workshop.data.snapshot(sandbox.origin) if sandbox.origin is not None else None,
        disk_bytes=(sandbox.spec.disk_mib or 0) * MEBIBYTE,
    )
