"""One object into one file: ranges side by side, hashed in the same pass, resumed where an earlier try was cut off.

Receivers fill chunks and hand them to a thread that writes them down; another thread hashes them in order, from memory
while they are there, else from the page cache. A governor begins with one range and doubles their number as long as
that makes it faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import structlog

from hearth.errors import NoSpace
from hearth.host.clock import Clock
from hearth.host.threads import KeptThread
from hearth.image.golden.base import Head, Source, SourceUnreachable
from hearth.image.golden.part import CRC_DIGITS, Part, checksum
from hearth.image.golden.retry import Patience
from hearth.image.golden.settings import DownloadSettings
from hearth.metrics import instruments

log = structlog.get_logger(__name__)

SEGMENT_MAX_BYTES = 32 * 1024 * 1024
"""Asked for at once by one of several: what a range has begun it shares with none."""
PIECES_MAX = 256
"""Of a chunk, as they came: they are not copied together unless a server sends crumbs."""
LOOK_S = 0.15
GAIN_WANTED = 1.15
WAITING_SHARE = 0.25
"""Of the chunks: with more that had to wait, it is not the network that is slow."""
LOAD_AT_ONCE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """How a download ended: the SHA-256 in hex, what came now, and what was there already."""

    sha256: str
    received_bytes: int
    resumed_bytes: int
    ranges: int


OnBytes = Callable[[int, int], None]
"""Called with the bytes that are there and their total."""


class Download:
    """One try at it; ``run`` is called once. What is cancelled or fails leaves the part as it is."""

    def __init__(
        self, source: Source, head: Head, part: Part, settings: DownloadSettings, clock: Clock, on_bytes: OnBytes
    ) -> None:
        self._source, self._head, self._part = source, head, part
        self._settings, self._clock, self._on_bytes = settings, clock, on_bytes
        self._resumed: dict[int, str] = {}
        self._stored: set[int] = set()
        self._assigned: set[int] = set()
        self._next = 0
        self._kept: dict[int, list[memoryview]] = {}
        self._kept_max = max(2, settings.memory_max_bytes // 2 // part.origin.chunk_bytes)
        self._hashed = 0
        self._received_bytes = self._resumed_bytes = self._stored_bytes = 0
        self._wanted_ranges = self._most_ranges = 1
        self._arrived = self._waited = 0
        self._changed = asyncio.Condition()
        self._in_parts = head.has_ranges and head.validator != ""
        self._writer, self._hasher = KeptThread("image-write"), KeptThread("image-hash")
        self._digest = hashlib.sha256()

    async def run(self) -> Fetched:
        """Fetch what is missing.

        Raises:
            SourceError family: as ``Source.read``; SourceUnreachable after enough tries without a step forward.
            NoSpace: the disk is full after all.
        """
        try:
            known = await self._writer.run(self._part.open)
            self._resumed = known if self._in_parts else {}
            self._stored = set(self._resumed)
            self._resumed_bytes = sum(map(self._part.length, self._stored))
            self._stored_bytes = self._resumed_bytes
            try:
                await self._work()
            except BaseException as error:
                await self._writer.run(self._note_kept)
                if isinstance(error, ExceptionGroup):
                    raise _first(error) from error
                raise
            await self._writer.run(self._part.sync)
        finally:
            self._writer.close()
            self._hasher.close()
            self._part.close()
        return Fetched(
            sha256=self._digest.hexdigest(),
            received_bytes=self._received_bytes,
            resumed_bytes=self._resumed_bytes,
            ranges=self._most_ranges,
        )

    async def _work(self) -> None:
        ranges = self._settings.ranges_max if self._in_parts else 1
        async with asyncio.TaskGroup() as group:
            governor = group.create_task(self._govern(), name="image governor")
            for number in range(ranges):
                group.create_task(self._receive_ranges(number), name=f"image range {number}")
            await self._hash()
            governor.cancel()

    def _note_kept(self) -> None:
        """Write down what is there and was not hashed any more, for a later try."""
        with contextlib.suppress(NoSpace):  # then that one fetches it again
            for index, pieces in self._kept.items():
                self._part.note(index, checksum(pieces))

    async def _hash(self) -> None:
        """Hash all chunks in their order; one that is not what the journal says is fetched again."""
        while self._hashed < self._part.count:
            async with self._changed:
                await self._changed.wait_for(lambda: self._hashed in self._stored)
            indices = self._ready()
            held = {index: self._kept.pop(index) for index in indices if index in self._kept}
            good = await self._hasher.run(functools.partial(self._digest_all, indices, held))
            async with self._changed:
                self._hashed += good
                if good < len(indices):
                    bad = indices[good]
                    log.warning("a chunk of an image was damaged and is fetched again", chunk=bad)
                    self._resumed.pop(bad, None)
                    self._stored.discard(bad)
                    self._stored_bytes -= self._part.length(bad)
                    self._next = 0
                self._changed.notify_all()
        self._tell()

    def _ready(self) -> list[int]:
        indices: list[int] = []
        most = max(1, LOAD_AT_ONCE_BYTES // self._part.origin.chunk_bytes)
        index = self._hashed
        while index in self._stored and len(indices) < most:
            indices.append(index)
            index += 1
        return indices

    def _digest_all(self, indices: list[int], held: dict[int, list[memoryview]]) -> int:
        """Hash chunks and tell how many were good; on the hasher's thread."""
        for count, index in enumerate(indices):
            pieces, mark = held.get(index), self._resumed.get(index)
            if pieces is None:
                pieces = [memoryview(self._part.load(index))]
                if len(pieces[0]) != self._part.length(index):
                    return count
            if mark is not None and len(mark) == CRC_DIGITS and checksum(pieces) != mark:
                return count
            before = self._digest.copy()
            for piece in pieces:
                self._digest.update(piece)
            if mark is not None and len(mark) != CRC_DIGITS and self._digest.hexdigest() != mark:
                self._digest = before
                return count
            if index in held:
                self._part.note(index, self._digest.hexdigest())
        return len(indices)

    async def _govern(self) -> None:
        """Double the number of ranges while that gains something; a step that gains nothing is taken back.

        While the chunks of a lone range wait for disk and hash, more of them at once would only be further apart, and
        read once more. One look is not enough to tell that they do not wait.
        """
        before_rate, is_calm = 0.0, False
        while self._wanted_ranges < self._settings.ranges_max:
            began_s, began_bytes = self._clock.monotonic(), self._received_bytes
            self._arrived = self._waited = 0
            await self._clock.sleep(LOOK_S)
            if self._received_bytes == began_bytes:
                continue
            if self._wanted_ranges == 1:
                was_calm, is_calm = is_calm, self._waited <= self._arrived * WAITING_SHARE
                if not (was_calm and is_calm):
                    continue
            rate = (self._received_bytes - began_bytes) / max(self._clock.monotonic() - began_s, 0.001)
            if before_rate and rate < before_rate * GAIN_WANTED:
                self._wanted_ranges = max(1, self._wanted_ranges // 2)
                return
            before_rate = rate
            async with self._changed:
                self._wanted_ranges = min(self._wanted_ranges * 2, self._settings.ranges_max)
                self._changed.notify_all()
            await self._clock.sleep(LOOK_S / 2)  # until the new ones are up to speed

    async def _receive_ranges(self, number: int) -> None:
        """Take one segment after the other until all is hashed; wait while not wanted."""
        patience = Patience(self._settings.retry, self._clock)
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._is_done() or self._may_take(number))
                if self._is_done():
                    return
                is_lone = self._wanted_ranges == 1 and self._in_parts
                first, count = self._take()
            self._most_ranges = max(self._most_ranges, number + 1)
            try:
                await self._receive(first, count, patience, is_lone=is_lone)
            except SourceUnreachable as error:
                if not self._in_parts:  # what comes by another request need not be the same object
                    raise
                await patience.failed(error)
            finally:
                self._assigned.difference_update(range(first, first + count))
                self._next = min(self._next, first)
                async with self._changed:
                    self._changed.notify_all()

    def _is_done(self) -> bool:
        return self._hashed == self._part.count

    def _may_take(self, number: int) -> bool:
        """Tell whether there is something for a range.

        The last chunk waits until all others are there: it is refused when the object is another by then.
        """
        last, first = self._part.count - 1, self._seek()
        if number >= self._wanted_ranges or first > last:
            return False
        return first < last or not self._in_parts or len(self._stored) == last

    def _seek(self) -> int:
        """Give the first chunk that is neither there nor under way."""
        while self._next < self._part.count and (self._next in self._stored or self._next in self._assigned):
            self._next += 1
        return self._next

    def _take(self) -> tuple[int, int]:
        """Give a run of chunks to fetch by one request.

        A lone range takes all, and stops when it is one no more; but the last chunk is asked for by itself.
        """
        first, last = self._seek(), self._part.count - 1
        if not self._in_parts:
            self._assigned.update(range(self._part.count))
            return 0, self._part.count
        size_bytes, chunk_bytes = self._part.origin.size_bytes, self._part.origin.chunk_bytes
        share_bytes = (size_bytes - first * chunk_bytes) // (2 * self._settings.ranges_max)
        most = max(1, min(SEGMENT_MAX_BYTES, share_bytes) // chunk_bytes)
        if self._wanted_ranges == 1:
            most = max(1, last - first)
        count = 1
        while count < most and first + count < last:
            index = first + count
            if index in self._stored or index in self._assigned:
                break
            count += 1
        self._assigned.update(range(first, first + count))
        return first, count

    async def _receive(self, first: int, count: int, patience: Patience, *, is_lone: bool) -> None:
        """Fetch chunks in a row; a lone range stops when others are to have some of them.

        While one is written down the next is received already.
        """
        chunk_bytes = self._part.origin.chunk_bytes
        start, end = first * chunk_bytes, min((first + count) * chunk_bytes, self._head.size_bytes)
        index, writing = first, None
        try:
            async with (
                contextlib.aclosing(self._source.read(self._head, start, end)) as received,
                contextlib.aclosing(self._cut(received, first)) as chunks,
            ):
                async for chunk in chunks:
                    if writing is not None:
                        await self._written(index, writing)
                        patience.succeeded()
                    writing = asyncio.create_task(self._store(index, chunk), name=f"image chunk {index}")
                    index += 1
                    if is_lone and self._wanted_ranges > 1:
                        return
        finally:
            if writing is not None:
                await writing
                patience.succeeded()  # before the failure that ended it is counted

    async def _cut(self, received: AsyncIterator[memoryview], index: int) -> AsyncGenerator[list[memoryview], None]:
        """Put what comes together to chunks, from chunk ``index`` on; each is given in pieces, as it came."""
        pieces: list[memoryview] = []
        filled = 0
        async for piece in received:
            while piece:
                taken = piece[: self._part.length(index) - filled]
                pieces.append(taken)
                piece, filled = piece[len(taken) :], filled + len(taken)
                self._received_bytes += len(taken)
                if len(pieces) >= PIECES_MAX:
                    pieces = [memoryview(b"".join(pieces))]
                if filled == self._part.length(index):
                    yield pieces
                    index, filled, pieces = index + 1, 0, []

    async def _written(self, index: int, writing: asyncio.Task[None]) -> None:
        """Wait until the chunk before ``index`` is written down, and a lone range until the hasher has caught up."""
        is_late = self._wanted_ranges == 1 and self._is_hasher_late(index)
        self._arrived += 1
        self._waited += is_late or not writing.done()
        await writing
        if is_late:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._is_hasher_late(index))

    def _is_hasher_late(self, index: int) -> bool:
        """Tell whether a chunk would not be hashed from memory, although the hasher has all it needs."""
        return index - self._hashed >= self._kept_max and self._hashed in self._stored

    async def _store(self, index: int, pieces: list[memoryview]) -> None:
        is_hashed_soon = index - self._hashed < self._kept_max

        def write() -> None:
            self._part.store(index, pieces, is_read_soon=not is_hashed_soon)
            if is_hashed_soon:
                self._kept[index] = pieces  # and noted when it is hashed
            else:
                self._part.note(index, checksum(pieces))

        await self._writer.run(write)
        instruments.IMAGE_BYTES.labels(way="fetched").inc(self._part.length(index))
        async with self._changed:
            self._stored.add(index)
            self._stored_bytes += self._part.length(index)
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        self._on_bytes(self._stored_bytes, self._part.origin.size_bytes)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
