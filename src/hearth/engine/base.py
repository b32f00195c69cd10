"""What every VM engine offers: small protocols and what differs between engines as data.

EngineFailed
├── MachineDied        the VMM ended while somebody still needed it
└── (HostUnfit)        the engine cannot run on this host at all
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hearth.errors import EngineFailed
from hearth.guest.dial import Dialer
from hearth.model import Accelerator
from hearth.network.plan import Link


class MachineDied(EngineFailed):
    """The VMM ended by itself; ``details`` holds its status and the tail of its console."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine can do, as data: callers decide by these, never by an engine's name."""

    isolated: bool
    """True when every machine has a kernel of its own."""
    snapshots: bool = False
    network: bool = True


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What an engine found out about this host; ``reason`` is a sentence for the operator."""

    engine: str
    version: str
    accelerator: Accelerator | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """Published, read-only artifacts a machine boots from."""

    kernel: Path
    initramfs: Path
    rootfs: Path


@dataclass(frozen=True, kw_only=True)
class MachinePlace:
    """Where a machine is found again, by an id that nobody else has and a directory that is its alone."""

    id: str
    directory: Path


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """One machine to launch."""

    place: MachinePlace
    cpus: int
    memory_mib: int
    boot: BootFiles

    @property
    def id(self) -> str:
        return self.place.id

    @property
    def directory(self) -> Path:
        return self.place.directory


class Machine(Protocol):
    """A running machine."""

    @property
    def id(self) -> str: ...

    @property
    def dialer(self) -> Dialer:
        """How to reach the agent inside."""
        ...

    async def wait(self) -> str:
        """Wait until the VMM ends and tell why, in one sentence."""
        ...

    async def kill(self) -> None:
        """End the VMM at once and wait for it; a dead one is fine."""
        ...

    async def release(self) -> None:
        """Let go of the VMM and leave it running, for the next daemon to adopt."""
        ...


class Engine(Protocol):
    """Starts, finds and removes machines. Every method may be called again after a crash of the daemon."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def probe(self, boot: BootFiles) -> EngineReport:
        """Find out, once per host and guest kernel, how this engine can run here.

        Raises:
            HostUnfit: it cannot.
        """
        ...

    async def prepare(self, spec: MachineSpec) -> None:
        """Make the machine's disk in its directory; undone by ``remove``."""
        ...

    async def launch(self, spec: MachineSpec, link: Link | None) -> Machine:
        """Start the VMM on its network; returns when it runs, not when the guest answers."""
        ...

    async def adopt(self, place: MachinePlace) -> Machine | None:
        """Find the living VMM of a machine launched by an earlier daemon; None when there is none.

        Raises:
            EngineFailed: one lives and does not answer now; it was left as it is.
        """
        ...

    async def end(self, place: MachinePlace) -> None:
        """End the VMM if it lives and what confines it; the disk stays. Doing it twice is fine."""
        ...

    async def leftovers(self) -> set[str]:
        """Tell the ids of machines of which something but the directory is there, for sweeping."""
        ...

    async def remove(self, place: MachinePlace) -> None:
        """End the VMM if it lives and delete what ``prepare`` and ``launch`` made. Doing it twice is fine."""
        ...
