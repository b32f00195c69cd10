"""Proof by booting: whether KVM runs our kernel on this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from hearth.engine.base import BootFiles, MachinePlace
from hearth.engine.qemu.accelerator import KNOWN_LINE, PROOF_DEADLINE_S
from hearth.engine.qemu.command import Descriptor, QemuSpec, Wire
from hearth.engine.qemu.handover import Files, opened
from hearth.engine.qemu.launcher import Launcher
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.vmm_user import take_user
from hearth.errors import EngineFailed
from hearth.host import namespaces
from hearth.host.enclosure import open_gate
from hearth.host.files import remove_tree
from hearth.model import Accelerator


async def prove_kvm(launcher: Launcher, boot: BootFiles, scratch: Path) -> str | None:
    """Boot the guest kernel under KVM to init's first line; None when it got there, else how it failed.

    Args:
        scratch: an existing directory for a short-lived one of the VMM's own.
    """
    directory = Path(tempfile.mkdtemp(prefix="proof-", dir=scratch))
    take_user(directory)
    place = MachinePlace(id=f"proof-{os.getpid()}", directory=directory)
    name = launcher.process_name(place.id)
    qemu = QemuSpec(name=name, accelerator=Accelerator.KVM, cpus=1, memory_mib=256, tsc_khz=None, disk=False)
    try:
        async with _no_network(launcher, name, directory) as (namespace, gate):
            try:
                with opened(Files(kernel=boot.kernel, initramfs=boot.initramfs)) as descriptors:
                    machine = await launcher.start(qemu, place, namespace, {**descriptors, **gate})
                return await _watch_proof(machine)
            finally:
                await launcher.end(place)
    except EngineFailed as error:
        return error.details
    finally:
        await asyncio.to_thread(remove_tree, directory)


@contextlib.asynccontextmanager
async def _no_network(
    launcher: Launcher, name: str, directory: Path
) -> AsyncIterator[tuple[str | None, Mapping[int, int]]]:
    """Give the network of a machine that has none: a namespace or, where there are none to be had, a gate."""
    if launcher.wire is not Wire.TAP:
        with open_gate(directory / "gate.sock") as gate:
            yield None, {Descriptor.TAP: gate.fileno()}
        return
    try:
        await namespaces.create(name, _nothing, discard=_forget)
        yield name, {}
    finally:
        await namespaces.delete(name)


async def _watch_proof(machine: QemuMachine) -> str | None:
    try:
        async with asyncio.timeout(PROOF_DEADLINE_S):
            if await machine.console.wait_for(KNOWN_LINE):
                return None
            return f"the VMM ended early ({machine.console.tail(1) or 'no output'})"
    except TimeoutError:
        return f"no sign of init within {PROOF_DEADLINE_S:g} s"
    finally:
        await machine.kill()


def _nothing() -> None:
    """An empty namespace is all that is wanted."""


def _forget(_: None) -> None:
    """Nothing was made."""
