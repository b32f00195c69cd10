"""The cache of golden images: each fetched once however many ask, judged, published by the hash of its contents.

<root>/images/     see ``entries``
<root>/parts/      what is being fetched, or was when somebody was interrupted
<root>/origins/    object (URL, ETag, size) → SHA-256, for objects without a checksum
<root>/refused/    object → why it is not to be fetched again for a while
<root>/locks/      one for each image under way, one for the room
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from hearth.errors import Conflict, NoSpace, NotFound
from hearth.host import files, locks
from hearth.host.clock import Clock
from hearth.host.threads import on_own_thread, on_stoppable_thread
from hearth.image.golden.base import URL_FIELD, Head, ImageRefused, Source, SourceChanged
from hearth.image.golden.download import Download, Fetched
from hearth.image.golden.entries import Entries, Entry, Facts, Lease
from hearth.image.golden.judge import Judge, Verdict
from hearth.image.golden.part import JOURNAL_SUFFIX, PART_SUFFIX, Origin, Part, chunk_size
from hearth.image.golden.refused import Refusals
from hearth.image.golden.resolving import Resolved, resolve
from hearth.image.golden.retry import retried
from hearth.image.golden.settings import CacheSettings
from hearth.metrics import instruments

log = structlog.get_logger(__name__)

WAIT_S = 6 * 3600.0
"""For another's download of the same image."""
ROOM_WAIT_S = 60.0
KEPT_FREE_BYTES = 256 * 1024 * 1024
"""Of the file system: a full one hurts others than us."""
READ_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an image is: stage ``resolving``, ``waiting``, ``downloading`` or ``verifying``."""

    stage: str
    bytes_processed: int = 0
    bytes_total: int = 0


OnProgress = Callable[[Progress], None]


class ImageCache:
    """Gives images as files. Several processes may use one directory at once."""

    def __init__(self, root: Path, settings: CacheSettings, judge: Judge, clock: Clock) -> None:
        self._entries = Entries(root / "images")
        self._parts, self._origins = root / "parts", root / "origins"
        self._refused, self._locks = root / "refused", root / "locks"
        self._settings, self._judge, self._clock = settings, judge, clock
        self._refusals = Refusals(self._refused, settings, clock)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def prepare(self) -> None:
        """Make the directories, for their owner alone; existing ones are fine."""
        for directory in (self._entries.root, self._parts, self._origins, self._refused, self._locks):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def resolve(self, source: Source, checksum: str | None = None) -> Resolved:
        """Ask for the object's size, identity and checksum; one in the request wins over the file beside it.

        Raises:
            ImageRefused: the checksum or its file is malformed, or the object is empty or too large.
            SourceRefused, SourceMissing, SourceUnreachable: as their names say.
        """
        return await resolve(source, checksum, self._settings, self._clock)

    async def lookup(self, resolved: Resolved) -> Lease | None:
        """Give the image when it is in the cache; asks nobody."""
        key = resolved.sha256 or self._origin(resolved)
        lease = self._entries.take(key, is_hit=True, now=self._clock.now()) if key else None
        if lease is not None and lease.facts.size_bytes != resolved.head.size_bytes:
            # A checksum alone does not give others' images to whoever knows it.
            lease.release()
            return None
        return lease

    async def get(self, key: str) -> Lease | None:
        """Give the image of this SHA-256, None when the cache has none; asks nobody."""
        if not is_key(key):
            return None
        return await on_own_thread(
            "image-get",
            functools.partial(self._entries.take, key, is_hit=True, now=self._clock.now()),
            discard=_let_go,
        )

    async def obtain(
        self, source: Source, image_type: str, on_progress: OnProgress, *, checksum: str | None = None
    ) -> Lease:
        """Give an image of this type, fetching and judging it unless it is there; the caller releases the lease.

        Cancelled or failed, it leaves nothing but a part that a later try goes on with.

        Raises:
            ImageRefused: the bytes or the checksum are wrong, or the image is not to be used; says why.
            SourceRefused, SourceMissing, SourceChanged, SourceUnreachable: as their names say.
            NoSpace: it does not fit, even after removing what may be removed.
        """
        on_progress(Progress(stage="resolving"))
        resolved = await self.resolve(source, checksum)
        label = resolved.sha256 or resolved.origin_key

        def waiting() -> None:
            on_progress(Progress(stage="waiting", bytes_total=resolved.head.size_bytes))

        lease = await self.lookup(resolved)
        if lease is None:
            turn = self._turns.setdefault(label, asyncio.Lock())
            if turn.locked():
                waiting()
            async with turn, self._alone(label, waiting):
                lease = await self.lookup(resolved) or await self._fetch_once(
                    source, resolved, label, image_type, on_progress
                )
        instruments.IMAGE_REQUESTS.labels(outcome="hit" if lease.is_hit else "miss").inc()
        if lease.facts.format != image_type:
            found = lease.facts.format
            lease.release()
            raise other_type(source.url, image_type, found)
        return lease

    @contextlib.asynccontextmanager
    async def _alone(self, label: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Be the only one in any process who fetches this."""
        async with locks.lock(self._locks / f"{label}.lock", timeout_s=WAIT_S, on_wait=on_wait) as held:
            try:
                yield
            finally:
                held.discard()

    async def _fetch_once(
        self, source: Source, resolved: Resolved, label: str, image_type: str, on_progress: OnProgress
    ) -> Lease:
        self._refusals.require_none(resolved, image_type)
        try:
            return await self._fetch(source, resolved, label, image_type, on_progress)
        except ImageRefused as error:
            self._refusals.add(source, resolved, image_type, error)
            raise

    async def _fetch(
        self, source: Source, resolved: Resolved, label: str, image_type: str, on_progress: OnProgress
    ) -> Lease:
        head = resolved.head
        part = Part(
            self._parts / label,
            Origin(
                identity=hashlib.sha256(source.identity.encode()).hexdigest(),
                validator=head.validator,
                version=head.version,
                size_bytes=head.size_bytes,
                chunk_bytes=chunk_size(head.size_bytes),
            ),
        )
        keep = True
        try:
            await self._make_room(part)
            download = functools.partial(self._download, source, head, part, on_progress)
            if head.validator and head.has_ranges:
                fetched = await download()
            else:  # from the beginning, each time
                fetched = await retried(download, self._settings.download.retry, self._clock)
            if resolved.sha256 and fetched.sha256 != resolved.sha256:
                raise _wrong_checksum(source.url, fetched.sha256, resolved.sha256)
            on_progress(Progress(stage="verifying", bytes_processed=head.size_bytes, bytes_total=head.size_bytes))
            with instruments.IMAGE_SECONDS.labels(stage="judge").time():
                verdict = await self._judge(part.path, image_type)
            return await on_own_thread(
                "image-publish",
                functools.partial(self._publish, source, resolved, part, fetched, verdict),
                discard=Lease.release,
            )
        except (SourceChanged, ImageRefused):  # what is whole and wrong is of no use to a later try
            keep = False
            raise
        finally:
            if not keep or not head.validator or not part.is_there():
                part.remove()

    async def _download(self, source: Source, head: Head, part: Part, on_progress: OnProgress) -> Fetched:
        began_s = self._clock.monotonic()

        def on_bytes(done: int, total: int) -> None:
            on_progress(Progress(stage="downloading", bytes_processed=done, bytes_total=total))

        on_bytes(0, head.size_bytes)
        with instruments.IMAGE_SECONDS.labels(stage="download").time():
            fetched = await Download(source, head, part, self._settings.download, self._clock, on_bytes).run()
        instruments.IMAGE_BYTES.labels(way="resumed").inc(fetched.resumed_bytes)
        log.info(
            "image fetched",
            url=source.url,
            received_bytes=fetched.received_bytes,
            resumed_bytes=fetched.resumed_bytes,
            ranges=fetched.ranges,
            duration_s=round(self._clock.monotonic() - began_s, 3),
        )
        return fetched

    def _publish(self, source: Source, resolved: Resolved, part: Part, fetched: Fetched, verdict: Verdict) -> Lease:
        now = self._clock.now()
        facts = Facts(
            sha256=fetched.sha256,
            format=verdict.format,
            size_bytes=resolved.head.size_bytes,
            virtual_size_bytes=verdict.virtual_size_bytes,
            url=source.url,
            fetched_at=now,
            data_bytes=verdict.data_bytes,
        )
        self._entries.publish(part.path, facts, now)
        if resolved.head.validator:
            files.write_atomic(self._origins / resolved.origin_key, fetched.sha256.encode())
        lease = self._entries.take(fetched.sha256, is_hit=False, now=now)
        if lease is None:  # one of the same contents was evicted in this moment
            raise Conflict("the image was removed in the moment it was published", resolution="try again")
        log.info("image cached", key=facts.sha256[:16], url=facts.url, size_bytes=facts.size_bytes)
        return lease

    async def _make_room(self, part: Part) -> None:
        """Remove what may go until the image fits, and reserve its space before anybody else can.

        Raises:
            NoSpace: it does not fit.
        """
        async with locks.lock(self._locks / "room.lock", timeout_s=ROOM_WAIT_S):
            await on_own_thread("image-room", functools.partial(self._make_room_now, part))

    def _make_room_now(self, part: Part) -> None:
        size_bytes = part.origin.size_bytes
        mine = {part.path.name, part.journal_path.name}
        parts_bytes = sum(path.stat().st_blocks * 512 for path in self._parts.iterdir() if path.name not in mine)
        kept = self._entries.list()
        held_bytes = parts_bytes + sum(entry.allocated_bytes for entry in kept)
        there_bytes = part.path.stat().st_blocks * 512 if part.path.exists() else 0
        over_bytes = held_bytes + size_bytes - self._settings.max_bytes
        over_bytes = max(over_bytes, size_bytes - there_bytes + KEPT_FREE_BYTES - files.free_bytes(self._parts))
        for entry in kept:
            if over_bytes <= 0:
                break
            if not entry.is_pinned and (freed := self._evict(entry.key, "room")) is not None:
                over_bytes -= freed
        if over_bytes > 0:
            raise NoSpace(
                "no room for the image",
                details=f"{size_bytes} bytes do not fit: {over_bytes} more are needed than may be had",
                resolution="free some space, unpin or delete images, or let the cache be larger",
                field=URL_FIELD,
            )
        part.open()
        part.close()

    async def list(self) -> list[Entry]:
        """Tell of every image, the one that was used longest ago first."""
        return await on_own_thread("image-list", self._entries.list)

    async def delete(self, key: str) -> None:
        """Remove an image.

        Raises:
            NotFound: there is none. Conflict: somebody uses it.
        """
        if await on_own_thread("image-delete", functools.partial(self._evict, key, "request")) is None:
            if all(entry.key != key for entry in await self.list()):
                raise _no_such_image(key)
            raise Conflict("the image is in use", details=key, resolution="wait for the jobs that use it", field="key")

    async def pin(self, key: str, *, is_pinned: bool = True) -> None:
        """Keep an image from eviction, or let it go.

        Raises:
            NotFound: there is none.
        """
        if not is_key(key) or not self._entries.pin(key, is_pinned=is_pinned):
            raise _no_such_image(key)

    async def is_still_good(self, lease: Lease) -> bool:
        """Read an image again from its disk; one whose bytes are others by now is given to nobody any more."""
        if await on_stoppable_thread("image-check", functools.partial(_hash_of, lease.path)) == lease.key:
            return True
        log.error("an image in the cache has changed", key=lease.key, path=str(lease.path))
        self._entries.spoil(lease.key)
        return False

    async def prefetch(
        self, source: Source, image_type: str, on_progress: OnProgress, *, checksum: str | None = None
    ) -> str:
        """Have an image in the cache before anybody needs it, and give its key."""
        with await self.obtain(source, image_type, on_progress, checksum=checksum) as lease:
            return lease.key

    async def sweep(self) -> None:
        """Remove images nobody used for long, old parts and refusals, and what a crash left; at start and at times."""
        await on_own_thread("image-sweep", self._sweep_now)

    def _sweep_now(self) -> None:
        # Publications and removals take moments; what is unfinished for an hour is nobody's any more.
        self._entries.sweep(older_than_s=3600)
        oldest = self._clock.now() - timedelta(seconds=self._settings.unused_max_s)
        for entry in self._entries.list():
            if entry.is_spoilt or (not entry.is_pinned and entry.last_used_at < oldest):
                self._evict(entry.key, "spoilt" if entry.is_spoilt else "unused")
        for directory, most_s in ((self._parts, self._settings.part_max_s), (self._refused, self._settings.refusal_s)):
            for path in directory.iterdir():
                self._sweep_file(path, most_s)
        keys = {entry.key for entry in self._entries.list()}
        for path in self._origins.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.read_text() not in keys:
                    path.unlink()

    def _sweep_file(self, path: Path, most_s: float) -> None:
        label = path.name.removesuffix(PART_SUFFIX).removesuffix(JOURNAL_SUFFIX)
        held = locks.try_lock(self._locks / f"{label}.lock")
        if held is None:
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                if self._clock.now().timestamp() - path.stat().st_mtime > most_s:
                    path.unlink()
        finally:
            held.discard()

    def _evict(self, key: str, why: str) -> int | None:
        freed = self._entries.remove(key) if is_key(key) else None
        if freed is not None:
            instruments.IMAGE_EVICTIONS.labels(why=why).inc()
            instruments.IMAGE_BYTES.labels(way="evicted").inc(freed)
            log.info("image evicted", key=key[:16], why=why, freed_bytes=freed)
        return freed

    def _origin(self, resolved: Resolved) -> str:
        if not resolved.head.validator:
            return ""
        try:
            key = (self._origins / resolved.origin_key).read_text()
        except FileNotFoundError:
            return ""
        return key if is_key(key) else ""


def _hash_of(path: Path, unwanted: threading.Event) -> str:
    """Hash what is on the disk, not what is in memory of it."""
    digest = hashlib.sha256()
    with files.opened(path) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while not unwanted.is_set() and (data := os.read(descriptor, READ_BYTES)):
            digest.update(data)
    return digest.hexdigest()


def _let_go(lease: Lease | None) -> None:
    if lease is not None:
        lease.release()


def is_key(text: str) -> bool:
    """Tell whether a text has the form of a key: nothing else becomes part of a path."""
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _no_such_image(key: str) -> NotFound:
    return NotFound("no such image", details=f"{key[:80]!r} is not in the cache", resolution="list it", field="key")


def _wrong_checksum(url: str, found: str, wanted: str) -> ImageRefused:
    return ImageRefused(
        "the image's checksum is wrong",
        details=f"{url} has SHA-256 {found}, {wanted} was expected",
        resolution="put the right object there, or correct the checksum",
        field="checksum",
    )


def other_type(url: str, wanted: str, found: str) -> ImageRefused:
    """Give the error for an image that is not of the type that was said."""
    return ImageRefused(
        "the image has another format than was said",
        details=f"{url} is {found}, not {wanted}",
        resolution=f"ask for image_type {found}",
        field="image_type",
    )
