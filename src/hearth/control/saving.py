"""Saves a sandbox's disk as an image that others are created of.

Who the sandbox was stays in the image only until a machine boots from it: host name, machine-id and SSH host keys are
made anew before the first command of a sandbox runs, as for every other image. Files that users left stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from hearth.control.forks import Forks
from hearth.control.image_claims import ImageClaims
from hearth.control.images import Images
from hearth.control.shelf import SAVE_PREFIX, Shelf
from hearth.control.sleep import Sleep
from hearth.control.space import require_space
from hearth.control.wakeable import BOOTABLE
from hearth.engine.base import MachineSpec
from hearth.host.identity import new_id
from hearth.image.store import Image, Made, build_key
from hearth.jobs.bringup import Workshop, machine_spec, sleeping
from hearth.model import ImageKind, Sandbox, SandboxState, User
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
    claims: ImageClaims

    async def save(self, user: User, sandbox: Sandbox, name: str) -> Image:
        """Make an image of a sandbox's disk, which stands for ``name`` from then on.

        A running sandbox is copied at one moment and runs on. Of one that is not running the files themselves are read;
        who wants to wake it meanwhile waits.

        Raises:
            InvalidInput: ``name`` is none.
            Conflict: an image of the host has that name, or another one is being made under it.
            QuotaExceeded: the user has as many images as may be had.
            NoSpace, EngineFailed, GuestFailed, TimedOut, SnapshotRefused: nothing is left of it.
        """
        sleeping(self.workshop.engine)
        async with self.claims.claim(user, name):
            await require_space(self.workshop, self.shelf)
            return await self._save(user, sandbox, name)

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
            await self.claims.require_free(user, name, user.id)  # another process may have built one meanwhile
            below = await self.images.describe(spec.boot.rootfs_id)
            kept = {} if below is None or "config" not in below.facts else {"config": below.facts["config"]}
            facts = {"sandbox": sandbox.id, "from": sandbox.spec.name, "made_of": spec.boot.rootfs_id, **kept}
            return Made(primary=ROOTFS, facts=facts)

        key = build_key(ImageKind.ROOTFS, {"saved": new_id(SAVE_PREFIX.rstrip("-"))})
        image = await self.images.build(ImageKind.ROOTFS, name, key, build, owner=user.id)
        log.info("image saved", image=image.id, name=name, sandbox=sandbox.id)
        return image

    async def _spec(self, sandbox: Sandbox, origin: Path | None = None) -> MachineSpec:
        spec = machine_spec(self.workshop, sandbox, await self.images.boot_files_of(sandbox))
        return spec if origin is None else replace(spec, origin=origin)
