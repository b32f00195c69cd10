"""Saves a sandbox's disk as an image that others are created of.

Who the sandbox was stays in the image only until a machine boots from it: host name, machine-id and SSH host keys are
made anew before the first command of a sandbox runs, as for every other image. Files that users left stay.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from hearth.control.forks import Forks
from hearth.control.images import Images
from hearth.control.shelf import SAVE_PREFIX, Shelf
from hearth.control.sleep import BOOTABLE, Sleep
from hearth.control.space import require_space
from hearth.engine.base import MachineSpec
from hearth.errors import Conflict
from hearth.host.identity import new_id
from hearth.image.store import Image, Made, build_key
from hearth.jobs.bringup import Workshop, machine_spec, sleeping
from hearth.model import ImageKind, Sandbox, SandboxState, User, check_name
from hearth.quota import Amounts, check_quotas
from hearth.store.base import Store

log = structlog.get_logger(__name__)

ROOTFS = "rootfs.ext4"
OFF = (SandboxState.STOPPED, *BOOTABLE)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Makes images of sandboxes."""

    store: Store
    workshop: Workshop
    sleep: Sleep
    forks: Forks
    images: Images
    shelf: Shelf
    making: Counter[str] = field(default_factory=Counter)
    """How many images of whom are being made now: they count before they are there."""
    names: set[str] = field(default_factory=set)
    """Of the images being made now: each is one save's alone until that is done."""

    async def save(self, user: User, sandbox: Sandbox, name: str) -> Image:
        """Make an image of a sandbox's disk, which stands for ``name`` from then on.

        A running sandbox is copied at one moment and runs on. Of one that is not running the files themselves are read;
        who wants to wake it meanwhile waits.

        Raises:
            InvalidInput: ``name`` is none, or stands for another kind of image.
            Conflict: somebody else's image has that name, or another one is being saved under it.
            QuotaExceeded: the user has as many images as may be had.
            NoSpace, EngineFailed, GuestFailed, TimedOut, SnapshotRefused: nothing is left of it.
        """
        check_name(name)
        sleeping(self.workshop.engine)
        with self._claim(name):
            return await self._save_counted(user, sandbox, name)

    @contextlib.contextmanager
    def _claim(self, name: str) -> Iterator[None]:
        """Keep a name from all other saves; whose it is already is asked for inside."""
        if name in self.names:
            raise _taken(name, "another image is being saved under it")
        self.names.add(name)
        try:
            yield
        finally:
            self.names.remove(name)

    async def _save_counted(self, user: User, sandbox: Sandbox, name: str) -> Image:
        await self._require_name(user, name)
        await require_space(self.workshop, self.shelf)
        limits, held = await self.store.quotas.limits(user.id), await self.images.owned(user)
        # Nothing is waited for from here until it counts: of many at once the last one allowed is the last.
        check_quotas(limits, Amounts(images=held + self.making[user.id]), Amounts(images=1))
        self.making[user.id] += 1
        try:
            return await self._save(user, sandbox, name)
        finally:
            self.making[user.id] -= 1

    async def _save(self, user: User, sandbox: Sandbox, name: str) -> Image:
        if sandbox.state in OFF:
            async with self.sleep.residents[sandbox.id].lock:
                current = await self.store.sandboxes.get(sandbox.id)
                if current.state in OFF:
                    return await self._write(user, current, name, await self._spec(current), own=True)
        return await self._save_running(user, sandbox, name)

    async def _save_running(self, user: User, sandbox: Sandbox, name: str) -> Image:
        snapshot_id = new_id(SAVE_PREFIX.rstrip("-"))
        directory = self.workshop.data.snapshot(snapshot_id)
        with self.shelf.pin(snapshot_id):
            try:
                await self.forks.capture(sandbox, directory, disk_only=True)
                return await self._write(user, sandbox, name, await self._spec(sandbox, directory), own=False)
            finally:
                self.shelf.tidy()

    async def _write(self, user: User, sandbox: Sandbox, name: str, spec: MachineSpec, *, own: bool) -> Image:
        engine = sleeping(self.workshop.engine)

        async def build(staging: Path) -> Made:
            await engine.export_disk(spec, staging / ROOTFS, own=own)
            await self._require_name(user, name)  # another process may have built one meanwhile
            facts = {"owner": user.id, "sandbox": sandbox.id, "from": sandbox.spec.name, "made_of": spec.boot.rootfs_id}
            return Made(primary=ROOTFS, facts=facts)

        key = build_key(ImageKind.ROOTFS, {"saved": new_id(SAVE_PREFIX.rstrip("-"))})
        image = await self.images.build(ImageKind.ROOTFS, name, key, build)
        log.info("image saved", image=image.id, name=name, sandbox=sandbox.id)
        return image

    async def _spec(self, sandbox: Sandbox, origin: Path | None = None) -> MachineSpec:
        spec = machine_spec(self.workshop, sandbox, await self.images.boot_files_of(sandbox))
        if origin is None:
            return spec
        return MachineSpec(place=spec.place, cpus=spec.cpus, memory_mib=spec.memory_mib, boot=spec.boot, origin=origin)

    async def _require_name(self, user: User, name: str) -> None:
        """Images are everybody's: a name may pass to another image only by the hand of who gave it."""
        existing = await self.images.describe(name)
        if existing is not None and not user.admin and existing.facts.get("owner") != user.id:
            raise _taken(name, "it is somebody else's")


def _taken(name: str, why: str) -> Conflict:
    return Conflict(
        "the image's name is taken", details=f"{name}: {why}", resolution="choose another name", field="name"
    )
