"""Use cases of images that come from elsewhere: pulls and imports as jobs, which anybody may watch and break off."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import structlog

from hearth.config import Settings
from hearth.control.image_claims import ImageClaims
from hearth.control.image_work import Destination, ImageWork, Import, ImportWork, OnStage, Pull, PullWork, Stage, Work
from hearth.control.images import Images
from hearth.control.reporting import Reporter
from hearth.errors import (
    Conflict,
    HearthError,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TimedOut,
    TooLarge,
)
from hearth.host import files
from hearth.host.identity import new_id
from hearth.host.threads import KeptThread
from hearth.image.layers.streams import MAGIC_BYTES
from hearth.image.oci.addresses import read_registries
from hearth.image.oci.blobs import BlobCache
from hearth.image.oci.documents import Platform
from hearth.image.oci.transport import Transport
from hearth.jobs.failure import describe
from hearth.jobs.runner import Runner
from hearth.model import Job, JobState, User
from hearth.store.base import JobStore

log = structlog.get_logger(__name__)
T = TypeVar("T")

MIB = 1024 * 1024
MADE_AT_ONCE = 2
"""Images that are unpacked at once: that is the host's work. Who waits for a registry keeps nobody waiting."""
PER_USER_AT_ONCE = 2
JOBS_PER_USER = 8
"""Pulls and imports of one user that may wait or run."""
TIMEOUT_S = 6 * 3600.0
FREE_BYTES = 256 * MIB
CHECK_EVERY_BYTES = 64 * MIB


class TooManyImages(RateLimited):
    """The user has as many pulls and imports under way as may be."""

    retry_after_s = 10.0


@dataclass(kw_only=True)
class _Running:
    task: asyncio.Task[None]
    is_cancelled: bool = False


class ImageJobs:
    """Pulls and imports of one daemon.

    Raises:
        InvalidInput: a setting about registries cannot be read.
    """

    def __init__(
        self,
        *,
        jobs: JobStore,
        images: Images,
        claims: ImageClaims,
        runner: Runner,
        reporter: Reporter,
        settings: Settings,
    ) -> None:
        self._jobs = jobs
        self._images = images
        self._claims = claims
        self._runner = runner
        self._reporter = reporter
        self._max_bytes = settings.image_max_mib * MIB
        self._registries = read_registries(settings.registry_allow, settings.registry_insecure, settings.registry_only)
        self._cache = BlobCache(images.store.root / "blobs", max_bytes=settings.layer_cache_mib * MIB)
        self._cache.prepare()
        self._slots = asyncio.Semaphore(MADE_AT_ONCE)
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._running: dict[str, _Running] = {}
        self._counts: Counter[str] = Counter()

    async def pull(self, user: User, pull: Pull, *, name: str, shared: bool = False) -> Job:
        """Begin to pull an image; gives the job.

        Raises:
            InvalidInput, Forbidden, Conflict, QuotaExceeded: as ``ImageClaims.claim``, or ``insecure`` may not be.
            TooManyImages: too many are under way.
        """
        async with contextlib.AsyncExitStack() as stack:
            to = await self._enter(stack, user, name, shared)
            transport = Transport(self._registries)
            stack.push_async_callback(transport.close)
            stage = _Reported(self._reporter)
            work = PullWork(self._images, self._cache, pull, to, transport, stage)
            return await self._begin(stack, user, work, ImageWork(name=name, source=str(pull.reference)), stage)

    async def begin(
        self, user: User, make: Callable[[Destination, OnStage], Work], given: ImageWork, *, shared: bool = False
    ) -> Job:
        """Begin other work that ends in an image called ``given.name``; gives the job. Raises as ``pull``."""
        async with contextlib.AsyncExitStack() as stack:
            to = await self._enter(stack, user, given.name, shared)
            stage = _Reported(self._reporter)
            return await self._begin(stack, user, make(to, stage), given, stage)

    async def begin_fetch(self, user: User, make: Callable[[OnStage], Work], given: ImageWork) -> Job:
        """Begin work that ends in no image of a user's; gives the job. Raises TooManyImages."""
        async with contextlib.AsyncExitStack() as stack:
            await self._held(stack, functools.partial(self._place, user))
            stage = _Reported(self._reporter)
            return await self._begin(stack, user, make(stage), given, stage)

    @contextlib.asynccontextmanager
    async def upload(self, user: User, *, name: str, shared: bool = False) -> AsyncIterator[Upload]:
        """Take an archive piece by piece, then ``begin_import``. Without that nothing is left of it.

        Raises as ``pull``.
        """
        async with contextlib.AsyncExitStack() as stack:
            to = await self._enter(stack, user, name, shared)
            self._images.store.prepare()
            spool = await stack.enter_async_context(contextlib.AsyncExitStack())
            directory = await spool.enter_async_context(self._images.store.alone(new_id("import")))
            upload = Upload(directory / "archive", self._max_bytes, user, to)
            spool.callback(upload.close)
            upload.held, upload.release = stack, spool.aclose
            yield upload

    async def begin_import(self, upload: Upload, platform: Platform) -> Job:
        """Make an image of what was uploaded; gives the job, whose the archive is from now on.

        Raises:
            InvalidInput: nothing was sent.
        """
        digest = await upload.finish()
        given = Import(archive=upload.path, sha256=digest, platform=platform, release=upload.release)
        stage = _Reported(self._reporter)
        work = ImportWork(self._images, given, upload.to, stage)
        return await self._begin(upload.held, upload.user, work, ImageWork(name=upload.to.name, source="import"), stage)

    def can_cancel(self, job: Job) -> bool:
        """Tell whether a job is one of these that is under way here."""
        return job.id in self._running

    async def cancel(self, job: Job) -> None:
        """End a job, and return when nothing is left of it; one that has ended is fine."""
        running = self._running.get(job.id)
        if running is not None:
            running.is_cancelled = True
            running.task.cancel()
            await asyncio.wait([running.task])

    async def close(self) -> None:
        """End all that are under way."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _enter(self, stack: contextlib.AsyncExitStack, user: User, name: str, shared: bool) -> Destination:
        owner = await self._held(stack, functools.partial(self._claimed, user, name, shared))
        return Destination(name=name, owner=owner, max_bytes=self._max_bytes, slots=self._slots)

    async def _claimed(self, user: User, name: str, shared: bool, stack: contextlib.AsyncExitStack) -> str | None:
        self._count(user, stack)
        return await stack.enter_async_context(self._claims.claim(user, name, shared=shared))

    async def _held(
        self, stack: contextlib.AsyncExitStack, take: Callable[[contextlib.AsyncExitStack], Awaitable[T]]
    ) -> T:
        """Take a name or a place until ``stack`` is closed, which may be a moment too early to be had."""
        while True:
            try:
                async with contextlib.AsyncExitStack() as taken:
                    result = await take(taken)
                    stack.push_async_exit(taken.pop_all())
                    return result
            except (Conflict, QuotaExceeded, TooManyImages):
                if not await self._parted():
                    raise

    async def _parted(self) -> bool:
        """Wait until jobs that are over hold nothing; False without any.

        A job's row tells its owner of the end before the job lets go of its name and place: who comes back at once is
        not to be told that they are taken.
        """
        over = []
        for job_id, running in list(self._running.items()):
            with contextlib.suppress(NotFound):
                if (await self._jobs.get(job_id)).state.is_final:
                    over.append(running.task)
        if over:
            await asyncio.wait(over)
        return bool(over)

    async def _place(self, user: User, stack: contextlib.AsyncExitStack) -> None:
        self._count(user, stack)

    def _count(self, user: User, stack: contextlib.AsyncExitStack) -> None:
        if self._counts[user.id] >= JOBS_PER_USER:
            raise TooManyImages(
                "too many images are on their way",
                details=f"{JOBS_PER_USER} pulls and imports of yours have not ended yet",
                resolution="wait for one to end, or cancel one",
            )
        self._counts[user.id] += 1
        stack.callback(self._uncount, user.id)

    def _uncount(self, user_id: str) -> None:
        self._counts[user_id] -= 1
        if not self._counts[user_id]:
            del self._counts[user_id]
            self._lanes.pop(user_id, None)

    async def _begin(
        self,
        stack: contextlib.AsyncExitStack,
        user: User,
        work: Work,
        given: ImageWork,
        stage: _Reported,
    ) -> Job:
        plan = work.plan()
        job = await self._runner.submit(plan, given.name, given, owner=user.id)
        stage.job_id = job.id
        held = stack.pop_all()
        task = asyncio.create_task(self._run(job, work, held), name=f"{job.kind} {job.id}")
        self._running[job.id] = _Running(task=task)
        task.add_done_callback(lambda _: self._running.pop(job.id, None))
        return job

    async def _run(self, job: Job, work: Work, held: contextlib.AsyncExitStack) -> None:
        try:
            async with held, self._lanes.setdefault(job.owner or "", asyncio.Semaphore(PER_USER_AT_ONCE)):
                await self._conduct(job, work)
            await self._cache.evict()
        except asyncio.CancelledError:
            await self._give_up(job)
            raise
        except HearthError as error:
            log.info("image did not come", job=job.id, kind=job.kind, name=job.subject, error=str(error))
        except Exception:
            # The job's row tells its owner; whoever works on jobs goes on with the next one.
            log.exception("image did not come", job=job.id, kind=job.kind, name=job.subject)

    async def _conduct(self, job: Job, work: Work) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._runner.run(job.id, work.plan())
        except TimeoutError as error:
            raise TimedOut("the image took too long", details=f"{TIMEOUT_S:g} s") from error
        image = work.image
        if image is not None:
            log.info("image is here", image=image.id, name=image.name, owner=image.owner, job=job.id)

    async def _give_up(self, job: Job) -> None:
        """End a job that was cancelled before it was begun; the runner ends all others."""
        current = await self._jobs.get(job.id)
        if current.state is JobState.PENDING:
            reason = describe(asyncio.CancelledError())
            await self._jobs.transition(job.id, {JobState.PENDING}, JobState.CANCELLED, owner=None, error=reason)


class Upload:
    """An archive on its way in, in a file of its own."""

    def __init__(self, path: Path, max_bytes: int, user: User, to: Destination) -> None:
        self.path = path
        self.user = user
        self.to = to
        self.held = contextlib.AsyncExitStack()
        """What is let go of when the work is over."""
        self.release: Callable[[], Awaitable[None]] = self.held.aclose
        """Deletes the archive; doing it twice is fine."""
        self._max_bytes = max_bytes
        self._size = 0
        self._checked = 0
        self._digest = hashlib.sha256()
        self._thread = KeptThread("upload")
        self._file: IO[bytes] = path.open("xb", buffering=0)

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLarge: there are more than may be.
            NoSpace: the disk is full.
        """
        self._size += len(data)
        if self._size > self._max_bytes:
            raise self.too_large()
        await self._thread.run(functools.partial(self._write, data))

    def expect(self, size: int) -> None:
        """Refuse what will be too large before it is sent. Raises TooLarge, NoSpace."""
        if size > self._max_bytes:
            raise self.too_large()
        files.require_free(self.path.parent, size + FREE_BYTES)

    async def finish(self) -> str:
        """Give the checksum of what was written. Raises InvalidInput when that is nothing."""
        if self._size < MAGIC_BYTES:
            raise InvalidInput(
                "the archive is empty",
                details=f"{self._size} bytes came",
                resolution="send a tar archive as the body",
                field="body",
            )
        await self._thread.run(self._file.close)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        self._thread.close()
        self._file.close()

    def too_large(self) -> TooLarge:
        """Say how large it may be."""
        return TooLarge(
            "the archive is too large",
            details=f"an archive may have {self._max_bytes} bytes",
            resolution="make it smaller, or ask the operator for a higher --image-max-mib",
            field="body",
        )

    def _write(self, data: bytes) -> None:
        if self._size - self._checked >= CHECK_EVERY_BYTES:
            files.require_free(self.path.parent, FREE_BYTES)
            self._checked = self._size
        with files.space_errors(self.path):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        self._digest.update(data)


class _Reported:
    """Tells how far a job is."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.job_id: str | None = None

    def __call__(self, stage: Stage) -> None:
        if self.job_id is not None:
            self._reporter.work(self.job_id, stage.name, stage.percent, stage.done, stage.total)
