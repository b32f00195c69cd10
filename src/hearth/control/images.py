"""Images as users see them, and the set of files a machine boots from."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hearth.engine.base import BootFiles
from hearth.engine.manifest import Stamp
from hearth.errors import Conflict, InvalidInput, NotFound, Unavailable
from hearth.image.progress import ignore_progress
from hearth.image.store import Builder, Image, ImageStore
from hearth.model import ImageKind, Sandbox, User

KERNEL_NAME = "kernel"
AGENT_NAME = "agent"
DEFAULTS_KEPT = 1024


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


@dataclass(frozen=True, kw_only=True)
class ProgramDefaults:
    """What an image says of the programs that run in it; a container image does, others say nothing."""

    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    user: str | None = None


NO_DEFAULTS = ProgramDefaults()


class Images:
    """Use cases of images: those of the host are everybody's, those of a user only this user's to see."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self._defaults: dict[str, ProgramDefaults] = {}
        """By image; they never change."""

    async def seen(self, user: User) -> Sequence[Image]:
        """Give the images the user may see."""
        return [image for image in await asyncio.to_thread(self.store.list) if may_see(user, image)]

    async def get(self, user: User, reference: str) -> Image:
        """Find an image by id or name: the user's own, else the host's, for an administrator else anybody's.

        Raises:
            NotFound: there is none that the user may see.
            Conflict: a name fits images of several other users.
        """
        found = await self.describe(reference, owner=user.id)
        if found is not None and may_see(user, found):
            return found
        images = [image for image in await asyncio.to_thread(self.store.list) if may_see(user, image)]
        named = {image.owner: image for image in images if image.name == reference and image.current}
        if len(named) > 1:
            raise Conflict(
                "several images have this name",
                details=f"{reference}: {', '.join(sorted(image.id for image in named.values()))}",
                resolution="use the id",
                field="image",
            )
        if named:
            return next(iter(named.values()))
        known = ", ".join(sorted({image.name for image in images if image.current})) or "none yet"
        raise NotFound(
            "no such image",
            details=f"image {reference[:80]!r} does not exist; known: {known[:1000]}",
            resolution="see 'hearth images', or pull one: 'hearth image pull'",
            field="image",
        )

    async def owned(self, user: User) -> int:
        """Count the images that a user made and that still have a name."""
        return len(await self.names_of(user.id))

    async def names_of(self, owner: str) -> frozenset[str]:
        """Give the names of a user's images."""
        images = await asyncio.to_thread(self.store.list)
        return frozenset(image.name for image in images if image.owner == owner and image.current)

    async def choose(self, user: User, reference: str) -> BootFiles:
        """Give kernel, agent and the image that a user wants a sandbox of.

        Raises:
            NotFound: there is no such image that the user may see, or it has been deleted.
            InvalidInput: it is not a root file system.
            Unavailable: kernel or agent are not there.
        """
        image = await self.get(user, reference)
        if is_doomed(image):
            raise NotFound("no such image", details=f"{image.id} has been deleted", field="image")
        return await self.boot_files(image.id)

    async def program_defaults(self, image_id: str | None) -> ProgramDefaults:
        """Give what an image says of programs; nothing where it is gone."""
        if image_id is None:
            return NO_DEFAULTS
        known = self._defaults.get(image_id)
        if known is None:
            known = defaults_of(await self.describe(image_id))
            if len(self._defaults) >= DEFAULTS_KEPT:
                self._defaults.clear()
            self._defaults[image_id] = known
        return known

    async def env_of(self, sandbox: Sandbox) -> Mapping[str, str]:
        """Give the variables that a sandbox's image sets."""
        return (await self.program_defaults(sandbox.image_id)).env

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

    async def describe(self, image: str, *, owner: str | None = None) -> Image | None:
        """Give an image by name, that of ``owner`` first, or by id, whosever it is; None when there is none."""
        try:
            return await asyncio.to_thread(functools.partial(self.store.get, image, owner=owner))
        except NotFound:
            return None

    async def catalogue(self) -> Catalogue:
        """Give all images at once, to look many things up; those that only wait to be removed are none any more."""
        images = await asyncio.to_thread(self.store.list)
        return Catalogue(images={image.id: image for image in images if not is_doomed(image)})

    async def build(self, kind: ImageKind, name: str, key: str, builder: Builder, *, owner: str | None = None) -> Image:
        """Publish an image that ``builder`` makes and let ``name`` stand for it; see ``ImageStore.obtain``."""
        return await self.store.obtain(kind, name, key, builder, ignore_progress, owner=owner)

    def _boot_files(self, image: str, kernel_name: str, agent_name: str) -> BootFiles:
        rootfs = self.store.get(image)
        if rootfs.kind is not ImageKind.ROOTFS:
            raise InvalidInput(
                "not a root file system",
                details=f"image {image!r} is of kind {rootfs.kind}",
                resolution="see 'hearth images' for those of kind rootfs",
                field="image",
            )
        try:
            kernel, agent = self.store.get(kernel_name), self.store.get(agent_name)
        except NotFound as error:
            raise Unavailable(
                "kernel or agent image is missing", details=error.details, resolution="run 'hearth setup'"
            ) from error
        return BootFiles(kernel=kernel.path, initramfs=agent.path, rootfs=rootfs.path, rootfs_sha256=rootfs.sha256)


def may_see(user: User, image: Image) -> bool:
    """Tell whether a user may know of an image."""
    return user.admin or image.owner in (None, user.id)


def is_doomed(image: Image) -> bool:
    """Tell whether an image only waits until nothing lies over it: a user's without a name."""
    return image.owner is not None and not image.current


def defaults_of(image: Image | None) -> ProgramDefaults:
    """Read what an image says of programs."""
    said = image.facts.get("config") if image is not None else None
    if not isinstance(said, Mapping):
        return NO_DEFAULTS
    return ProgramDefaults(env=dict(said.get("env") or {}), working_dir=said.get("working_dir"), user=said.get("user"))
