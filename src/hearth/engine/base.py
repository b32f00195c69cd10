"""What every VM engine offers: small protocols and what differs between engines as data.

EngineFailed
├── MachineDied        the VMM ended while somebody still needed it
├── SnapshotRefused    a snapshot is damaged, or was made by another VMM, kernel, agent or shape
└── (HostUnfit)        the engine cannot run on this host at all
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from hearth.engine.budget import Turn
from hearth.errors import EngineFailed
from hearth.guest.dial import Dialer
from hearth.model import Accelerator
from hearth.network.plan import Link


class MachineDied(EngineFailed):
    """The VMM ended by itself; ``details`` holds its status and the tail of its console."""


class SnapshotRefused(EngineFailed):
    """A snapshot cannot be started from; the machine's disk, if it has one, is as it was."""


class RunState(StrEnum):
    """Whether a living machine's CPUs run, as its VMM tells."""

    RUNNING = "running"
    PAUSED = "paused"


@dataclass(frozen=True, kw_only=True)
class VolumePlace:
    """A disk that every machine has from its start and that is empty until a volume is put behind it.

    ``device`` is the guest's path of it.
    """

    number: int
    device: str
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine can do, as data: callers decide by these, never by an engine's name."""

    isolated: bool
    """True when every machine has a kernel of its own."""
    sleep: bool = False
    """Machines are SleepingMachine, the engine is a SleepingEngine: pause, snapshot, restore."""
    network: bool = True
    disk_size: bool = False
    """Machines are GrowingMachine: their disks may be larger than their images."""
    volume_places: tuple[VolumePlace, ...] = ()
    """Where volumes can be; with any, machines are VolumeMachine."""


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What an engine found out about this host; ``reason`` is a sentence for the operator."""

    engine: str
    version: str
    accelerator: Accelerator | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """Published, read-only artifacts a machine boots from, each in a directory named as its image."""

    kernel: Path
    initramfs: Path
    rootfs: Path
    rootfs_sha256: str

    @property
    def kernel_id(self) -> str:
        return self.kernel.parent.name

    @property
    def agent_id(self) -> str:
        return self.initramfs.parent.name

    @property
    def rootfs_id(self) -> str:
        return self.rootfs.parent.name


@dataclass(frozen=True, kw_only=True)
class MachinePlace:
    """Where a machine is found again, by an id that nobody else has and a directory that is its alone."""

    id: str
    directory: Path


@dataclass(frozen=True, kw_only=True)
class VolumeSeal:
    """A volume in a machine and how it was: memory that knows it must not meet another one. ``mtime_ns`` may be 0."""

    place: int
    volume: str
    mount: str
    read_only: bool
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """One machine to launch or restore. ``volumes`` are those that a capture is to speak of.

    ``origin`` is the snapshot (a published directory, see ``hearth.engine.snapshot``) whose frozen disk the machine's
    own disk lies over, None for a disk over ``boot.rootfs``. It stays the same for the life of the disk. ``disk_bytes``
    is the size of the machine's disk; 0 stands for that of ``boot.rootfs``, which is the least.
    """

    place: MachinePlace
    cpus: int
    memory_mib: int
    boot: BootFiles
    origin: Path | None = None
    volumes: tuple[VolumeSeal, ...] = ()
    disk_bytes: int = 0

    @property
    def id(self) -> str:
        return self.place.id

    @property
    def directory(self) -> Path:
        return self.place.directory


@dataclass(frozen=True, kw_only=True)
class MachineEnd:
    """How a VMM ended, as far as this host can tell.

    Args:
        how: in words.
        status: its exit status, None where it is not known, as of a VMM an earlier daemon started.
        signal: the signal that ended it.
        console: the tail of the guest's serial console; printable, but the guest's words.
        events: what the VMM reported, each as one text.
        oom_kills: processes of the machine's control group that the host's kernel killed for want of memory.
        limit_hits: how often that group reached its limit.
    """

    how: str
    status: int | None = None
    signal: int | None = None
    console: str = ""
    events: tuple[str, ...] = ()
    oom_kills: int = 0
    limit_hits: int = 0

    def __str__(self) -> str:
        return f"{self.how}; last console lines:\n{self.console}" if self.console else self.how


class Machine(Protocol):
    """A running machine."""

    @property
    def id(self) -> str: ...

    @property
    def dialer(self) -> Dialer:
        """How to reach the agent inside."""
        ...

    async def wait(self) -> MachineEnd:
        """Wait until the VMM ends and tell how."""
        ...

    async def kill(self) -> None:
        """End the VMM at once and wait for it; a dead one is fine."""
        ...

    async def release(self) -> None:
        """Let go of the VMM and leave it running, for the next daemon to adopt."""
        ...


@runtime_checkable
class SleepingMachine(Machine, Protocol):
    """A machine that can be stopped in its tracks and taken down in memory (``Capabilities.sleep``)."""

    async def run_state(self) -> RunState:
        """Ask the VMM whether the CPUs run."""
        ...

    async def pause(self) -> None:
        """Stop the CPUs and write out what the VMM holds of the disks; doing it twice is fine."""
        ...

    async def resume(self) -> None:
        """Let the CPUs run on; doing it twice is fine."""
        ...

    async def halted(self) -> str:
        """Wait until the VMM stops the CPUs by itself, as it does when the disk below it is full, and tell why.

        ``resume`` lets it try again. Waits for ever where that never happens.
        """
        ...

    async def page_out(self) -> int:
        """Ask the host to page out the memory of a paused machine; tells how many bytes that was asked for.

        Raises:
            HostUnfit: the host has no swap, or its kernel refuses.
        """
        ...

    def turn(self, spec: MachineSpec, *, stays_paused: bool) -> AbstractAsyncContextManager[Turn]:
        """Wait, before the machine is paused, until there is memory for its capture, and hold that until it is stored.

        Args:
            stays_paused: the machine is not to run on; this takes little, however large the machine is.
        """
        ...

    async def capture(self, spec: MachineSpec, staging: Path, *, with_disk: bool, turn: Turn | None = None) -> Capture:
        """Take what a snapshot needs of a paused machine; it may run on as soon as this returns.

        Args:
            spec: what the machine was launched or restored from.
            staging: an empty directory on the data directory's file system.
            with_disk: copy the machine's own disk, too, for others to start from; else it stays with the machine.
            turn: where the machine stays paused by it, it must do so until the capture is stored; None takes as much
                memory as the machine has written, without asking.

        Raises:
            Conflict: the machine is not paused.
            NoSpace: the file system is full.
            EngineFailed: the VMM did not give its state.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class VolumeLayout:
    """How the bytes of an open volume are to be read.

    Args:
        format: ``raw`` or ``qcow2``.
        offset_bytes, size_bytes: the part of the disk in it that the guest gets; a size of 0 stands for all of it.
        is_block: it is a block device of the host.
        base: descriptor of the file that it lies over, -1 for none; ``base_format`` how that is to be read.
    """

    format: str = "raw"
    offset_bytes: int = 0
    size_bytes: int = 0
    is_block: bool = False
    base: int = -1
    base_format: str = "raw"

    @property
    def is_plain(self) -> bool:
        """Whether the file is what the guest gets, byte by byte."""
        return self == PLAIN


PLAIN = VolumeLayout()


@runtime_checkable
class VolumeMachine(Machine, Protocol):
    """A machine that can be given volumes and gives them back (``Capabilities.volume_places``).

    The caller keeps others from pausing and resuming it meanwhile.
    """

    async def attach_volume(
        self, place: int, descriptor: int, *, layout: VolumeLayout = PLAIN, is_known: bool = False
    ) -> None:
        """Put an open volume into an empty place; on failure the place is empty again.

        Args:
            descriptor: open for reading alone in a read-only place; stays the caller's.
            is_known: the guest's memory has the volume there already, as that of a machine which is paused and was
                stopped with it: the guest is told nothing.

        Raises:
            Conflict: the place is taken.
            InvalidInput: the volume ends inside a sector.
            EngineFailed, TimedOut: the VMM refused or did not answer.
        """
        ...

    async def detach_volume(self, place: int) -> None:
        """Take the volume out of a place of a running machine, whose guest has unmounted it; an empty one is fine.

        Raises:
            EngineFailed, TimedOut: the VMM refused, as when what was written cannot be flushed; the volume stays.
        """
        ...

    async def filled_places(self) -> set[int]:
        """Ask the VMM which places hold a volume."""
        ...


@runtime_checkable
class GrowingMachine(Machine, Protocol):
    """A machine whose disk can grow while it is there (``Capabilities.disk_size``)."""

    async def grow_disk(self, size_bytes: int) -> None:
        """Make the machine's disk as large as that and tell its guest, which then grows its file system itself.

        A disk of that size already is told of again, which does no harm.

        Raises:
            EngineFailed, TimedOut: the VMM refused or did not answer.
        """
        ...


class WaitingMachine(Protocol):
    """A VMM that was started with the memory of a snapshot and waits for the rest of it."""

    @property
    def id(self) -> str: ...

    async def load(self) -> SleepingMachine:
        """Bring it to the moment of the snapshot and leave it paused; used once. It is ended if that fails.

        Raises:
            SnapshotRefused: the snapshot is damaged.
            EngineFailed, TimedOut: the VMM did not take the state.
        """
        ...

    async def kill(self) -> None:
        """End the VMM at once; after ``load`` it is the machine's to be ended."""
        ...

    async def wait(self) -> MachineEnd:
        """Wait until the VMM ends and tell how."""
        ...


class Capture(Protocol):
    """What was taken of a paused machine and is not all on disk yet."""

    async def store(self) -> None:
        """Write out the rest, with checksums and the manifest, all synced, so that ``publish`` may follow.

        Raises:
            NoSpace: the file system is full.
        """
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


@runtime_checkable
class SleepingEngine(Engine, Protocol):
    """An engine whose machines sleep on disk and wake from there."""

    async def fingerprint(self, spec: MachineSpec) -> str:
        """Hash what a snapshot taken of such a machine now would depend on, but not its disk, in hex."""
        ...

    async def preload(self, snapshot: Path) -> None:
        """Bring what machines will start from into memory ahead of the first one.

        Raises:
            SnapshotRefused: it is damaged.
        """
        ...

    async def forget(self, snapshot_id: str) -> None:
        """Let go of what is kept of a snapshot in memory; machines that run on it keep what they need."""
        ...

    async def close(self) -> None:
        """Let go of everything kept in memory; machines are left as they are."""
        ...

    async def export_disk(self, spec: MachineSpec, target: Path, *, own: bool) -> None:
        """Write a whole disk as one raw file, durably.

        Args:
            spec: whose disk; nobody may have it open.
            target: must not exist.
            own: with what the machine wrote itself; else as its ``origin`` is.

        Raises:
            SnapshotRefused: a layer of it is damaged, or names files of its own.
            NoSpace: the file system is full; nothing is left.
            EngineFailed, TimedOut: it could not be written; nothing is left.
        """
        ...

    async def wait_for(self, spec: MachineSpec, snapshot: Path, link: Link | None) -> WaitingMachine:
        """Start a VMM on the machine's disk with the memory of ``snapshot``; ``load`` does the rest.

        Args:
            spec: of the same CPUs, memory and boot files as the snapshot's.
            snapshot: a published directory; it is read and verified, never changed.

        Raises:
            SnapshotRefused: it is damaged or does not fit; ``details`` tell what differs.
            EngineFailed: the VMM ended or did not take the state.
        """
        ...
