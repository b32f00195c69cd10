"""Use cases of provisioning: orders in, volumes out; two at a time on each host, the rest in line, none lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import structlog

from hearth.control.pages import every
from hearth.control.provisioning.crew import CANCEL_LOOK_EVERY_S, Crew
from hearth.control.provisioning.forecast import Forecast, forecast, refuse_what_cannot_fit
from hearth.control.provisioning.order import (
    CLONE,
    KIND,
    ProvisionOrder,
    QueueFull,
    check_order,
    check_replaceable,
    held_by,
    under_way,
)
from hearth.control.provisioning.work import ProvisionWork, Tools
from hearth.control.users import require_administrator
from hearth.errors import Conflict, HearthError, NotFound, Unavailable
from hearth.host.threads import on_own_thread
from hearth.image.golden.cache import ImageCache, is_key
from hearth.image.golden.checksum import check_checksum
from hearth.image.golden.entries import Entry
from hearth.image.golden.settings import GoldenSettings
from hearth.jobs.failure import describe
from hearth.jobs.measuring import ended
from hearth.jobs.runner import Runner
from hearth.model import Job, JobState, User
from hearth.store.base import JobStore, JobUnderWay, LineFull
from hearth.store.refusals import not_found
from hearth.volume.base import AttachMode
from hearth.volume.golden.base import CannotClone, GoldenBackend, GoldenVolume, no_such_volume, taken
from hearth.volume.golden.growing import (
    NONE,
    TABLE,
    cannot_be_reached,
    cannot_grow,
    check_growth,
    grow_into,
    is_here,
    needs_raw,
    opened_disk,
)
from hearth.volume.golden.libvirt_pool import PoolStopped, UnknownPool
from hearth.volume.holds import take

log = structlog.get_logger(__name__)

WAITING = frozenset({JobState.PENDING})
UNFINISHED = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNDOING})
CANCEL_WAIT_S = 20.0


class Provisioner:
    """Makes volumes of golden images.

    Args:
        runner: of its own, since jobs that are under way at the daemon's end are left for the next one.
        at_once: volumes that are made at the same time.
        queue_max: jobs that may wait or run, at all daemons of the store together.
    """

    def __init__(
        self, tools: Tools, *, jobs: JobStore, runner: Runner, default_pool: str, at_once: int, queue_max: int
    ) -> None:
        self._tools = tools
        self._jobs = jobs
        self._runner = runner
        self._default_pool = default_pool
        self._queue_max = queue_max
        self._entering = asyncio.Lock()
        self._crew = Crew(tools, runner, at_once=at_once, unfinished=self._unfinished)

    @property
    def settings(self) -> GoldenSettings:
        """Where images may come from."""
        return self._tools.settings

    @property
    def cache(self) -> ImageCache:
        """The golden images that are kept."""
        return self._tools.cache

    @property
    def pools(self) -> Mapping[str, GoldenBackend]:
        """The storages by the names that orders call them by."""
        return self._tools.pools

    @property
    def default_pool(self) -> str:
        """The pool of orders that name none."""
        return self._default_pool

    async def submit(self, user: User, order: ProvisionOrder) -> Job:
        """Put an order in line; the same one while the first is under way gives that one's job.

        Raises:
            Forbidden: the caller is no administrator: it fills the host's own storage.
            InvalidInput, SourceRefused: something in it is wrong.
            Conflict: the volume is in use, another's, of another size, or being made of something else.
            QueueFull: too many wait.
        """
        order = await self._checked(user, order)
        await refuse_what_cannot_fit(self._tools, order)
        async with self._entering:
            unfinished = await self._unfinished()
            for job in unfinished:
                known = self._order_of(job)
                if (known.pool, known.volume_name) == (order.pool, order.volume_name):
                    return self._same(order, job)
            if len(unfinished) >= self._queue_max:
                raise self._full(len(unfinished))
            plan = ProvisionWork(self._tools, "").plan()
            try:
                job = await self._runner.submit(
                    plan,
                    order.volume_name[:64],
                    order,
                    owner=user.id,
                    any_host=True,
                    holds=held_by(order),
                    most=self._queue_max,
                )
            except JobUnderWay as error:  # another daemon was asked for this volume in the same moment
                return self._same(order, error.job)
            except LineFull as error:  # others were faster
                raise self._full(error.count) from error
        self._crew.wake()
        return job

    def _full(self, unfinished: int) -> QueueFull:
        return QueueFull(unfinished, self._queue_max, retry_after_s=self._crew.pace.retry_after_s)

    def _same(self, order: ProvisionOrder, job: Job) -> Job:
        """Give the job that makes this volume already, if it does what is asked for. Raises Conflict."""
        if not self._order_of(job).is_same_work(order):
            raise under_way(order, job.id)
        return job

    async def forecast(self, user: User, order: ProvisionOrder) -> Forecast:
        """Tell what an order would come to, and do nothing. Raises as ``submit``, and what its source raises."""
        order = await self._checked(user, order)
        return await forecast(self._tools, order, replaces=await self._existing(order) is not None)

    def working(self) -> Collection[str]:
        """Give the ids of the jobs that are done here."""
        return self._crew.working()

    async def position(self, job: Job) -> int | None:
        """Tell how many are before this one in line; None when it does not wait."""
        if job.kind != KIND or job.state is not JobState.PENDING:
            return None
        waiting = [each.id for each in await self._unfinished() if each.state is JobState.PENDING]
        return waiting.index(job.id) if job.id in waiting else None

    def can_cancel(self, job: Job) -> bool:
        """Tell whether a job is one of these."""
        return job.kind == KIND

    async def cancel(self, job: Job) -> None:
        """End a job, and return when nothing is left of it but a part of the download; one that has ended is fine.

        Raises:
            Unavailable: the daemon that works on it does not answer; it ends when that one comes back, or is given up.
        """
        if job.state is JobState.PENDING:
            reason = describe(asyncio.CancelledError())
            with contextlib.suppress(HearthError):  # it was taken up at this moment, here or elsewhere
                ended(await self._jobs.transition(job.id, WAITING, JobState.CANCELLED, owner=None, error=reason))
                return
        if not await self._crew.cancel(job.id):
            with contextlib.suppress(Conflict):  # it has ended by itself
                await self._jobs.ask_cancel(job.id)
                self._crew.wake()
                await self._until_ended(job.id)

    async def _until_ended(self, job_id: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_WAIT_S):
                while True:
                    if (await self._jobs.get(job_id)).state.is_final:
                        return
                    await asyncio.sleep(CANCEL_LOOK_EVERY_S / 2)
        except TimeoutError as error:
            raise Unavailable(
                "the job is not cancelled yet",
                details=f"{job_id}: the daemon that works on it has not answered for {CANCEL_WAIT_S:g} s",
                resolution="it is noted: the job ends when that daemon answers, or once its lease has run out",
            ) from error

    async def volumes(self, user: User) -> Sequence[tuple[str, GoldenVolume]]:
        """Give all volumes, each with its pool's name. Raises Forbidden."""
        require_administrator(user)
        found: list[tuple[str, GoldenVolume]] = []
        for name, pool in self._tools.pools.items():
            try:
                if await self.known_as(name) != name:
                    continue  # it is among those of its other name
                found += [(name, volume) for volume in await pool.list()]
            except (UnknownPool, PoolStopped) as error:
                log.info("a pool has no volumes to tell of", pool=name, why=str(error))
        return found

    async def volume(self, user: User, pool: str | None, name: str) -> tuple[str, GoldenVolume]:
        """Give one. Raises Forbidden, NotFound."""
        require_administrator(user)
        chosen, backend = await self._pool(pool)
        return chosen, await backend.describe(name)

    async def grow(
        self, user: User, pool: str | None, name: str, size_bytes: int, grow: str = TABLE
    ) -> tuple[str, GoldenVolume]:
        """Make one larger, and what is on it, see ``growing``. Raises Forbidden, NotFound, and as the storage does."""
        require_administrator(user)
        check_growth(grow)
        chosen, backend = await self._pool(pool)
        before = await backend.describe(name)
        if before.format != "raw" and needs_raw(grow):
            raise cannot_grow("it is a qcow2 file, whose file system only its guest can grow")
        await self.require_settled(chosen, name)
        async with self._tools.links.changing(chosen, name):
            grown = await backend.grow(name, size_bytes)
            if await on_own_thread("look", lambda: is_here(grown.path)):
                await _grow_on(grown, grow)
            elif grow not in (NONE, TABLE):
                raise cannot_be_reached(chosen)
        return chosen, grown

    async def delete(self, user: User, pool: str | None, name: str) -> None:
        """Delete one. Raises Forbidden, NotFound; Conflict while it is in use or being replaced."""
        require_administrator(user)
        chosen, backend = await self._pool(pool)
        await backend.describe(name)
        async with self._entering:
            await self.require_settled(chosen, name)
            await self._tools.links.require_unlinked(chosen, name)
            await backend.delete(name)
        log.info("volume deleted", pool=chosen, volume=name, by=user.name)

    async def require_settled(self, pool: str, name: str) -> None:
        """Raises Conflict while a job fills a volume."""
        for job in await self._unfinished():
            order = self._order_of(job)
            if (order.pool, order.volume_name) == (pool, name):
                raise under_way(order, job.id)

    async def cached(self, user: User) -> Sequence[Entry]:
        """Give the images in the cache. Raises Forbidden."""
        require_administrator(user)
        return await self._tools.cache.list()

    async def uncache(self, user: User, key: str) -> None:
        """Remove an image from the cache. Raises Forbidden, NotFound; Conflict while it is in use, naming the jobs."""
        require_administrator(user)
        try:
            await self._tools.cache.delete(_checked_key(key))
        except Conflict as error:
            if not (users := self.users_of(key)):
                raise
            raise Conflict(
                error.brief, details=f"{key}: {', '.join(users)}", resolution=error.resolution, field=error.field
            ) from error

    def users_of(self, key: str) -> Sequence[str]:
        """Give the ids of the jobs of this host that use an image at this moment."""
        return self._crew.users_of(key)

    async def pin(self, user: User, key: str, *, is_pinned: bool) -> None:
        """Keep an image for good, or no more. Raises Forbidden, NotFound."""
        require_administrator(user)
        await self._tools.cache.pin(_checked_key(key), is_pinned=is_pinned)

    async def run(self) -> None:
        """Do what is in line, until cancelled; what is under way then is left for whoever comes next."""
        try:
            await self._crew.run()
        finally:
            await self._tools.pools.close()

    async def _checked(self, user: User, order: ProvisionOrder) -> ProvisionOrder:
        require_administrator(user)
        order = replace(order, owner=user.id, pool=order.pool or self._default_pool)
        if order.checksum is not None:  # in the one form it is compared in
            order = replace(order, checksum=check_checksum(order.checksum))
        check_order(order, self._tools.settings, self._tools.pools)
        order = replace(order, pool=await self.known_as(order.pool))
        if order.mode == CLONE:
            ability = await self._tools.pools[order.pool].cloning(None)
            if not ability.can_clone:
                raise CannotClone(ability.why)
        existing = await self._existing(order)
        if existing is not None:
            await self._tools.links.require_detached(order.pool, order.volume_name)
            is_in_use = await self._tools.pools[order.pool].is_in_use(order.volume_name)
            check_replaceable(order, existing, is_in_use=is_in_use)
        return order

    async def _existing(self, order: ProvisionOrder) -> GoldenVolume | None:
        try:
            return await self._tools.pools[order.pool].describe(order.volume_name)
        except NotFound:
            return None

    async def _unfinished(self) -> list[Job]:
        jobs = await every(lambda page: self._jobs.list(states=UNFINISHED, page=page))
        return [job for job in jobs if job.kind == KIND]

    def _order_of(self, job: Job) -> ProvisionOrder:
        return ProvisionWork(self._tools, job.id).plan().decode(job.input)

    async def known_as(self, pool: str) -> str:
        """Give the one name of a pool that has two. Raises as ``Pools.known_as``."""
        return await self._tools.pools.known_as(pool)

    async def _pool(self, name: str | None) -> tuple[str, GoldenBackend]:
        chosen = name or self._default_pool
        if chosen not in self._tools.pools:
            raise not_found("pool", chosen)
        chosen = await self.known_as(chosen)
        return chosen, self._tools.pools[chosen]


async def _grow_on(volume: GoldenVolume, grow: str) -> None:
    """Let what is on a volume take its room, while nobody else opens it."""
    try:
        async with opened_disk(volume.path, volume.format, volume.size_bytes, volume.base, volume.base_format) as disk:
            if not take(disk.descriptor, AttachMode.READ_WRITE):
                raise taken(volume.name, "is in use")
            found = await grow_into(disk, grow, volume.path.parent)
    except FileNotFoundError as error:  # deleted in this moment
        raise no_such_volume(volume.name) from error
    log.info("volume grown", volume=volume.name, size_bytes=volume.size_bytes, grown=found.what, why=found.why)


def _checked_key(key: str) -> str:
    if not is_key(key):
        raise not_found("cached image", key)
    return key
