"""The set-up of this host: build the images that are missing, then find out by booting which accelerator works."""

from __future__ import annotations

from dataclasses import dataclass

from hearth.config import DataDirectory
from hearth.control.images import AGENT_NAME, KERNEL_NAME, Images
from hearth.control.net_mode import NetMode, available, confinement_of
from hearth.engine.base import BootFiles, EngineReport
from hearth.engine.qemu.engine import QemuEngine
from hearth.errors import HostUnfit, NotFound, Unavailable
from hearth.host.cgroups import detect
from hearth.host.directory import prepare_directory
from hearth.image.build import build_all
from hearth.image.progress import OnProgress, Progress
from hearth.image.store import Image, ImageStore
from hearth.model import SandboxSpec
from hearth.network.machine import MachineNetwork
from hearth.network.user import UserNetwork

PROBE_TAG = "probe"
"""Marks what a probe makes while it runs: it may run beside the daemon of the same directory."""
STANDARD_IMAGE = SandboxSpec(name="standard").image


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What the set-up has left: images ready to boot, and how they will run."""

    kernel: Image
    agent: Image
    rootfs: Image
    report: EngineReport


async def set_up(data: DataDirectory, on_progress: OnProgress) -> SetUp:
    """Make this host ready; may run any number of times and beside a running daemon.

    Raises:
        HostUnfit: a tool or right is missing.
        NoSpace: there is no room for the images.
        CommandFailed: a build step failed; the details hold its last words.
    """
    data.check()
    data = prepare_directory(data)
    built = await build_all(ImageStore(data), on_progress)
    on_progress(Progress(stage="accelerator", fraction=None, message="finding out what runs guests here"))
    boot = BootFiles(
        kernel=built.kernel.path,
        initramfs=built.agent.path,
        rootfs=built.rootfs.path,
        rootfs_sha256=built.rootfs.sha256,
    )
    report = await probe_engine(data, boot)
    on_progress(Progress(stage="accelerator", fraction=1.0, message=f"{report.accelerator}: {report.reason}"))
    return SetUp(kernel=built.kernel, agent=built.agent, rootfs=built.rootfs, report=report)


def images_there(data: DataDirectory) -> dict[str, bool]:
    """Tell of each image that the set-up makes whether there is one; makes nothing, not even the directory."""
    store = ImageStore(data)
    found = {}
    for name in (KERNEL_NAME, AGENT_NAME, STANDARD_IMAGE):
        try:
            found[name] = store.get(name).path.exists()
        except (NotFound, FileNotFoundError):
            found[name] = False
    return found


async def probe_engine(data: DataDirectory, boot: BootFiles) -> EngineReport:
    """Ask the QEMU engine how it runs machines here; the first time on a host this boots one."""
    in_user_mode = available() is NetMode.USER
    network = UserNetwork(PROBE_TAG, data.machines) if in_user_mode else MachineNetwork(PROBE_TAG)
    engine = QemuEngine(
        verdicts=data.verdicts,
        dialer_for=network.dialer,
        cgroups=detect(PROBE_TAG),
        confinement=confinement_of(network),
    )
    return await engine.probe(boot)


async def report_of_engine(data: DataDirectory) -> EngineReport | None:
    """Give the engine's report for the doctor; None before there are images, or without QEMU."""
    try:
        boot = await Images(ImageStore(data)).boot_files(STANDARD_IMAGE)
        return await probe_engine(data, boot)
    except (NotFound, Unavailable, HostUnfit):
        return None
