"""Build what is missing: kernel, then the initramfs that fits it, and beside them the root file system."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass

from hearth.errors import HostUnfit, Unavailable
from hearth.host.process import SMALL_ENVIRONMENT
from hearth.host.threads import on_own_thread
from hearth.image.apt import Apt
from hearth.image.initramfs import build_agent
from hearth.image.kernel import build_kernel
from hearth.image.owners import require_users_means
from hearth.image.progress import OnProgress
from hearth.image.rootfs import build_rootfs
from hearth.image.store import Image, ImageStore

TOOLS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "lz4": "lz4",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Programs a build runs, with the packages that hold them."""


@dataclass(frozen=True, kw_only=True)
class BootSet:
    """What one machine boots from; ``agent`` holds the modules of ``kernel``."""

    kernel: Image
    agent: Image
    rootfs: Image


async def build_all(store: ImageStore, on_progress: OnProgress) -> BootSet:
    """Build the standard images that are missing or out of date, and give them. With nothing to do it takes seconds.

    May be interrupted at any point and run again: published images and finished downloads are used, the rest goes.

    Raises:
        HostUnfit: tools or rights are missing, or the distribution is not known.
        Unavailable: the network or the archive failed.
        NoSpace: the disk is or would be full.
    """
    check_host()
    await on_own_thread("sweep", store.sweep)
    apt = Apt(store)
    try:
        return await build_missing(store, apt, on_progress)
    except Unavailable:
        if apt.is_fresh:
            raise
    # The lists on this host were fetched some time ago and may name versions that have left the archive since.
    await apt.refresh()
    return await build_missing(store, apt, on_progress)


async def build_missing(store: ImageStore, apt: Apt, on_progress: OnProgress) -> BootSet:
    """Build from what the package lists say now, the root file system beside the other two."""

    async def kernel_and_agent() -> tuple[Image, Image]:
        kernel = await build_kernel(store, apt, on_progress)
        return kernel, await build_agent(store, apt, kernel, on_progress)

    try:
        async with asyncio.TaskGroup() as tasks:
            boot = tasks.create_task(kernel_and_agent(), name="build kernel and agent")
            rootfs = tasks.create_task(build_rootfs(store, apt, on_progress), name="build rootfs")
    except ExceptionGroup as group:
        raise first_error(group) from group
    kernel, agent = boot.result()
    return BootSet(kernel=kernel, agent=agent, rootfs=rootfs.result())


def first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Give one error of a group: what failed first cancelled the rest."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, ExceptionGroup) else error


def check_host() -> None:
    """Refuse a host that cannot build, naming everything that is missing at once.

    Raises:
        HostUnfit: programs are not installed or, without root, namespaces are not permitted.
    """
    missing = {
        tool: package for tool, package in TOOLS.items() if not shutil.which(tool, path=SMALL_ENVIRONMENT["PATH"])
    }
    if missing:
        raise HostUnfit(
            "programs needed to build images are not installed",
            details=", ".join(missing),
            resolution=f"apt-get install {' '.join(sorted(set(missing.values())))}",
        )
    if os.geteuid() != 0:
        require_users_means()
