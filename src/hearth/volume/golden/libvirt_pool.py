"""A storage pool of libvirt as its description says, and the few calls that hearth makes on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import structlog

from hearth.errors import Conflict, HearthError, InvalidInput
from hearth.host.libvirt import Libvirt, LibvirtFailed
from hearth.host.libvirt_binding import NO_POOL, Connection, StoragePool, StorageVolume

log = structlog.get_logger(__name__)

T = TypeVar("T")

OF_FILES = frozenset({"dir", "fs", "netfs"})
"""Kinds of pools whose volumes are files of a directory."""
LOGICAL = "logical"
POOL_FIELD = "pool"
REFRESH_ATTEMPTS, REFRESH_PAUSE_S = 50, 0.2
"""A pool in which somebody just makes or fills a volume cannot be refreshed."""
OF_LOGICAL_ACTIVE = 1 << 1 | 1 << 9
"""VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE, ..._LOGICAL"""
BLOCK = 1
"""VIR_STORAGE_VOL_BLOCK: a volume that is a device, whose bytes stay when it is removed."""
BUSY = "asynchronous jobs"


class UnknownPool(InvalidInput):
    """libvirt has no pool of this name."""


class PoolStopped(Conflict):
    """libvirt has the pool, but nothing can be done in it."""


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """What a pool is: its kind, where its volumes are, and for a logical one its volume group."""

    name: str
    kind: str
    path: Path
    group: str


@dataclass(frozen=True, kw_only=True)
class SeenVolume:
    """A volume as libvirt has it; ``key`` is its own name for this very volume."""

    name: str
    key: str
    path: Path


async def pool_facts(libvirt: Libvirt, name: str) -> PoolFacts:
    """Ask for a pool that is active.

    Raises:
        UnknownPool: there is none of that name; names ``pool``.
        PoolStopped: it is not active.
    """

    def ask(connection: Connection) -> tuple[str, int]:
        pool = connection.storagePoolLookupByName(name)
        return pool.XMLDesc(0), pool.isActive()

    try:
        text, is_active = await libvirt.call(ask)
    except LibvirtFailed as error:
        raise _no_such_pool(libvirt, name) if error.number == NO_POOL else error from error
    if not is_active:
        raise PoolStopped(
            "the pool is stopped",
            details=f"pool {name!r} of {libvirt.uri} is not active",
            resolution=f"start it: 'virsh pool-start {name}'",
            field=POOL_FIELD,
        )
    return parse_pool(text)


def parse_pool(text: str) -> PoolFacts:
    """Read a pool's description."""
    root = ElementTree.fromstring(text)  # noqa: S314 - libvirt formats it anew from what it has parsed
    return PoolFacts(
        name=root.findtext("./name", ""),
        kind=root.get("type", ""),
        path=Path(root.findtext("./target/path", "").strip()),
        group=root.findtext("./source/name", "").strip(),
    )


async def in_pool(libvirt: Libvirt, name: str, work: Callable[[StoragePool], T], *, again: bool = True) -> T:
    """Do something blocking with a pool. Raises as ``Libvirt.call``."""
    return await libvirt.call(lambda connection: work(connection.storagePoolLookupByName(name)), again=again)


async def refresh(libvirt: Libvirt, name: str) -> None:
    """Let libvirt look at what is in a pool.

    Raises:
        HearthError: it cannot be reached, or somebody is at work in the pool all the time.
    """
    for attempts_left in reversed(range(REFRESH_ATTEMPTS)):
        try:
            await in_pool(libvirt, name, lambda pool: pool.refresh(0))
        except LibvirtFailed as error:
            if BUSY not in error.details or not attempts_left:
                raise
            await asyncio.sleep(REFRESH_PAUSE_S)
        else:
            return


async def refresh_group(libvirt: Libvirt, group: str) -> None:
    """Let libvirt look at its active pools of a volume group, in which something was changed; that is done anyhow."""

    def named(connection: Connection) -> list[str]:
        facts = [parse_pool(pool.XMLDesc(0)) for pool in connection.listAllStoragePools(OF_LOGICAL_ACTIVE)]
        return [each.name for each in facts if each.kind == LOGICAL and each.group == group]

    try:
        for name in await libvirt.call(named):
            await refresh(libvirt, name)
    except HearthError as error:
        log.warning("libvirt was not told of a change in its pool", group=group, why=str(error))


def volume_xml(name: str, size_bytes: int, image_format: str, *, is_sparse: bool) -> str:
    """Describe a volume to be made. One that is no file has all its bytes from the start."""
    return (
        f"<volume><name>{escape(name)}</name><capacity unit='bytes'>{size_bytes}</capacity>"
        f"<allocation unit='bytes'>{0 if is_sparse else size_bytes}</allocation>"
        f"<target><format type='{escape(image_format)}'/></target></volume>"
    )


def seen_volume(volume: StorageVolume) -> SeenVolume:
    """Ask what a volume is called; blocking. A file's birth, where libvirt tells of it, makes its key its own."""
    root = ElementTree.fromstring(volume.XMLDesc(0))  # noqa: S314 - as above
    born = root.findtext("./target/timestamps/btime", "0")
    key = volume.key() if born.strip() in ("", "0") else f"{volume.key()} {born.strip()}"
    return SeenVolume(name=volume.name(), key=key, path=Path(volume.path()))


def lying_over(pool: StoragePool, path: str) -> str:
    """Give the name of a volume that lies over another, empty where none does; blocking."""
    for volume in pool.listAllVolumes(0):
        root = ElementTree.fromstring(volume.XMLDesc(0))  # noqa: S314 - as above
        if root.findtext("./backingStore/path", "").strip() == path:
            return volume.name()
    return ""


def remove_volume(pool: StoragePool, name: str) -> None:
    """Remove a volume, wiping a device before; blocking for as long as that takes."""
    volume = pool.storageVolLookupByName(name)
    if volume.info()[0] == BLOCK:
        volume.wipe(0)
    volume.delete(0)


def _no_such_pool(libvirt: Libvirt, name: str) -> HearthError:
    return UnknownPool(
        "unknown pool",
        details=f"pool {name[:80]!r} is no storage of hearth's own, and {libvirt.uri} has no pool of that name",
        resolution="'virsh pool-list --all' names libvirt's",
        field=POOL_FIELD,
    )
