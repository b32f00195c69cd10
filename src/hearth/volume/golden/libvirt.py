"""Golden volumes in any storage pool of a libvirt: the way is chosen by what the pool is and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog

from hearth.errors import HearthError
from hearth.host.libvirt import Libvirt
from hearth.volume.golden.base import (
    CloneAbility,
    GoldenBackend,
    GoldenImage,
    GoldenVolume,
    HasBases,
    Living,
    OnBytes,
    Reclaiming,
    Target,
    TargetSpec,
    ignore_bytes,
)
from hearth.volume.golden.filling import fill
from hearth.volume.golden.homes import KeeperOf, nobody_keeps
from hearth.volume.golden.libvirt_files import LibvirtFiles
from hearth.volume.golden.libvirt_pool import LOGICAL, OF_FILES, PoolFacts, pool_facts, refresh
from hearth.volume.golden.libvirt_streams import LibvirtStreams
from hearth.volume.golden.marks import can_mark

log = structlog.get_logger(__name__)


class OfGroup(Protocol):
    """Gives the storage that a volume group is, where hearth itself can reach it."""

    def __call__(self, group: str, /) -> GoldenBackend: ...


class LibvirtVolumes:
    """Implements ``hearth.volume.golden.base.GoldenBackend`` for one pool, asked for what it is at every use.

    Args:
        state: a directory of ours for this pool, made once the pool is known to be there.
        of_group: for pools that are volume groups of this host.
        home: the id of our data directory.
        locks: a directory for locks that all daemons of this host take.
        keeper_of: tells which other daemon's a volume is.
    """

    name = "libvirt"

    def __init__(
        self,
        libvirt: Libvirt,
        pool: str,
        state: Path,
        of_group: OfGroup | None = None,
        *,
        home: str = "",
        locks: Path | None = None,
        keeper_of: KeeperOf = nobody_keeps,
    ) -> None:
        self._home, self._locks, self._keeper_of = home, locks, keeper_of
        self._libvirt = libvirt
        self._pool = pool
        self._state = state
        self._of_group = of_group
        self._known: tuple[PoolFacts, GoldenBackend] | None = None

    async def group(self) -> str | None:
        """Give the volume group of this host that the pool is; None where it is none.

        Raises:
            UnknownPool, PoolStopped, LibvirtUnavailable: as every use does.
        """
        facts = await pool_facts(self._libvirt, self._pool)
        return facts.group if self._is_group(facts) else None

    async def create(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make a volume aside, or under its name where the pool has no other way."""
        return await (await self._backend()).create(spec, image)

    async def cloning(self, image_key: str | None) -> CloneAbility:
        """Tell whether the pool clones."""
        return await (await self._backend()).cloning(image_key)

    async def clone(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes = ignore_bytes) -> Target:
        """Make one that shares the image's bytes where the pool can."""
        return await (await self._backend()).clone(spec, image, on_bytes)

    async def fill(self, image: GoldenImage, target: Target, on_bytes: OnBytes) -> None:
        """Write the image here, or send it to libvirt."""
        await fill(await self._backend(), image, target, on_bytes)

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        """Give it its name."""
        backend = await self._backend()
        volume = await backend.publish(target, replace=replace)
        await self._tell(backend)
        return volume

    async def discard(self, target: Target) -> None:
        """Remove it, by the way it was made, also while libvirt cannot be asked."""
        backend = await self._backend() if self._known is None else self._known[1]
        await backend.discard(target)

    async def list(self) -> Sequence[GoldenVolume]:
        """Tell of ours in the pool."""
        return await (await self._backend()).list()

    async def describe(self, name: str) -> GoldenVolume:
        """Tell of one."""
        return await (await self._backend()).describe(name)

    async def is_in_use(self, name: str) -> bool:
        """Ask for locks and domains."""
        return await (await self._backend()).is_in_use(name)

    async def grow(self, name: str, size_bytes: int) -> GoldenVolume:
        """Make it larger."""
        backend = await self._backend()
        volume = await backend.grow(name, size_bytes)
        await self._tell(backend)
        return volume

    async def delete(self, name: str) -> None:
        """Delete it."""
        backend = await self._backend()
        await backend.delete(name)
        await self._tell(backend)

    async def sweep(self, living: Living) -> Sequence[str]:
        """Remove what dead jobs left in the pool."""
        return await (await self._backend()).sweep(living)

    async def reclaim(self) -> int:
        """Give back space that its own storage gives back in time."""
        backend = await self._backend()
        return await backend.reclaim() if isinstance(backend, Reclaiming) else 0

    async def forget_base(self, image_key: str) -> None:
        """Make no more clones of what was written of an image, where that is known to be apart from the image."""
        backend = await self._backend()
        if isinstance(backend, HasBases):
            await backend.forget_base(image_key)

    async def _backend(self) -> GoldenBackend:
        facts = await pool_facts(self._libvirt, self._pool)
        if self._known is None or self._known[0] != facts:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._known = facts, self._chosen(facts)
        return self._known[1]

    async def _tell(self, backend: GoldenBackend) -> None:
        """Let libvirt look at what another storage changed behind its back; that was done, whatever comes of this."""
        if backend.name != self.name:
            try:
                await refresh(self._libvirt, self._pool)
            except HearthError as error:
                log.warning("libvirt was not told of a change in its pool", pool=self._pool, why=str(error))

    def _chosen(self, facts: PoolFacts) -> GoldenBackend:
        if self._libvirt.is_local and facts.kind in OF_FILES and can_mark(facts.path):
            return LibvirtFiles(
                self._libvirt, facts, self._state, home=self._home, locks=self._locks, keeper_of=self._keeper_of
            )
        if self._of_group is not None and self._is_group(facts):
            return self._of_group(facts.group)
        return LibvirtStreams(self._libvirt, facts, self._state)

    def _is_group(self, facts: PoolFacts) -> bool:
        return self._libvirt.is_local and facts.kind == LOGICAL and self._of_group is not None
