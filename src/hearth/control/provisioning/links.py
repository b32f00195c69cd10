"""Provisioned volumes as volumes of users: an administrator links one, its owner attaches it like any other.

Two sides keep each other out. Whoever changes a provisioned volume (fills it anew, grows, deletes it) first sees that
no sandbox has it, and keeps all from attaching it meanwhile; whoever attaches one first sees that no job fills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from hearth.control.users import Users, require_administrator
from hearth.control.volumes import Volumes
from hearth.errors import Conflict, HearthError, InvalidInput, NotFound
from hearth.host.clock import Clock
from hearth.host.guest_disk import GuestDisk
from hearth.image.golden.base import ImageRefused
from hearth.image.golden.qcow2 import HEADER_MAX_BYTES, NotSafe, read_header
from hearth.image.golden.root import find_root
from hearth.jobs.volumes import MachineVolumes
from hearth.model import NamedVolume, User
from hearth.store.base import Store
from hearth.volume.base import MEBIBYTE
from hearth.volume.golden.base import GoldenBackend, GoldenVolume, taken
from hearth.volume.linked import Link, LinkedVolumes

log = structlog.get_logger(__name__)


class Provisioned(Protocol):
    """Who fills volumes."""

    @property
    def pools(self) -> Mapping[str, GoldenBackend]:
        """The storages by name."""
        ...

    @property
    def default_pool(self) -> str:
        """The usual one."""
        ...

    async def known_as(self, pool: str) -> str:
        """Give the one name of a pool that has two."""
        ...

    async def require_settled(self, pool: str, name: str) -> None:
        """Raises Conflict while a job fills a volume."""
        ...


@dataclass(frozen=True, kw_only=True)
class WantedLink:
    """A volume ``name`` of ``owner`` (None: of who asks) that is to be volume ``provisioned`` of ``pool``.

    ``partition`` is the one that is mounted, 0 for a disk without a partition table; None to find out.
    """

    name: str
    provisioned: str
    pool: str | None = None
    partition: int | None = None
    owner: str | None = None


class Links:
    """Which volumes of users are provisioned ones."""

    def __init__(
        self,
        *,
        store: Store,
        users: Users,
        volumes: Volumes,
        machines: MachineVolumes,
        links: LinkedVolumes,
        clock: Clock,
    ) -> None:
        self._store = store
        self._users = users
        self._volumes = volumes
        self._machines = machines
        self._links = links
        self._clock = clock
        self._provisioned: Provisioned | None = None
        self._linking = asyncio.Lock()

    def join(self, provisioned: Provisioned) -> None:
        """Meet who fills volumes; from now on nobody attaches one that is being filled."""
        self._provisioned = provisioned
        self._volumes.placing.guard = self._require_attachable

    async def link(self, user: User, wanted: WantedLink) -> NamedVolume:
        """Make a provisioned volume a volume of a user.

        Raises:
            Forbidden: the caller is no administrator: only such make provisioned volumes, and give them to others.
            NotFound: no such volume, pool or user.
            Conflict: it is a volume already, is being filled, or somebody uses it.
            InvalidInput: there is no file system in it that a sandbox could mount.
            QuotaExceeded: its owner may not have more.
        """
        require_administrator(user)
        owner = user if wanted.owner is None else await self._users.get(user, wanted.owner)
        pool, backend = await self._pool(wanted.pool)
        async with self._linking:
            volume = await backend.describe(wanted.provisioned)
            if self._links.names_of(pool, volume.name):
                raise taken(volume.name, "is a volume of somebody already")
            await self._filler.require_settled(pool, volume.name)
            if await backend.is_in_use(volume.name):
                raise taken(volume.name, "is in use")
            link = await self._look(pool, volume, wanted.partition)

            async def write(made: NamedVolume) -> None:
                self._links.link(made.id, link)

            made = await self._volumes.adopt(owner.id, wanted.name, link.disk_bytes // MEBIBYTE, write)
        log.info("volume linked", volume=made.id, pool=pool, provisioned=volume.name, owner=owner.name, by=user.name)
        return made

    def link_of(self, volume_id: str) -> Link | None:
        """Give what a volume is a link to; None where it is none."""
        return self._links.link_of(volume_id)

    async def require_detached(self, pool: str, name: str) -> None:
        """Refuse a provisioned volume that a sandbox has, running or not.

        Raises:
            VolumeInUse: ``details`` name the sandbox.
        """
        for volume in await self._rows(pool, name):
            await self._volumes.placing.require_detached(volume)

    async def require_unlinked(self, pool: str, name: str) -> None:
        """Refuse to delete a provisioned volume that is a volume of somebody.

        Raises:
            VolumeInUse, Conflict: it is.
        """
        await self.require_detached(pool, name)
        for volume in await self._rows(pool, name):
            raise Conflict(
                "the volume is linked",
                details=f"{name!r} in pool {pool} is volume {volume.name} ({volume.id})",
                resolution=f"delete that first: 'hearth volume delete {volume.id}'",
                field="volume_name",
            )

    @contextlib.asynccontextmanager
    async def changing(self, pool: str, name: str) -> AsyncIterator[None]:
        """Keep sandboxes from a provisioned volume while its bytes or its size change inside; then look at it anew.

        Raises:
            VolumeInUse: a sandbox has it.
        """
        rows = await self._rows(pool, name)
        async with contextlib.AsyncExitStack() as stack:
            for row in rows:
                await self._volumes.placing.require_detached(row)  # which says by whom, as users call it
                await stack.enter_async_context(self._machines.attachments.reserved(row.id))
                await self._volumes.placing.require_detached(row)
            try:
                yield
            finally:
                for row in rows:
                    await self._look_anew(pool, name, row)

    async def _look_anew(self, pool: str, name: str, row: NamedVolume) -> None:
        link = self._links.link_of(row.id)
        if link is None:
            return
        try:
            volume = await self._filler.pools[pool].describe(name)
            found = await self._look(pool, volume, link.wanted)
            if row.size_mib != found.disk_bytes // MEBIBYTE:
                await self._store.volumes.transition(
                    row.id, (row.state,), row.state, size_mib=found.disk_bytes // MEBIBYTE
                )
        except (HearthError, OSError) as error:
            log.warning("a linked volume cannot be attached any more", volume=row.id, why=str(error))
            words = error.details if isinstance(error, HearthError) else str(error)
            found = _with_problem(link, words)
        self._links.link(row.id, found)

    async def _require_attachable(self, volume: NamedVolume) -> None:
        """See that nobody fills a volume that is about to be placed in a sandbox, and that no stranger has it open."""
        link = self._links.link_of(volume.id)
        if link is None:
            return
        await self._filler.require_settled(link.pool, link.provisioned)
        _, backend = await self._pool(link.pool)
        if not self._machines.attachments.holders(volume.id) and await backend.is_in_use(link.provisioned):
            raise taken(link.provisioned, "is in use")

    async def _rows(self, pool: str, name: str) -> Sequence[NamedVolume]:
        found = []
        for volume_id in self._links.names_of(pool, name):
            with contextlib.suppress(NotFound):  # deleted at this moment
                found.append(await self._store.volumes.get(volume_id))
        return found

    async def _look(self, pool: str, volume: GoldenVolume, partition: int | None) -> Link:
        """Find the file system in a volume."""
        if not volume.is_here:
            raise InvalidInput(
                "the volume is not on this host",
                details=f"{volume.name!r} in pool {pool} is {volume.path} where its libvirt runs",
                resolution="link volumes of this host",
                field="pool",
            )
        base = volume.base
        with contextlib.ExitStack() as stack:
            descriptor = _opened(stack, volume.path)
            disk = GuestDisk(
                descriptor=descriptor,
                format=volume.format,
                size_bytes=volume.size_bytes,
                base=-1 if base is None else _opened(stack, base),
                base_format=volume.base_format,
            )
            try:
                if volume.format == "qcow2" and base is None:
                    read_header(os.pread(descriptor, HEADER_MAX_BYTES, 0), os.fstat(descriptor).st_size)
                root = await find_root(disk, partition)
            except NotSafe as error:
                raise InvalidInput(
                    "the volume cannot be read by a sandbox",
                    details=f"{volume.name}: {error}",
                    resolution="fill it with mode copy",
                    field="provisioned",
                ) from error
            except ImageRefused as error:
                raise InvalidInput(
                    "there is nothing in the volume that a sandbox can mount",
                    details=error.details,
                    resolution="say 'partition' where there are several; a sandbox mounts ext4",
                    field="partition",
                ) from error
        return Link(
            pool=pool,
            provisioned=volume.name,
            path=str(volume.path),
            format=volume.format,
            disk_bytes=volume.size_bytes,
            offset_bytes=root.offset_bytes,
            size_bytes=root.size_bytes,
            partition=root.partition,
            wanted=partition,
            created_at=self._clock.now(),
            base="" if base is None else str(base),
            base_format=volume.base_format,
        )

    @property
    def _filler(self) -> Provisioned:
        if self._provisioned is None:
            raise AssertionError("nobody fills volumes yet")
        return self._provisioned

    async def _pool(self, name: str | None) -> tuple[str, GoldenBackend]:
        chosen = name or self._filler.default_pool
        if chosen not in self._filler.pools:
            raise NotFound("no such pool", details=f"{chosen[:80]!r} is not on this host", field="pool")
        chosen = await self._filler.known_as(chosen)
        return chosen, self._filler.pools[chosen]


def _opened(stack: contextlib.ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _with_problem(link: Link, words: str) -> Link:
    return msgspec.structs.replace(link, problem=words[:300] or "it is gone")
