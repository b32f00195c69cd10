"""Proof by booting: whether KVM runs our kernel on this host."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from hearth.engine.base import BootFiles, MachinePlace
from hearth.engine.qemu.accelerator import KNOWN_LINE, PROOF_DEADLINE_S
from hearth.engine.qemu.command import QemuSpec
from hearth.engine.qemu.handover import Files, opened
from hearth.engine.qemu.launcher import Launcher
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.vmm_user import take_user
from hearth.errors import EngineFailed
from hearth.host import namespaces
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
        await namespaces.create(name, _nothing, discard=_forget)
        with opened(Files(kernel=boot.kernel, initramfs=boot.initramfs)) as descriptors:
            machine = await launcher.start(qemu, place, name, descriptors)
    except EngineFailed as error:
        return error.details
    else:
        return await _watch_proof(machine)
    finally:
        await launcher.end(place)
        await asyncio.to_thread(remove_tree, directory)
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
