"""Images as users see them, and the set of files a machine boots from."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hearth.engine.base import BootFiles
from hearth.engine.manifest import Stamp
from hearth.errors import InvalidInput, NotFound, Unavailable
from hearth.image.progress import ignore_progress
from hearth.image.store import Builder, Image, ImageStore
from hearth.model import ImageKind, Sandbox, User

KERNEL_NAME = "kernel"
AGENT_NAME = "agent"


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All images at one moment, by id."""

    images: Mapping[str, Image]

    def name(self, image_id: str) -> str:
        """Give the name that stands for an image; its id where none does."""
        image = self.images.get(image_id)
        return image.name if image is not None and image.current else image_id

    def makes(self, stamp: Stamp, rootfs_id: str) -> bool:
        """Tell whether a machine made of today's images could still be of that kernel, agent and root file system."""
        current = {image.name: image.id for image in self.images.values() if image.current}
        kernel, agent = current.get(KERNEL_NAME, stamp.kernel), current.get(AGENT_NAME, stamp.agent)
        return (kernel, agent) == (stamp.kernel, stamp.agent) and rootfs_id in self.images


class Images:
    """Use cases of images."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def list(self, user: User) -> Sequence[Image]:
        """Give all images, newest first; they belong to the host, every user may use them."""
        del user
        return await asyncio.to_thread(self._store.list)

    async def owned(self, user: User) -> int:
        """Count the images that a user made and that still have a name."""
        images = await asyncio.to_thread(self._store.list)
        return sum(image.facts.get("owner") == user.id for image in images)

    async def boot_files(self, image: str, *, kernel: str = KERNEL_NAME, agent: str = AGENT_NAME) -> BootFiles:
        """Give kernel, agent and the root file system ``image``, each by name or id.

        Raises:
            NotFound: there is no such image; ``field`` is image.
            InvalidInput: it is not a root file system.
            Unavailable: kernel or agent are not there (any more).
        """
        return await asyncio.to_thread(self._boot_files, image, kernel, agent)

    async def boot_files_of(self, sandbox: Sandbox, memory: Stamp | None = None) -> BootFiles:
        """Give what a sandbox was made of, whatever its image's name stands for now.

        Args:
            memory: of the snapshot it wakes with, whose kernel and agent are already in memory; where those images are
                gone, today's are given and will not fit.

        Raises:
            NotFound: its image is gone.
            Unavailable: kernel or agent were not built yet.
        """
        image = sandbox.image_id or sandbox.spec.image
        if memory is not None:
            with contextlib.suppress(Unavailable):
                return await self.boot_files(image, kernel=memory.kernel, agent=memory.agent)
        return await self.boot_files(image)

    async def describe(self, image: str) -> Image | None:
        """Give an image by name or id; None when there is none."""
        try:
            return await asyncio.to_thread(self._store.get, image)
        except NotFound:
            return None

    async def catalogue(self) -> Catalogue:
        """Give all images at once, to look many things up."""
        return Catalogue(images={image.id: image for image in await asyncio.to_thread(self._store.list)})

    async def build(self, kind: ImageKind, name: str, key: str, builder: Builder) -> Image:
        """Publish an image that ``builder`` makes and let ``name`` stand for it; see ``ImageStore.obtain``."""
        return await self._store.obtain(kind, name, key, builder, ignore_progress)

    def _boot_files(self, image: str, kernel_name: str, agent_name: str) -> BootFiles:
        rootfs = self._store.get(image)
        if rootfs.kind is not ImageKind.ROOTFS:
            raise InvalidInput(
                "not a root file system",
                details=f"image {image!r} is of kind {rootfs.kind}",
                resolution="see 'hearth images' for those of kind rootfs",
                field="image",
            )
        try:
            kernel, agent = self._store.get(kernel_name), self._store.get(agent_name)
        except NotFound as error:
            raise Unavailable(
                "kernel or agent image is missing", details=error.details, resolution="run 'hearth setup'"
            ) from error
        return BootFiles(kernel=kernel.path, initramfs=agent.path, rootfs=rootfs.path, rootfs_sha256=rootfs.sha256)
