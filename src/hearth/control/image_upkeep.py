"""Deletes images: the name goes at once, the bytes when no sandbox, checkpoint or template lies over them any more.

A user's image without a name (deleted, or replaced by another of that name) waits for that; of the host's images only
those go that an administrator deletes, and only while nothing lies over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from hearth.control.images import Images, is_doomed
from hearth.control.pages import every
from hearth.control.pool import Pool
from hearth.control.shelf import Shelf
from hearth.errors import Conflict, Forbidden, HearthError, NotFound
from hearth.image.store import Image
from hearth.model import ImageKind, User
from hearth.store.base import Store

log = structlog.get_logger(__name__)

EVERY_S = 60.0
GRACE_S = 60.0
"""An image may have been chosen for a sandbox whose row is not there yet."""


class ImageUpkeep:
    """The end of images.

    Args:
        grace_s: how long an image must have been without a name and without use.
    """

    def __init__(self, *, store: Store, images: Images, shelf: Shelf, pool: Pool, grace_s: float = GRACE_S) -> None:
        self._store = store
        self._images = images
        self._shelf = shelf
        self._pool = pool
        self._grace_s = grace_s
        self._unused_since_s: dict[str, float] = {}
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Bring the store in order: what was being built when an earlier daemon ended goes, old names get owners."""
        store = self._images.store
        await asyncio.to_thread(store.sweep)
        await asyncio.to_thread(store.adopt_names)

    async def run(self) -> None:
        """Remove what may go, again and again."""
        while True:
            try:
                await self.tidy()
            except (HearthError, OSError) as error:
                log.error("images not tidied", error=str(error))
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def delete(self, user: User, reference: str) -> None:
        """Delete an image: nobody finds it by its name any more; sandboxes made of it live on.

        Raises:
            NotFound: there is none that the user may see.
            Forbidden: it is the host's, and the user is no administrator.
            Conflict: it is the host's and something lies over it, or machines boot from it.
        """
        image = await self._images.get(user, reference)
        if image.owner is None:
            await self._delete_shared(user, image)
        else:
            await asyncio.to_thread(self._images.store.unname, image)
        log.info("image deleted", image=image.id, name=image.name, by=user.name)
        self._shelf.tidy()  # templates of it are stale from now on
        self._wake.set()

    async def tidy(self) -> list[str]:
        """Remove the images that only waited for this, and tell their ids."""
        doomed = await self._doomed()
        if not doomed:
            self._unused_since_s.clear()
            return []
        used = await self.in_use()
        now_s = time.monotonic()
        unused = {image.id for image in doomed if image.id not in used}
        self._unused_since_s = {id_: self._unused_since_s.get(id_, now_s) for id_ in unused}
        gone = []
        for image_id, since_s in self._unused_since_s.items():
            if now_s - since_s >= self._grace_s:
                await self._images.store.remove(image_id)
                log.info("image removed", image=image_id)
                gone.append(image_id)
        await self._let_go_of_templates(doomed)
        return gone

    async def _doomed(self) -> list[Image]:
        """Give the images without a name, of users of ours: what else lies in the store is another daemon's."""
        doomed = []
        for image in await asyncio.to_thread(self._images.store.list):
            if image.owner is not None and is_doomed(image):
                with contextlib.suppress(NotFound):
                    await self._store.users.get(image.owner)
                    doomed.append(image)
        return doomed

    async def in_use(self) -> frozenset[str]:
        """Give the ids of the images that sandboxes, checkpoints and templates lie over."""
        sandboxes = await every(lambda page: self._store.sandboxes.list(None, page=page))
        used = {sandbox.image_id or sandbox.spec.image for sandbox in sandboxes}
        return frozenset(used | await self._shelf.images())

    async def _delete_shared(self, user: User, image: Image) -> None:
        if not user.admin:
            raise Forbidden(
                "this image is the host's",
                details=f"{image.name} is everybody's",
                resolution="ask an administrator",
                field="image",
            )
        if image.kind is not ImageKind.ROOTFS:
            raise Conflict(
                "machines boot from this image",
                details=f"{image.name} is of kind {image.kind}",
                resolution="run 'hearth setup' to replace it by a newer one",
            )
        if image.id in await self.in_use():
            raise Conflict(
                "the image is in use",
                details=f"sandboxes, checkpoints or templates lie over {image.id}",
                resolution="destroy these first; templates go by 'hearth template delete'",
            )
        await self._images.store.remove(image.id)

    async def _let_go_of_templates(self, doomed: list[Image]) -> None:
        """Have the clones removed that are kept ready of images nobody can ask for any more."""
        ids = {image.id for image in doomed}
        for template in await self._shelf.templates():
            if template.image in ids:
                try:
                    async with asyncio.timeout(EVERY_S):
                        await self._pool.forsake(template.id)
                    await self._shelf.remove_unneeded(template.id)
                except (NotFound, TimeoutError) as error:
                    log.warning("template of a deleted image stays", template=template.id, error=str(error))
