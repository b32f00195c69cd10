"""The storages of a host by the names that orders call them by: its own, and whatever pools its libvirt has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from hearth.host.libvirt import Libvirt
from hearth.volume.golden.base import GoldenBackend
from hearth.volume.golden.homes import Homes, nobody_keeps
from hearth.volume.golden.libvirt import LibvirtVolumes, OfGroup
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes

NAME_MAX_CHARACTERS = 100
KEPT_MAX = 64
"""Pools that are remembered from one use to the next; any name may be asked for."""


class Pools(Mapping[str, GoldenBackend]):
    """Storages by name. Any other name is taken for a pool of libvirt's, and it says so itself if that is not there.

    Counted are those of the host and the pools of libvirt's that were ever used: each has a directory in ``state``.
    """

    def __init__(
        self,
        own: Mapping[str, GoldenBackend],
        libvirt: Libvirt | None = None,
        *,
        state: Path,
        of_group: OfGroup | None = None,
        home: str = "",
        locks: Path | None = None,
        homes: Homes | None = None,
    ) -> None:
        self._home, self._locks, self._homes = home, locks, homes
        self._own = own
        self._libvirt = libvirt
        self._state = state
        self._of_group = of_group
        self._kept: dict[str, LibvirtVolumes] = {}

    def __getitem__(self, name: str) -> GoldenBackend:
        if name in self._own:
            return self._own[name]
        if self._libvirt is None or not _may_be_pool(name):
            raise KeyError(name)
        if name not in self._kept:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            state = self._state / quote(name, safe="")
            self._kept[name] = LibvirtVolumes(
                self._libvirt,
                name,
                state,
                self._of_group,
                home=self._home,
                locks=self._locks,
                keeper_of=nobody_keeps if self._homes is None else self._homes.keeper_of,
            )
        return self._kept[name]

    async def known_as(self, name: str) -> str:
        """Give the one name of a storage: a pool of libvirt's that is the volume group of pool ``lvm`` is that one.

        Volumes, jobs and links count by it. Names that no storage has stay as they are.

        Raises:
            UnknownPool, PoolStopped, LibvirtUnavailable: libvirt does not tell what the pool is.
        """
        groups = {pool.group_name: own for own, pool in self._own.items() if isinstance(pool, LvmGoldenVolumes)}
        if not groups or name in self._own or name not in self:
            return name
        pool = self[name]
        group = await pool.group() if isinstance(pool, LibvirtVolumes) else None
        return groups.get(group, name) if group is not None else name

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._own or (self._libvirt is not None and _may_be_pool(name)))

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        if self._libvirt is not None and self._state.is_dir():
            yield from sorted(name for path in self._state.iterdir() if (name := unquote(path.name)) not in self._own)

    async def close(self) -> None:
        """End the connection to libvirt, and keep no volume from other daemons any more."""
        if self._homes is not None:
            self._homes.leave()
        if self._libvirt is not None:
            await self._libvirt.close()

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _may_be_pool(name: str) -> bool:
    return 0 < len(name) <= NAME_MAX_CHARACTERS and name.isprintable() and "/" not in name and not name.startswith(".")
