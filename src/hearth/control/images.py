"""Images as users see them, and the set of files a machine boots from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hearth.engine.base import BootFiles
from hearth.errors import InvalidInput, NotFound, Unavailable
from hearth.image.store import Image, ImageStore
from hearth.model import ImageKind, User

KERNEL_NAME = "kernel"
AGENT_NAME = "agent"


class Images:
    """Use cases of images."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def list(self, user: User) -> Sequence[Image]:
        """Give all images, newest first; they belong to the host, every user may use them."""
        del user
        return await asyncio.to_thread(self._store.list)

    async def boot_files(self, image: str) -> BootFiles:
        """Give kernel, agent and the root file system named ``image``.

        Raises:
            NotFound: there is no such image; ``field`` is image.
            InvalidInput: it is not a root file system.
            Unavailable: kernel or agent were not built yet.
        """
        return await asyncio.to_thread(self._boot_files, image)

    def _boot_files(self, image: str) -> BootFiles:
        rootfs = self._store.get(image)
        if rootfs.kind is not ImageKind.ROOTFS:
            raise InvalidInput(
                "not a root file system",
                details=f"image {image!r} is of kind {rootfs.kind}",
                resolution="see 'hearth images' for those of kind rootfs",
                field="image",
            )
        try:
            kernel, agent = self._store.get(KERNEL_NAME), self._store.get(AGENT_NAME)
        except NotFound as error:
            raise Unavailable(
                "kernel or agent image is missing", details=error.details, resolution="run 'hearth setup'"
            ) from error
        return BootFiles(kernel=kernel.path, initramfs=agent.path, rootfs=rootfs.path)
