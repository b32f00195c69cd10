"""Images for the asynchronous client: ``await client.images.pull("debian:12")``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO, Protocol, TypeVar, Unpack

from hearth.api.event_schemas import JobProgress, JobView
from hearth.api.image_schemas import ImageView
from hearth.errors import TimedOut, Unavailable
from hearth.sdk import event_calls, image_calls
from hearth.sdk.async_aside import aside
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.call import Call, read_problem
from hearth.sdk.event_calls import RETRY_FOR_S, RETRY_S, EventReader
from hearth.sdk.image_calls import GoldenOptions, ImportOptions, PullOptions

Value = TypeVar("Value")


class AsyncCaller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class AsyncImages:
    """What sandboxes are made of: the host's images and the caller's own."""

    def __init__(self, client: AsyncCaller, transport: AsyncTransport) -> None:
        self._client = client
        self._transport = transport

    async def list(self) -> Sequence[ImageView]:
        """Give all of them, the newest first.

        >>> "debian" in [image.name for image in await client.images.list()]
        True
        """
        page = await self._client.call(image_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(image_calls.page(page.next_cursor))
            found += page.items
        return found

    async def get(self, ref: str) -> ImageView:
        """Give one, by id or name.

        >>> (await client.images.get("debian")).kind
        'rootfs'
        """
        return await self._client.call(image_calls.get(ref))

    async def delete(self, ref: str) -> None:
        """Delete one: its name goes at once, its bytes when nothing lies over them.

        >>> await client.images.delete("no-such-image")
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        await self._client.call(image_calls.delete(ref))

    async def save(self, sandbox: str, name: str) -> ImageView:
        """Make one of a sandbox's disk.

        >>> image = await client.images.save("web", "web-as-it-is-now")
        >>> image.kind
        'rootfs'
        >>> await client.images.delete("web-as-it-is-now")
        """
        return await self._client.call(image_calls.save(sandbox, name))

    async def pull(self, reference: str, **options: Unpack[PullOptions]) -> AsyncImageJob:
        """Begin to pull one from a registry: iterate for progress, or ``wait``.

        >>> job = await client.images.pull("127.0.0.1:1/team/app:1", name="app")
        >>> job.job.status
        'pending'
        >>> await job.wait()
        Traceback (most recent call last):
        hearth.errors.Forbidden: ...
        """
        return self._job(await self._client.call(image_calls.pull(reference, options)))

    async def pin(self, ref: str, *, pinned: bool = True) -> ImageView:
        """Keep a golden image for good, or no more; by its SHA-256 or its id.

        >>> await client.images.pin("0" * 64)
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        return await self._client.call(image_calls.pin(ref, pinned=pinned))

    async def golden(self, image: str, name: str, **options: Unpack[GoldenOptions]) -> AsyncImageJob:
        """Begin to make one of the root file system in a golden image: by its URL, or the SHA-256 of one that is kept.

        >>> image = here / "empty.raw"
        >>> image.write_bytes(bytes(2_000_000))
        2000000
        >>> job = await client.images.golden(image.as_uri(), "golden-root", image_type="raw")
        >>> await job.wait()
        Traceback (most recent call last):
        hearth.errors.InvalidInput: ...
        """
        return self._job(await self._client.call(image_calls.golden(image, name, options)))

    async def import_(self, archive: BinaryIO, name: str, **options: Unpack[ImportOptions]) -> AsyncImageJob:
        """Send an archive (docker save, OCI layout, a file system's tar), and begin to make an image of it.

        >>> import tarfile
        >>> tar = tarfile.open(here / "root.tar", "w")
        >>> tar.add("/etc/hostname", "etc/hostname")
        >>> tar.close()
        >>> archive = (here / "root.tar").open("rb")
        >>> job = await client.images.import_(archive, "tiny")
        >>> archive.close()
        >>> (await job.wait()).name
        'tiny'
        >>> await client.images.delete("tiny")
        """
        call = image_calls.import_(archive, name, options)
        return self._job(call.read(await self._transport.fetch(call.request, _pieces(archive))))

    def _job(self, job: JobView) -> AsyncImageJob:
        return AsyncImageJob(self._client, self._transport, job)


class AsyncImageJob:
    """An image on its way. Iterate for how far it is, to its end; breaking off the iteration breaks nothing off."""

    def __init__(self, client: AsyncCaller, transport: AsyncTransport, job: JobView) -> None:
        self.job = job
        self._client = client
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[JobProgress]:
        """Give how far it is whenever that changes, until it is there.

        Raises:
            HearthError: it failed, with the job's own error.
            Cancelled: somebody cancelled it.
            Unavailable, TimedOut: the daemon was gone for a minute.
        """
        lost_s: float | None = None
        while True:
            try:
                async with self._transport.open(image_calls.follow(self.job.job_id)) as incoming:
                    if incoming.reader.status != 200:
                        raise read_problem(await incoming.whole())
                    reader = EventReader()
                    async for data in incoming:
                        lost_s = None
                        for event in reader.feed(data):
                            if (progress := image_calls.progress_in(event)) is not None:
                                yield progress
                            if image_calls.has_ended(event):
                                await self._end()
                                return
            except (Unavailable, TimedOut):
                if self._has_failed() or (lost_s is not None and time.monotonic() - lost_s > RETRY_FOR_S):
                    raise
            lost_s = lost_s or time.monotonic()
            await asyncio.sleep(RETRY_S)

    async def wait(self) -> ImageView:
        """Wait until it is there and give it. Raises as the iteration."""
        async for _ in self:
            pass
        return await self._client.call(image_calls.get(self.job.subject))

    async def cancel(self) -> None:
        """Break it off: nothing is left of it but layers that came whole."""
        await self._client.call(event_calls.cancel(self.job.job_id))

    async def _end(self) -> None:
        self.job = await self._client.call(event_calls.job(self.job.job_id))
        if self._has_failed():
            raise image_calls.error_of(self.job)

    def _has_failed(self) -> bool:
        return self.job.status in ("failed", "cancelled")


async def _pieces(archive: BinaryIO) -> AsyncIterator[bytes]:
    pieces = image_calls.pieces_of(archive)
    while piece := await aside(next, pieces, b""):
        yield piece
