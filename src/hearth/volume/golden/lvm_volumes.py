"""Golden volumes in an LVM volume group: thick ones, or thin ones that are snapshots of one base volume an image.

All that is known of them stands in LVM's metadata, which change as a whole or not at all: see ``lvm_aside``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace as with_values
from pathlib import Path
from typing import TypeVar

import structlog

from hearth.errors import Conflict, HearthError, NoSpace, NotFound
from hearth.volume.golden.base import (
    IMAGE_TAG,
    JOB_TAG,
    NAME_FIELD,
    CloneAbility,
    GoldenImage,
    GoldenVolume,
    Living,
    OnBytes,
    PopulateFailed,
    Target,
    TargetSpec,
    UserOf,
    check_fits,
    ignore_bytes,
    nobody,
    taken,
    would_shrink,
)
from hearth.volume.golden.lvm import Lvm
from hearth.volume.golden.lvm_aside import (
    BASE_TAG,
    GROWS_TAG,
    HOME_TAG,
    NAME_TAG,
    Aside,
    aside_name,
    check_name,
    golden_of,
    is_finished,
    jobs_making,
    kind_of,
    trusted_bytes,
)
from hearth.volume.golden.lvm_device import device_path, other_path, until_there, wipe
from hearth.volume.golden.lvm_making import LvmChoices, LvmMaker, why_thick
from hearth.volume.golden.lvm_reports import LogicalVolume, LvmFailed, dependents
from hearth.volume.golden.lvm_thin import admit

log = structlog.get_logger(__name__)

Made = TypeVar("Made")

Cached = Callable[[], Awaitable[Collection[str]]]
"""Tells the keys of the images that are kept."""
MAKE_ATTEMPTS = 3
"""A base that was just made may be evicted before its first snapshot."""

Changed = Callable[[], Awaitable[None]]
"""Is called when volumes came, went or grew; raises nothing."""


async def _nothing() -> Collection[str]:
    return ()


async def _nobody_looks() -> None:
    """Whoever wants to know asks LVM."""


class LvmGoldenVolumes:
    """Implements ``hearth.volume.golden.base.GoldenBackend``. Several daemons of a host may use one group at once.

    Args:
        cached: a base stays for as long as its image is among these.
        user_of: is asked before a volume is replaced, grown or deleted.
        changed: is told of every change that others may want to see.
    """

    name = "lvm"

    def __init__(
        self,
        lvm: Lvm,
        choices: LvmChoices,
        *,
        cached: Cached = _nothing,
        user_of: UserOf = nobody,
        changed: Changed = _nobody_looks,
    ) -> None:
        self._lvm, self._choices, self._cached, self._user_of = lvm, choices, cached, user_of
        self._changed = changed
        self._maker = LvmMaker(lvm, choices)
        self._wiping = asyncio.Lock()

    @property
    def group_name(self) -> str:
        return self._lvm.group_name

    async def create(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make a volume: a thick one holds what was there before, until ``populate`` has been over all of it."""
        self._check(spec, image)
        return await self._with_room(image, functools.partial(self._maker.new, spec, image))

    async def cloning(self, image_key: str | None) -> CloneAbility:
        """Tell that thin volumes are snapshots, and whether there is what they are snapshots of."""
        volumes = await self._lvm.volumes()
        pool = self._maker.pool_of(volumes)
        group = self._lvm.group_name
        if pool is None:
            return CloneAbility(can_clone=False, has_base=False, why=why_thick(group))
        has_base = any(kind_of(each) is Aside.BASE and each.tag(IMAGE_TAG) == image_key for each in volumes)
        why = "a snapshot of the image's base volume" if has_base else "the image is written once, then snapshots of it"
        return CloneAbility(can_clone=True, has_base=has_base, why=f"{why}, in thin pool {group}/{pool.name}")

    async def clone(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes = ignore_bytes) -> Target:
        """Make a thin snapshot of the image's base, which is written before the first one."""
        self._check(spec, image)
        for _ in range(MAKE_ATTEMPTS):
            target = await self._with_room(image, functools.partial(self._maker.snapshot, spec, image))
            if target is not None:
                return target
            await self._with_room(image, functools.partial(self._maker.make_base, spec, image, on_bytes))
        raise Conflict(
            "the image's base volume does not stay",
            details=f"{image.key} was evicted as often as it was written",
            resolution="give the pool more room",
        )

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        """Rename; where there is one already, it steps aside first and comes back should that fail."""
        name = target.spec.name
        async with self._lvm.alone():
            volumes = await self._recovered()
            made = volumes.get(target.handle)
            if made is None:
                raise PopulateFailed("the volume that was made is gone", details=f"somebody removed {target.handle}")
            existing = volumes.get(name)
            if existing is None:
                await self._lvm.rename(target.handle, name)
            elif not replace:
                raise taken(name, "exists")
            else:
                await self._swap(self._ours(volumes, name), target.handle)
        path = await until_there(device_path(self._lvm.group_name, name))
        log.info("volume published", group=self._lvm.group_name, volume=name, job=target.spec.job)
        await self._changed()
        return with_values(golden_of(made), name=name, path=path)

    async def discard(self, target: Target) -> None:
        """Remove it."""
        await self._maker.discard(target.handle)

    async def list(self) -> Sequence[GoldenVolume]:
        """Tell of all that were finished."""
        found = [golden_of(volume) for volume in await self._lvm.volumes() if is_finished(volume)]
        return sorted(found, key=lambda volume: volume.name)

    async def describe(self, name: str) -> GoldenVolume:
        """Tell what its tags say."""
        return await self._described(check_name(self._lvm.group_name, name))

    async def is_in_use(self, name: str) -> bool:
        """Ask the kernel whether its device is open, and whoever else may know of a user."""
        check_name(self._lvm.group_name, name)
        await self._described(name)
        return await self._user(name) is not None

    async def grow(self, name: str, size_bytes: int) -> GoldenVolume:
        """Extend it. Thick, what is new is zeroed; until that is done a tag tells that it is another's."""
        check_name(self._lvm.group_name, name)
        async with self._lvm.alone():
            volume = self._finished(await self._recovered(), name)
            before = trusted_bytes(volume)
            if size_bytes < before:
                raise would_shrink(name, size_bytes, before)
            if size_bytes == before == volume.size_bytes:
                return golden_of(volume)
            await self._require_unused(name)
            await self._activated(name)
            await self._extend(volume, size_bytes)
        if not volume.pool:
            await self._zero_what_grew(name)
        await self._changed()
        return await self._described(name)

    async def delete(self, name: str) -> None:
        """Take its name away at once; then a thick one is zeroed, so that no later volume shows what it held."""
        check_name(self._lvm.group_name, name)
        async with self._lvm.alone():
            volumes = await self._recovered()
            if name not in volumes:
                return
            gone = await self._put_aside(self._ours(volumes, name), Aside.GONE)
        with contextlib.suppress(NotFound):  # somebody tidied up at this moment
            await self._dispose(gone)
        log.info("volume deleted", group=self._lvm.group_name, volume=name)
        await self._changed()

    async def sweep(self, living: Living) -> Sequence[str]:
        """Remove what dead jobs were making, give names back that a crash took, and drop bases of forgotten images."""
        over, swept = jobs_making(await self._lvm.volumes(), self._choices.home) - set(await living()), []
        async with self._lvm.alone():
            for volume in (await self._recovered()).values():
                if kind_of(volume) is Aside.NEW and self._is_mine(volume) and volume.tag(JOB_TAG) in over:
                    try:
                        await self._maker.remove(volume)
                        swept += [] if volume.tag(BASE_TAG) else [volume.tag(NAME_TAG)]
                    except (Conflict, LvmFailed, NoSpace) as error:
                        # Its dead job's last process still has it, or the pool has no room for metadata: next time.
                        log.warning("an unfinished volume is not removed yet", volume=volume.name, why=error.details)
        cached = await self._cached()
        await self._maker.evict_bases(lambda volume: volume.tag(IMAGE_TAG) in cached)
        return sorted(swept)

    async def reclaim(self) -> int:
        """Zero and remove what was deleted or replaced, and finish what was growing; gives the number of those."""
        async with self._lvm.alone():
            volumes = list((await self._recovered()).values())
        done = 0
        for volume in volumes:
            is_gone = kind_of(volume) is Aside.GONE and self._is_mine(volume)
            try:
                if is_gone:
                    await self._dispose(volume.name)
                elif is_finished(volume) and volume.tag(GROWS_TAG) and self._is_mine(volume):
                    await self._zero_what_grew(volume.name)
                else:
                    continue
                done += 1
            except (Conflict, LvmFailed, NoSpace, NotFound, PopulateFailed) as error:
                log.warning("a volume's space is not given back yet", volume=volume.name, why=str(error))
        if done:
            await self._changed()
        return done

    async def forget_base(self, image_key: str) -> None:
        """Remove the base; volumes that came of it stay."""
        await self._maker.evict_bases(lambda volume: volume.tag(IMAGE_TAG) != image_key)

    def _check(self, spec: TargetSpec, image: GoldenImage) -> None:
        check_name(self._lvm.group_name, spec.name)
        check_fits(spec, image)

    async def _with_room(self, image: GoldenImage, make: Callable[[], Awaitable[Made]]) -> Made:
        """Try once more when the storage is full but some of it could be given back."""
        try:
            return await make()
        except NoSpace:
            reclaimed = await self.reclaim()
            origins = {volume.origin for volume in await self._lvm.volumes()}
            evicted = await self._maker.evict_bases(
                lambda volume: volume.name in origins or volume.tag(IMAGE_TAG) == image.key
            )
            if not reclaimed and not evicted:
                raise
        return await make()

    async def _swap(self, existing: LogicalVolume, handle: str) -> None:
        """Let a new volume take the name of one that nobody uses, which is then gone."""
        name = existing.name
        try:
            old = await self._put_aside(existing, Aside.OLD)
            await self._lvm.rename(handle, name)
        except BaseException:
            await self._recovered()
            raise
        try:
            if existing.pool:
                await self._maker.remove(await self._lvm.describe(old))
            else:
                await self._lvm.rename(old, aside_name(Aside.GONE))  # zeroing may take minutes: see reclaim
        except HearthError as error:  # the new one is there; what follows is tried again by whoever looks next
            log.warning("a replaced volume is not removed yet", volume=old, why=str(error))

    async def _put_aside(self, volume: LogicalVolume, kind: Aside) -> str:
        """Take a volume's name away, unless somebody uses it; from then on it is for us to tidy up."""
        name, aside = volume.name, aside_name(kind)
        await self._require_unused(name)
        await self._lvm.tag(volume, {NAME_TAG: name, HOME_TAG: self._choices.home})
        await self._lvm.rename(name, aside)
        if await self._lvm.is_open(aside):  # by somebody who was faster; nobody can follow, since the name is gone
            await self._lvm.rename(aside, name)
            raise taken(name, "is in use")
        return aside

    async def _recovered(self) -> dict[str, LogicalVolume]:
        """Give all volumes by name, after a swap that a crash cut short was undone, or done to its end."""
        volumes = {volume.name: volume for volume in await self._lvm.volumes()}
        found = [volume for volume in volumes.values() if kind_of(volume) is Aside.OLD]
        for volume in found:
            name = volume.tag(NAME_TAG)
            if name not in volumes:
                log.warning("a volume gets its name back", group=self._lvm.group_name, volume=name)
                await self._lvm.rename(volume.name, name)
            elif is_finished(volumes[name]):
                await self._lvm.rename(volume.name, aside_name(Aside.GONE))
            else:
                log.warning("a volume's name is another's now", volume=volume.name, name=name)
        return {volume.name: volume for volume in await self._lvm.volumes()} if found else volumes

    async def _extend(self, volume: LogicalVolume, size_bytes: int) -> None:
        if size_bytes <= volume.size_bytes:
            return  # it was growing when somebody was interrupted
        if volume.pool:
            volumes = await self._lvm.volumes()
            pool = next(each for each in volumes if each.name == volume.pool)
            admit(self._choices.thin, pool, volumes, 0)
            await self._lvm.extend(volume.name, size_bytes)
            return
        mark = {GROWS_TAG: str(trusted_bytes(volume))}
        # Ours from now on: it is for us to finish what we begin.
        await self._lvm.tag(volume, {**mark, HOME_TAG: self._choices.home})
        try:
            await self._lvm.extend(volume.name, size_bytes)
        except NoSpace:
            if not volume.tag(GROWS_TAG):
                await self._lvm.retag(volume.name, add={}, remove=mark)
            raise

    async def _zero_what_grew(self, name: str) -> None:
        async with self._wiping:
            volume = await self._lvm.describe(name)
            if not volume.tag(GROWS_TAG):
                return
            start = trusted_bytes(volume)
            await self._wiped(volume, start)
            async with self._lvm.alone():
                await self._lvm.retag(name, add={}, remove={GROWS_TAG: str(start)})

    async def _dispose(self, name: str) -> None:
        async with self._wiping:
            volume = await self._lvm.describe(name)
            if lost := dependents(name, await self._lvm.volumes()):  # made in the moment it lost its name
                raise taken(name, f"is in use by {', '.join(lost)}")
            if not volume.pool:
                await self._wiped(volume, 0)
            async with self._lvm.alone():
                await self._maker.remove(volume)

    async def _wiped(self, volume: LogicalVolume, start: int) -> None:
        await wipe(await self._activated(volume.name), start)

    async def _activated(self, name: str) -> Path:
        """Give a volume's device, also where an operator or a start of the host left it without one."""
        path = device_path(self._lvm.group_name, name)
        if not os.access(path, os.F_OK):
            await self._lvm.activate(name)
            await until_there(path)
        return path

    async def _described(self, name: str) -> GoldenVolume:
        return golden_of(self._finished({volume.name: volume for volume in await self._lvm.volumes()}, name))

    def _finished(self, volumes: dict[str, LogicalVolume], name: str) -> LogicalVolume:
        volume = volumes.get(name)
        if volume is None or not is_finished(volume):
            raise NotFound(
                "no such volume",
                details=f"group {self._lvm.group_name!r} has no volume {name[:80]!r} of ours",
                resolution="list the volumes",
                field=NAME_FIELD,
            )
        return volume

    def _ours(self, volumes: dict[str, LogicalVolume], name: str) -> LogicalVolume:
        if not is_finished(volumes[name]):
            raise taken(name, "is none of ours")
        return volumes[name]

    def _is_mine(self, volume: LogicalVolume) -> bool:
        return volume.tag(HOME_TAG) == self._choices.home

    async def _require_unused(self, name: str) -> None:
        if user := await self._user(name):
            raise taken(name, f"is in use by {user}")

    async def _user(self, name: str) -> str | None:
        """Say who uses a volume."""
        if keeper := await self._choices.keeper_of((await self._lvm.describe(name)).tag(HOME_TAG)):
            return keeper
        if await self._lvm.is_open(name):
            return "whoever has its device open"
        group = self._lvm.group_name
        if lost := dependents(name, await self._lvm.volumes()):
            return f"{', '.join(lost)}: a snapshot that goes with it"
        path = device_path(group, name)
        user = await self._user_of(path)
        if user is None and not os.access(path, os.F_OK):  # not active: a machine may know it by its other name
            user = await self._user_of(other_path(group, name))
        return user
