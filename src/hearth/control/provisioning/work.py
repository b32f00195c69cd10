"""How a volume is filled: named steps with their undos, and how far they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from hearth.control.provisioning.links import Links
from hearth.control.provisioning.order import AUTO, CLONE, KIND, OWNER_TAG, ProvisionOrder, check_replaceable
from hearth.control.provisioning.pace import Speeds
from hearth.control.provisioning.pools import Pools
from hearth.control.reporting import Reporter
from hearth.errors import HearthError, NotFound
from hearth.host.guest_disk import GuestDisk
from hearth.host.threads import on_own_thread
from hearth.image.golden.base import ImageRefused, Source, SourceChanged, SourceMissing
from hearth.image.golden.cache import ImageCache, Progress
from hearth.image.golden.choosing import open_source
from hearth.image.golden.entries import Lease
from hearth.image.golden.remembered import Notes, RememberedSource
from hearth.image.golden.s3 import S3Source
from hearth.image.golden.settings import GoldenSettings
from hearth.jobs.plan import Plan, Step
from hearth.volume.golden.base import (
    CannotClone,
    GoldenBackend,
    GoldenImage,
    GoldenVolume,
    HasBases,
    Living,
    PopulateFailed,
    Reclaiming,
    Target,
    TargetSpec,
)
from hearth.volume.golden.filling import fill
from hearth.volume.golden.growing import (
    NONE,
    TABLE,
    Grown,
    cannot_be_reached,
    grow_into,
    is_here,
    needs_raw,
    opened_disk,
)
from hearth.volume.golden.libvirt_pool import UnknownPool
from hearth.volume.golden.verifying import verify

log = structlog.get_logger(__name__)

SHARES = {
    "resolving": (0.0, 2.0),
    "waiting": (2.0, 2.0),
    "downloading": (2.0, 60.0),
    "verifying": (60.0, 65.0),
    "creating": (65.0, 67.0),
    "populating": (67.0, 98.0),
    "finalizing": (98.0, 100.0),
}
"""Where each stage begins and ends, in percent of the whole."""

Note = Callable[[str, Mapping[str, object]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the work is done with; one for the life of a daemon.

    Args:
        jobs: tells the ids of the jobs that are not over: what was made for any other goes.
        note: keeps what came of a job.
        host: the name of this one, where the volumes are.
        notes: where daemons leave each other notes, if they do.
    """

    settings: GoldenSettings
    cache: ImageCache
    pools: Pools
    reporter: Reporter
    jobs: Living
    note: Note
    host: str
    notes: Notes | None = None
    links: Links
    speeds: Speeds = field(default_factory=Speeds)


class ProvisionWork:
    """One volume on its way. Doing it again from the start after a crash is right: what is there is used."""

    def __init__(self, tools: Tools, job_id: str, attempt: int = 1) -> None:
        self._tools = tools
        self._job_id = job_id
        self._attempt = attempt
        self._lease: Lease | None = None
        self._target: Target | None = None
        self._done: GoldenVolume | None = None
        self._grown: Grown | None = None

    def plan(self) -> Plan[ProvisionOrder]:
        """Give the steps."""
        return Plan(
            kind=KIND,
            input_type=ProvisionOrder,
            steps=[
                Step(name="downloading", do=self._download, undo=self._let_go),
                Step(name="creating", do=self._create, undo=self._discard),
                Step(name="populating", do=self._populate, undo=self._nothing),
                Step(name="finalizing", do=self._publish, undo=self._nothing),
            ],
        )

    @property
    def image_key(self) -> str | None:
        """Which image in the cache it uses at this moment."""
        return None if self._lease is None else self._lease.key

    def close(self) -> None:
        """Let go of the image."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    async def _download(self, order: ProvisionOrder) -> None:
        backend = self._backend(order)
        if self._attempt > 1:
            await backend.sweep(self._others)
        existing = await _described(backend, order.volume_name)
        if existing is not None and existing.job == self._job_id:
            self._done = existing  # an earlier attempt died between publishing it and saying so
            return
        opened, began_s = open_source(self._tools.settings, order.image_url), time.monotonic()
        try:
            self._lease = await self._obtained(opened, order)
        finally:
            await opened.close()
        if not self._lease.is_hit:
            self._tools.speeds.fetched(self._lease.facts.size_bytes, time.monotonic() - began_s)

    async def _obtained(self, opened: Source, order: ProvisionOrder) -> Lease:
        """Have the image, also where what daemons told each other of its source is no longer true."""
        notes, obtain = self._tools.notes, self._tools.cache.obtain
        if notes is None or not isinstance(opened, S3Source):  # others learn by asking where they were led to
            return await obtain(opened, order.image_type, self._told, checksum=order.checksum)
        source = RememberedSource(opened, notes)
        try:
            return await obtain(source, order.image_type, self._told, checksum=order.checksum)
        except (ImageRefused, SourceChanged, SourceMissing):
            if not await source.forget():
                raise
            return await obtain(source, order.image_type, self._told, checksum=order.checksum)

    async def _create(self, order: ProvisionOrder) -> None:
        if self._done is not None:
            return
        backend = self._backend(order)
        existing = await _described(backend, order.volume_name)
        if existing is not None:
            check_replaceable(order, existing, is_in_use=await backend.is_in_use(order.volume_name))
        self._tell("creating", 0, 0)
        spec = TargetSpec(
            name=order.volume_name, size_bytes=order.size_bytes, job=self._job_id, tags={OWNER_TAG: order.owner}
        )
        self._target = await self._made(backend, spec, order.mode, order.grow)

    async def _made(self, backend: GoldenBackend, spec: TargetSpec, mode: str, grow: str) -> Target:
        image = self._image()
        if mode in (AUTO, CLONE):
            try:
                target = await backend.clone(spec, image, self._written)
                if target.format == "raw" or not needs_raw(grow) or spec.size_bytes == image.virtual_size_bytes:
                    return target
                await backend.discard(target)
                raise CannotClone("the clone would be a qcow2 file, whose file system only its guest can grow")
            except CannotClone:
                if mode == CLONE:
                    raise
        return await backend.create(spec, image)

    async def _populate(self, order: ProvisionOrder) -> None:
        if self._done is None and self._target is not None and not self._target.is_whole:
            image, began_s = self._image(), time.monotonic()
            await fill(self._backend(order), image, self._target, self._written)
            self._tools.speeds.written(image.data_bytes or image.size_bytes, time.monotonic() - began_s)

    async def _publish(self, order: ProvisionOrder) -> None:
        if self._done is None and self._target is not None:
            self._tell("finalizing", 0, 0)
            await self._finish(order, self._target)
            async with self._tools.links.changing(order.pool, order.volume_name):
                self._done = await self._published(order, self._target)
        volume, lease = self._done, self._lease
        if volume is None:
            raise AssertionError("there is nothing to publish")
        await self._tools.note(
            self._job_id,
            {
                "host": self._tools.host,
                "volume_path": str(volume.path),
                "volume_format": volume.format,
                "image_key": volume.image,
                "image_path": None if lease is None else str(lease.path),
                "cache_hit": None if lease is None else lease.is_hit,
                "grown": None if self._grown is None else self._grown.what,
                "grown_why": (self._grown and self._grown.why) or None,
                "verified": order.verify,
                "strategy": CLONE if self._target is not None and self._target.is_whole else "copy",
            },
        )
        self.close()  # before anybody is told of the end: who then deletes the image may

    async def _published(self, order: ProvisionOrder, target: Target) -> GoldenVolume:
        """Give the volume its name. Cancelled when it has it already, the job is done: what had it before is gone."""
        backend = self._backend(order)
        try:
            return await backend.publish(target, replace=True)
        except asyncio.CancelledError:
            try:
                volume = await _described(backend, order.volume_name)
            except HearthError:
                volume = None
            if volume is None or volume.job != self._job_id:
                raise
            log.info("cancelled too late", job=self._job_id, volume=order.volume_name)
            return volume

    async def _finish(self, order: ProvisionOrder, target: Target) -> None:
        """Compare what was written with its image if that is wanted, then let what is on it take the room there is."""
        image, more = self._image(), order.size_bytes > self._image().virtual_size_bytes
        if not order.verify and not more:
            return
        if not await on_own_thread("look", lambda: is_here(target.path)):
            if order.verify or order.grow not in (NONE, TABLE):
                raise cannot_be_reached(order.pool)
            self._grown = Grown(what=NONE, why=f"pool {order.pool} gives no path to its volumes here")
            return
        base = image.path if target.is_whole and target.format == "qcow2" else None
        async with opened_disk(target.path, target.format, order.size_bytes, base, image.format) as disk:
            if order.verify:
                await self._verified(order, image, disk)
            if more:
                self._grown = await grow_into(disk, order.grow, target.path.parent)

    async def _verified(self, order: ProvisionOrder, image: GoldenImage, disk: GuestDisk) -> None:
        """Compare; where the two differ, what the next volume would be made of is judged, too."""
        try:
            await verify(image, disk, lambda done, total: self._tell("finalizing", done, total))
        except PopulateFailed as error:
            backend = self._backend(order)
            if isinstance(backend, HasBases):
                await backend.forget_base(image.key)
            if self._lease is not None and not await self._tools.cache.is_still_good(self._lease):
                raise PopulateFailed(
                    "the cached image is not what it was",
                    details=f"{image.path} has another checksum than when it was fetched; {error.details}",
                    resolution="look at the host's disks, then order again: the image is fetched anew",
                ) from error
            raise

    async def _discard(self, order: ProvisionOrder) -> None:
        backend, target = self._backend(order), self._target
        if target is not None:
            await backend.discard(target)
        else:
            await backend.sweep(self._others)

    async def _others(self) -> Collection[str]:
        """Tell the other jobs that are not over: whatever an earlier attempt at this one made goes."""
        return set(await self._tools.jobs()) - {self._job_id}

    async def _let_go(self, order: ProvisionOrder) -> None:
        del order
        self.close()

    async def _nothing(self, order: ProvisionOrder) -> None:
        """What it wrote goes with the volume it wrote to."""

    def _backend(self, order: ProvisionOrder) -> GoldenBackend:
        found = self._tools.pools.get(order.pool)
        if found is None:
            raise NotFound("no such pool", details=f"{order.pool!r} is not on this host any more", field="pool")
        return found

    def _image(self) -> GoldenImage:
        if self._lease is None:
            raise AssertionError("there is no image yet")
        return image_of(self._lease)

    def _written(self, done: int, total: int) -> None:
        self._tell("populating", done, total)

    def _told(self, progress: Progress) -> None:
        self._tell(progress.stage, progress.bytes_processed, progress.bytes_total)

    def _tell(self, stage: str, done: int, total: int) -> None:
        begin, end = SHARES.get(stage, (0.0, 0.0))
        percent = begin + (end - begin) * (min(done / total, 1.0) if total > 0 else 0.0)
        self._tools.reporter.work(self._job_id, stage, percent, done, total)


def image_of(lease: Lease) -> GoldenImage:
    """Give what a storage needs to know of an image in the cache."""
    return GoldenImage(
        path=lease.path,
        format=lease.facts.format,
        key=lease.key,
        size_bytes=lease.facts.size_bytes,
        virtual_size_bytes=lease.facts.virtual_size_bytes,
        data_bytes=lease.facts.data_bytes,
    )


async def _described(backend: GoldenBackend, name: str) -> GoldenVolume | None:
    try:
        return await backend.describe(name)
    except NotFound:
        return None


async def reclaim_all(tools: Tools) -> None:
    """Let storages give back the space of what was deleted and replaced."""
    for name, pool in tools.pools.items():
        try:
            if isinstance(pool, Reclaiming) and (number := await pool.reclaim()):
                log.info("space of volumes given back", pool=name, volumes=number)
        except UnknownPool as error:
            log.debug("a pool is there no more", pool=name, error=str(error))
        except HearthError as error:
            log.warning("space of volumes was not given back", pool=name, error=str(error))


async def sweep_all(tools: Tools) -> None:
    """Remove what was being made for jobs that are over, from every pool that can be reached."""
    await asyncio.gather(*(_sweep(name, pool, tools.jobs) for name, pool in tools.pools.items()))


async def _sweep(name: str, pool: GoldenBackend, living: Living) -> None:
    try:
        swept = await pool.sweep(living)
    except UnknownPool as error:
        log.debug("a pool is there no more", pool=name, error=str(error))
        return
    except HearthError as error:
        log.warning("what is left of volumes was not tidied", pool=name, error=str(error))
        return
    if swept:
        log.info("unfinished volumes removed", pool=name, volumes=list(swept))
