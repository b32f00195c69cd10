"""What keeps a VMM from this host: by root's means, or by those every user has."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hearth.engine.qemu import passt
from hearth.engine.qemu.accelerator import KVM_DEVICE, kvm_groups
from hearth.engine.qemu.command import Descriptor, Wire
from hearth.engine.qemu.handover import log_file
from hearth.engine.qemu.vmm_user import user_of
from hearth.host import enclosure, namespaces
from hearth.host.spawn import Child, setpriv_prefix, spawn
from hearth.host.threads import on_own_thread
from hearth.network.plan import PLAN

ENCLOSED_EXTRA_MIB = 1024
"""What counts against RLIMIT_DATA without being used: the stacks of up to some hundred threads, arenas of malloc."""
OPEN_FILES_MAX = 4096
PROCESSES_BESIDE = 3
"""The porter, passt, and the encloser for a moment, count among the user's processes inside."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much a VMM may take."""

    memory_mib: int
    tasks: int


class Confinement(Protocol):
    """Starts VMMs confined."""

    @property
    def wire(self) -> Wire:
        """What the other end of the guests' wires is."""
        ...

    async def start(
        self,
        command: Sequence[str],
        directory: Path,
        namespace: str | None,
        descriptors: Mapping[int, int],
        bounds: Bounds,
    ) -> Child:
        """Start a command; what it says goes to the log in the machine's ``directory``."""
        ...


class RootsMeans:
    """A user id of its own, and the network namespace of the machine. Control groups come from the launcher."""

    wire = Wire.TAP

    async def start(
        self,
        command: Sequence[str],
        directory: Path,
        namespace: str | None,
        descriptors: Mapping[int, int],
        bounds: Bounds,
    ) -> Child:
        """Start a command in the namespace; ``bounds`` are the control group's business."""
        del bounds
        with log_file(directory) as output:
            words = [*unprivileged(directory), *command]
            start = functools.partial(spawn, words, descriptors=descriptors, output=output)
            # Inside the machine's own namespace: a VMM that was broken out of finds no network there either.
            return await namespaces.enter(namespace, start, discard=enclosure.bury) if namespace else start()


class UsersMeans:
    """Namespaces of the VMM's own, with nothing in them, and resource limits in place of control groups."""

    def __init__(self, wire: Wire = Wire.QEMU) -> None:
        self.wire = wire

    async def start(
        self,
        command: Sequence[str],
        directory: Path,
        namespace: str | None,
        descriptors: Mapping[int, int],
        bounds: Bounds,
    ) -> Child:
        """Start a command enclosed, with the way to its agent by the gate among ``descriptors``.

        Raises:
            HostUnfit: the kernel permits no enclosure.
        """
        del namespace
        enclosed = enclosure.Enclosed(
            argv=command,
            devices=[str(KVM_DEVICE)],
            limits={
                "RLIMIT_DATA": (bounds.memory_mib + ENCLOSED_EXTRA_MIB) * 1024 * 1024,
                "RLIMIT_NPROC": bounds.tasks + PROCESSES_BESIDE,
                "RLIMIT_NOFILE": OPEN_FILES_MAX,
                "RLIMIT_CORE": 0,
            },
            gate=Descriptor.TAP,
            switch=passt.switch(PLAN) if self.wire is Wire.PASST else None,
        )
        with log_file(directory) as output:
            start = functools.partial(
                enclosure.start, enclosed, descriptors=descriptors, output=output, prefix=unprivileged(directory)
            )
            return await on_own_thread("start a VMM", start, discard=enclosure.bury)


def unprivileged(directory: Path) -> list[str]:
    """Give the words that make a command run as the user of a machine's directory, where that is another than ours."""
    user = user_of(directory)
    return setpriv_prefix(user, user, groups=kvm_groups()) if user and os.geteuid() == 0 else []
