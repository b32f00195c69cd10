"""Who does what is in line: so many at a time on each host, jobs of the dead first; and who tidies up after them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from hearth.control.provisioning.order import KIND
from hearth.control.provisioning.pace import Pace
from hearth.control.provisioning.work import ProvisionWork, Tools, reclaim_all, sweep_all
from hearth.errors import Code, HearthError
from hearth.jobs.failure import describe
from hearth.jobs.runner import Runner
from hearth.model import Job, JobError

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
"""For jobs of daemons that died, and for those that another daemon put in line."""
UPKEEP_EVERY_S = 600.0
UPKEEP_SOON_S = 30.0
"""While another daemon is at work on something that may have been begun here."""
CANCEL_LOOK_EVERY_S = 0.5
"""Whether somebody, at whichever daemon, wishes for the end of what is under way here."""
MAX_ATTEMPTS = 5
"""Of one job; whoever dies five times over it would die again."""

WORN_OUT = JobError(
    code=Code.INTERNAL,
    brief="the job was begun too often",
    details=f"{MAX_ATTEMPTS} daemons ended or lost their lease while they were at it",
    resolution="see why in their logs, then order the volume again: what was fetched is kept for a while",
)

Unfinished = Callable[[], Awaitable[Sequence[Job]]]


class Crew:
    """Carries jobs out.

    Args:
        at_once: volumes that are made at the same time.
        unfinished: gives the jobs of all daemons that have not ended.
    """

    def __init__(self, tools: Tools, runner: Runner, *, at_once: int, unfinished: Unfinished) -> None:
        self._tools = tools
        self._runner = runner
        self._at_once = at_once
        self._unfinished = unfinished
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._works: dict[str, ProvisionWork] = {}
        self._heeded: set[str] = set()
        self._look_every_s = min(LOOK_EVERY_S, runner.terms.heartbeat_s)
        self.pace = Pace(at_once)

    def wake(self) -> None:
        """Say that there is something in line."""
        self._wake.set()

    def working(self) -> Collection[str]:
        """Give the ids of the jobs that are done here."""
        return self._running.keys()

    def users_of(self, key: str) -> Sequence[str]:
        """Give the ids of the jobs here that use an image at this moment."""
        return sorted(job_id for job_id, work in self._works.items() if work.image_key == key)

    async def cancel(self, job_id: str) -> bool:
        """Break a job off that is done here, and return when it is undone; False for any other."""
        task = self._running.get(job_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def run(self) -> None:
        """Do what is in line, until cancelled; what is under way then is left for whoever comes next."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_up(), name="provisioning upkeep")
                tasks.create_task(self._heed_cancels(), name="provisioning cancels")
                for number in range(self._at_once):
                    tasks.create_task(self._work(), name=f"provisioner {number}")
        finally:
            self._runner.leave()
            running = list(self._running.values())
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                job = await self._taken()
            except HearthError as error:
                log.warning("no job could be taken", error=str(error))
                job = None
            if job is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look_every_s):
                        await self._wake.wait()
                continue
            self._wake.set()  # there may be more, for others of us
            task = asyncio.create_task(self._carry_out(job), name=f"{KIND} {job.id}")
            self._running[job.id] = task
            task.add_done_callback(functools.partial(self._forget, job.id))
            with self.pace.job():
                await asyncio.wait([task])

    async def _taken(self) -> Job | None:
        of_the_dead = await self._runner.take({KIND}, of_the_dead=True, but=self.working())
        return of_the_dead or await self._runner.take({KIND})

    def _forget(self, job_id: str, _: asyncio.Task[None]) -> None:
        self._running.pop(job_id, None)
        self._heeded.discard(job_id)

    async def _heed_cancels(self) -> None:
        while True:
            await asyncio.sleep(CANCEL_LOOK_EVERY_S)
            try:
                asked = await self._runner.cancels_asked() if self._running else ()
            except HearthError as error:
                log.debug("nobody knows what is to be cancelled", error=str(error))
                continue
            for job_id in set(asked) - self._heeded:
                if (task := self._running.get(job_id)) is not None:
                    self._heeded.add(job_id)
                    log.info("job is cancelled, as another daemon was asked to", job=job_id)
                    task.cancel()

    async def _carry_out(self, job: Job) -> None:
        work = self._works[job.id] = ProvisionWork(self._tools, job.id, job.attempt)
        try:
            if job.cancel_asked_at is not None:
                await self._runner.go_back(job, work.plan(), describe(asyncio.CancelledError()))
            elif job.error is not None or job.attempt > MAX_ATTEMPTS:
                await self._runner.go_back(job, work.plan(), WORN_OUT)
            else:
                await self._runner.go_on(job, work.plan())
        except HearthError as error:
            log.info("volume not made", job=job.id, volume=job.subject, error=str(error))
        except Exception:
            # The job's row tells its owner; whoever works on jobs goes on with the next one.
            log.exception("volume not made", job=job.id, volume=job.subject)
        finally:
            work.close()
            del self._works[job.id]

    async def _keep_up(self) -> None:
        while True:
            pause_s = UPKEEP_EVERY_S
            try:
                if any(job.lease_owner and job.id not in self._running for job in await self._unfinished()):
                    pause_s = UPKEEP_SOON_S
                await sweep_all(self._tools)
                await self._tools.cache.sweep()
                await reclaim_all(self._tools)
            except (HearthError, OSError) as error:
                log.warning("what is left of volumes was not tidied", error=str(error))
            await asyncio.sleep(pause_s)
