"""Making volumes of a group aside: empty ones, bases of images, snapshots of bases; and removing them again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from hearth.errors import Conflict, NoSpace, NotFound
from hearth.host import locks
from hearth.volume.golden.base import (
    IMAGE_TAG,
    JOB_TAG,
    CannotClone,
    GoldenImage,
    OnBytes,
    Target,
    TargetSpec,
    taken,
)
from hearth.volume.golden.homes import KeeperOf, nobody_keeps
from hearth.volume.golden.lvm import Lvm
from hearth.volume.golden.lvm_aside import (
    BASE_TAG,
    HOME_TAG,
    NAME_TAG,
    NEED_TAG,
    Aside,
    aside_name,
    base_of,
    base_tag,
    is_finished,
    kind_of,
)
from hearth.volume.golden.lvm_device import device_path, give_back, until_there
from hearth.volume.golden.lvm_reports import LogicalVolume, LvmFailed
from hearth.volume.golden.lvm_thin import ThinChoice, admit, choose_pool
from hearth.volume.golden.measuring import bytes_taken
from hearth.volume.golden.populate import TIMEOUT_S, populate

log = structlog.get_logger(__name__)

KEY_CHARACTERS = 24
"""Of an image's key, in the name of the lock of its base."""


@dataclass(frozen=True, kw_only=True)
class LvmChoices:
    """What an operator chose, and whose volumes these are.

    Args:
        home: stands in tags for the data directory whose daemon makes and tidies up.
        locks: a directory for locks on bases; the same for all daemons of this host.
        keeper_of: tells which other daemon's a volume is.
    """

    home: str
    locks: Path
    thin: ThinChoice = field(default_factory=ThinChoice)
    keeper_of: KeeperOf = nobody_keeps


class LvmMaker:
    """Makes what is not finished yet."""

    def __init__(self, lvm: Lvm, choices: LvmChoices) -> None:
        self._lvm, self._choices = lvm, choices

    def pool_of(self, volumes: Collection[LogicalVolume]) -> LogicalVolume | None:
        """Give the thin pool that volumes are made in; None makes them thick. Raises HostUnfit."""
        return choose_pool(self._choices.thin, volumes)

    async def new(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make an empty volume, thin where there is a pool.

        Raises:
            Conflict: the name is another's; NoSpace; HostUnfit.
        """
        need_bytes = await self._need(image)
        async with self._aside(spec, image) as (volumes, handle, tags):
            pool = self.pool_of(volumes)
            await self._create(pool, volumes, handle, spec.size_bytes, need_bytes, tags)
        return await self._target(spec, handle, is_zero=pool is not None)

    async def snapshot(self, spec: TargetSpec, image: GoldenImage) -> Target | None:
        """Make a snapshot of the image's base; None when there is no base.

        Raises:
            CannotClone: volumes are thick here; and as ``new``.
        """
        async with self._aside(spec, image) as (volumes, handle, tags):
            pool = self.pool_of(volumes)
            if pool is None:
                raise CannotClone(why_thick(self._lvm.group_name))
            base = base_of(image, self._choices.home, volumes)
            if base is None:
                return None
            admit(self._choices.thin, pool, volumes, 0)
            await self._lvm.snapshot(base.name, handle, tags)
            if spec.size_bytes > base.size_bytes:
                await self._lvm.extend(handle, spec.size_bytes)
        return await self._target(spec, handle, is_zero=False, is_whole=True)

    async def make_base(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes) -> None:
        """Write an image to a volume that others can be snapshots of; somebody else may do so first.

        Raises:
            NoSpace, HostUnfit: as ``new``; and what ``populate`` raises. Nothing is left then.
        """
        lock = self._choices.locks / f"{self._lvm.group_name}.{image.key[:KEY_CHARACTERS]}.lock"
        async with locks.lock(lock, timeout_s=TIMEOUT_S) as held:
            try:
                if base_of(image, self._choices.home, await self._lvm.volumes()) is None:
                    await self._make_base(spec, image, on_bytes)
            finally:
                held.discard()

    async def _make_base(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes) -> None:
        size_bytes, need_bytes = image.virtual_size_bytes, await self._need(image)
        plain = TargetSpec(name=spec.name, size_bytes=size_bytes, job=spec.job)
        async with self._aside(plain, image) as (volumes, handle, tags):
            pool = self.pool_of(volumes)
            if pool is None:
                raise CannotClone(why_thick(self._lvm.group_name))
            await self._create(pool, volumes, handle, size_bytes, need_bytes, {**tags, BASE_TAG: base_tag(image)})
        target = await self._target(plain, handle, is_zero=True)
        try:
            await populate(image, target, on_bytes)
            async with self._lvm.alone():
                await self._lvm.seal(handle)
                await self._lvm.rename(handle, aside_name(Aside.BASE))
        except BaseException:
            try:
                await self.discard(handle)
            except (LvmFailed, NoSpace) as error:  # a pool without room for metadata removes nothing: see sweep
                log.warning("a base volume that failed is not removed yet", volume=handle, why=error.details)
            raise
        log.info("base volume written", group=self._lvm.group_name, image=image.key, job=spec.job)

    async def _need(self, image: GoldenImage) -> int:
        """Give what an image takes of the pool; 0 where volumes are thick."""
        pool = self.pool_of(await self._lvm.volumes())
        return 0 if pool is None else await bytes_taken(image, pool.chunk_bytes)

    async def _create(
        self,
        pool: LogicalVolume | None,
        volumes: Collection[LogicalVolume],
        handle: str,
        size_bytes: int,
        need_bytes: int,
        tags: Mapping[str, str],
    ) -> None:
        if pool is None:
            await self._lvm.create(handle, size_bytes, tags)
            return
        admit(self._choices.thin, pool, volumes, need_bytes)
        await self._lvm.create(handle, size_bytes, {**tags, NEED_TAG: str(need_bytes)}, pool=pool.name)

    @asynccontextmanager
    async def _aside(
        self, spec: TargetSpec, image: GoldenImage
    ) -> AsyncIterator[tuple[list[LogicalVolume], str, dict[str, str]]]:
        """Give what there is, a name and tags for one more; an error inside removes what was made of that name."""
        handle = aside_name(Aside.NEW)
        tags = {
            **spec.tags,
            **{JOB_TAG: spec.job, IMAGE_TAG: image.key, NAME_TAG: spec.name, HOME_TAG: self._choices.home},
        }
        async with self._lvm.alone():
            volumes = await self._lvm.volumes()
            if any(volume.name == spec.name and not is_finished(volume) for volume in volumes):
                raise taken(spec.name, "is none of ours")
            try:
                yield volumes, handle, tags
            except BaseException:
                await self._remove(handle)
                raise

    async def _target(self, spec: TargetSpec, handle: str, *, is_zero: bool, is_whole: bool = False) -> Target:
        path = device_path(self._lvm.group_name, handle)
        try:
            await until_there(path)
        except BaseException:
            await self.discard(handle)
            raise
        return Target(spec=spec, path=path, handle=handle, is_zero=is_zero, is_whole=is_whole)

    async def discard(self, handle: str) -> None:
        """Remove what is being made; one that is gone, or finished, is fine."""
        async with self._lvm.alone():
            await self._remove(handle)

    async def _remove(self, handle: str) -> None:
        try:
            volume = await self._lvm.describe(handle)
        except NotFound:
            return
        if kind_of(volume) is not Aside.NEW:
            return
        if not volume.pool:
            # What it holds is an image and what was free space before: no tenant's, so nothing has to be zeroed.
            await give_back(Path(volume.path))
        await self.remove(volume)

    async def remove(self, volume: LogicalVolume) -> None:
        """Remove a volume that is aside, as the group's only changer. Raises Conflict while somebody has it open."""
        await self._lvm.remove(volume.name, uuid=volume.uuid, tag=(JOB_TAG, volume.tag(JOB_TAG)))

    async def evict_bases(self, is_wanted: Callable[[LogicalVolume], bool]) -> int:
        """Remove bases that are not wanted, and give their number; their snapshots stay whole without them."""
        removed = 0
        async with self._lvm.alone():
            for volume in await self._lvm.volumes():
                is_mine = volume.tag(HOME_TAG) == self._choices.home
                if kind_of(volume) is Aside.BASE and is_mine and not is_wanted(volume):
                    try:
                        await self.remove(volume)
                    except (Conflict, LvmFailed, NoSpace) as error:
                        log.warning("a base volume is not removed", volume=volume.name, why=error.details)
                        continue
                    removed += 1
                    log.info("base volume removed", group=self._lvm.group_name, image=volume.tag(IMAGE_TAG))
        return removed


def why_thick(group: str) -> str:
    """Say why volumes of this group are copied."""
    return f"volumes of group {group} are thick, which share nothing: each is a copy; a thin pool would clone"
