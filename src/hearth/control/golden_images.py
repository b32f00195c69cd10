"""Golden images as what sandboxes are made of: fetched into the cache or found there, their root file system taken out.

Administrators alone ask for that: the object storage is read with the operator's keys, and what comes of it takes the
host's own storage. Shared, the image is everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hearth.control.image_jobs import ImageJobs
from hearth.control.image_work import (
    FETCH_KIND,
    GOLDEN_KIND,
    Destination,
    ImageWork,
    Maker,
    OnStage,
    Stage,
    Work,
    too_large,
)
from hearth.control.images import Images
from hearth.control.users import require_administrator
from hearth.errors import InvalidInput, NotFound
from hearth.host.files import opened
from hearth.image.golden.cache import ImageCache, Progress, is_key
from hearth.image.golden.checksum import check_checksum
from hearth.image.golden.choosing import object_name, open_source
from hearth.image.golden.entries import Entry, Lease
from hearth.image.golden.judge import check_format
from hearth.image.golden.root import disk_of, extract_root, find_root
from hearth.image.golden.settings import GoldenSettings
from hearth.image.store import ID_DIGITS, Image, Made, build_key
from hearth.jobs.plan import Plan, Step
from hearth.model import ImageKind, Job, User
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.paging import Position, cut_page, read_request
from hearth.store.refusals import not_found

ROOTFS = "rootfs.ext4"
PARTITION_MAX = 1024
ID_PREFIX = "golden-"
SUBJECT_MAX_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class GoldenOrder:
    """What an image is to be made of: an object, or one that the cache has by its SHA-256.

    Args:
        image_url: where the object is; None with ``key``.
        image_type: what the object is, ``qcow2`` or ``raw``.
        checksum: SHA-256 that it must have; None takes the one beside it.
        partition: the one with the root file system, 0 for the whole disk; None to find out.
    """

    image_url: str | None = None
    key: str | None = None
    image_type: str = "qcow2"
    checksum: str | None = None
    partition: int | None = None


class GoldenImages:
    """Golden images beside those that sandboxes are made of, and the way from one to the other, as jobs among those of
    pulls and imports.
    """

    def __init__(self, *, image_jobs: ImageJobs, images: Images, settings: GoldenSettings, cache: ImageCache) -> None:
        self._image_jobs = image_jobs
        self._images = images
        self._settings = settings
        self._cache = cache

    async def make(self, user: User, order: GoldenOrder, *, name: str, shared: bool = False) -> Job:
        """Begin to make one; gives the job.

        Raises:
            Forbidden: the caller is no administrator, or the operator does not allow this URL.
            InvalidInput: names the field.
            Conflict, QuotaExceeded, TooManyImages: as for a pull.
        """
        require_administrator(user)
        source = self._check(order)

        def work(to: Destination, on_stage: OnStage) -> Work:
            return GoldenWork(self._images, self._settings, self._cache, order, to, on_stage)

        return await self._image_jobs.begin(user, work, ImageWork(name=name, source=source), shared=shared)

    async def fetch(self, user: User, order: GoldenOrder) -> Job:
        """Begin to have a golden image in the cache before anybody needs it; gives the job. Raises as ``make``."""
        require_administrator(user)
        source = self._check(order)

        def work(on_stage: OnStage) -> Work:
            return FetchWork(self._settings, self._cache, order, on_stage)

        name = object_name(order.image_url or "")[:SUBJECT_MAX_CHARACTERS]
        return await self._image_jobs.begin_fetch(user, work, ImageWork(name=name, source=source))

    async def list(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[Image | Entry]:
        """Give a page of the images the user may see, the newest first; administrators see golden ones among them.

        Raises:
            InvalidInput: limit or cursor are not acceptable.
        """
        limit, after = read_request(page)
        seen: list[Image | Entry] = [*await self._images.seen(user)]
        if user.admin:
            seen += await self._cache.list()
        ordered = sorted(seen, key=_position, reverse=True)
        return cut_page(
            [each for each in ordered if after is None or _position(each) < after][: limit + 1], limit, _position
        )

    async def find(self, user: User, reference: str) -> Entry | None:
        """Give the golden image of this SHA-256, or of its id in the list; None where there is none for the user."""
        if not user.admin or not (is_key(reference) or reference.startswith(ID_PREFIX)):
            return None
        for entry in await self._cache.list():
            if reference in (entry.key, golden_id(entry)):
                return entry
        return None

    async def pin(self, user: User, reference: str, *, is_pinned: bool) -> Entry:
        """Keep a golden image for good, or no more. Raises NotFound, also where the user may not know of it."""
        entry = await self.find(user, reference)
        if entry is None:
            raise not_found("golden image", reference)
        await self._cache.pin(entry.key, is_pinned=is_pinned)
        return replace(entry, is_pinned=is_pinned)

    async def delete(self, entry: Entry) -> None:
        """Remove a golden image. Raises NotFound; Conflict while it is in use."""
        await self._cache.delete(entry.key)

    def _check(self, order: GoldenOrder) -> str:
        if (order.image_url is None) == (order.key is None):
            raise InvalidInput(
                "invalid image_url",
                details="image_url says where the image is, key which of those in the cache it is",
                resolution="give one of them",
                field="image_url",
            )
        if order.partition is not None and not 0 <= order.partition <= PARTITION_MAX:
            raise InvalidInput(
                "invalid partition",
                details=f"partition {order.partition} is not from 0 to {PARTITION_MAX}",
                resolution="give its number, 0 for the whole disk, or leave it out",
                field="partition",
            )
        if order.image_url is None:
            return _checked_key(order.key or "")
        check_format(order.image_type)
        if order.checksum is not None:
            check_checksum(order.checksum)
        return open_source(self._settings, order.image_url).url


class FetchWork:
    """One golden image on its way into the cache."""

    image: Image | None = None

    def __init__(self, settings: GoldenSettings, cache: ImageCache, order: GoldenOrder, on_stage: OnStage) -> None:
        self._settings, self._cache, self._order, self._on_stage = settings, cache, order, on_stage

    def plan(self) -> Plan[ImageWork]:
        """Give the step; what has come stays for the next time."""
        step = Step(name="downloading", do=self._fetch, undo=self._nothing)
        return Plan(kind=FETCH_KIND, input_type=ImageWork, steps=[step])

    async def _fetch(self, _: ImageWork) -> None:
        order = self._order
        source = open_source(self._settings, order.image_url or "")
        try:
            await self._cache.prefetch(source, order.image_type, self._told, checksum=order.checksum)
        finally:
            await source.close()

    def _told(self, progress: Progress) -> None:
        self._on_stage(Stage(name=progress.stage, done=progress.bytes_processed, total=progress.bytes_total))

    async def _nothing(self, _: ImageWork) -> None:
        """What came is a part that a later try goes on with, and ages out."""


class GoldenWork(Maker):
    """One golden image on its way to a root file system."""

    def __init__(
        self,
        images: Images,
        settings: GoldenSettings,
        cache: ImageCache,
        order: GoldenOrder,
        to: Destination,
        on_stage: OnStage,
    ) -> None:
        super().__init__(images, to, on_stage)
        self._settings = settings
        self._cache = cache
        self._order = order

    def plan(self) -> Plan[ImageWork]:
        """Give the steps: one, for the image is in use from its first byte to the last."""
        step = Step(name="creating", do=self._make, undo=self._nothing)
        return Plan(kind=GOLDEN_KIND, input_type=ImageWork, steps=[step])

    async def _make(self, _: ImageWork) -> None:
        with await self._obtain() as lease, opened(lease.path) as descriptor:
            disk = disk_of(lease, descriptor)
            root = await find_root(disk, self._order.partition)
            if root.size_bytes > self._to.max_bytes:
                raise too_large(root.size_bytes, self._to.max_bytes)
            facts = {"source": lease.facts.url, "digest": f"sha256:{lease.key}", "config": {"env": {}, "user": "root"}}
            if root.partition:
                facts["partition"] = str(root.partition)

            async def build(staging: Path) -> Made:
                self._begin("extracting", root.size_bytes)
                await extract_root(disk, root, staging / ROOTFS, self._reached)
                self._begin("creating")
                return Made(primary=ROOTFS, facts=facts)

            inputs = {"golden": lease.key, "offset": root.offset_bytes, "size": root.size_bytes}
            key = build_key(ImageKind.ROOTFS, {**inputs, "owner": self._to.owner, "name": self._to.name, "version": 1})
            async with self._to.slots:
                self.image = await self._images.build(ImageKind.ROOTFS, self._to.name, key, build, owner=self._to.owner)

    async def _obtain(self) -> Lease:
        order = self._order
        if order.image_url is None:
            lease = await self._cache.get(order.key or "")
            if lease is None:
                raise NotFound(
                    "no such golden image",
                    details=f"{order.key} is not in the cache",
                    resolution="see 'hearth image cache', or give its URL",
                    field="key",
                )
            return lease
        source = open_source(self._settings, order.image_url)
        try:
            return await self._cache.obtain(source, order.image_type, self._cached, checksum=order.checksum)
        finally:
            await source.close()

    def _cached(self, progress: Progress) -> None:
        self._begin(progress.stage, progress.bytes_total)
        self._add(progress.bytes_processed)

    def _reached(self, done: int, total: int) -> None:
        del total
        self._add(done - self._stage.done)


def golden_id(entry: Entry) -> str:
    """Give the id of a golden image among other images."""
    return f"{ID_PREFIX}{entry.key[:ID_DIGITS]}"


def _position(each: Image | Entry) -> Position:
    return (each.facts.fetched_at, golden_id(each)) if isinstance(each, Entry) else (each.created_at, each.id)


def _checked_key(key: str) -> str:
    if not is_key(key):
        raise InvalidInput(
            "invalid key",
            details=f"{key[:80]!r} is not the 64 hexadecimal digits of a SHA-256",
            resolution="see 'hearth image cache'",
            field="key",
        )
    return key
