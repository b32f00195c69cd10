"""Runs plans for durable job rows: claims, keeps the lease alive, and lets nothing stop an undo half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

from hearth.host.clock import Clock
from hearth.host.identity import new_job_id
from hearth.host.waiting import until_done
from hearth.jobs.events import Observer, unobserved
from hearth.jobs.execution import Execution
from hearth.jobs.lease import LeaseTerms, keep_alive
from hearth.jobs.plan import Plan
from hearth.model import Job, JobState
from hearth.store.base import JobStore

T = TypeVar("T")

UNFINISHED = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNDOING})
"""States in which a crash may have left a job; ``claimable(states=UNFINISHED)`` finds those to unwind."""


class Runner:
    """Does and undoes jobs for one daemon.

    Args:
        owner: names this run of the daemon in leases; never the same twice, so that a dead one's lease is not ours.
        terms: how leases are kept.
        observer: gets every step's events.
    """

    def __init__(
        self,
        jobs: JobStore,
        *,
        owner: str,
        clock: Clock,
        terms: LeaseTerms | None = None,
        observer: Observer = unobserved,
    ) -> None:
        self._jobs = jobs
        self._owner = owner
        self._clock = clock
        self._terms = terms or LeaseTerms()
        self._observer = observer

    async def submit(self, plan: Plan[T], subject: str, value: T, *, owner: str | None = None) -> Job:
        """Store a job to be run, for the user ``owner``; its input is all that undoing it will have."""
        job = Job(
            id=new_job_id(),
            kind=plan.kind,
            subject=subject,
            owner=owner,
            input=plan.encode(value),
            created_at=self._clock.now(),
        )
        await self._jobs.create(job)
        return job

    async def run(self, job_id: str, plan: Plan[T]) -> Job:
        """Do a pending job. Returns it completed; otherwise what was begun is undone before the error is raised.

        A cancellation passes after the undo has ended. One that comes when the last step is done passes too, but the
        job is completed: the row tells.

        Raises:
            NotFound, Conflict: there is no such job, or it is not pending any more.
            LeaseLost: another daemon has taken the job over; it undoes it.
            Exception: what a step raised.
        """
        job, cancelled = await self._claim(job_id, expected={JobState.PENDING}, new=JobState.RUNNING)
        execution = self._execution(job, plan)
        return await self._conduct(execution, execution.forward(), job, cancelled)

    async def unwind(self, job_id: str, plan: Plan[T], *, displacing: str | None = None) -> Job:
        """Undo a job whose runner died, whatever it was doing. Returns it failed or cancelled.

        Args:
            displacing: the dead runner's ``lease_owner`` when its death is certain; otherwise its lease must run out.

        Raises:
            NotFound, Conflict: there is no such job, or it has ended.
            LeaseLost: somebody holds its lease.
            InputUnreadable: another version stored it in another form; the job is left alone.
            UndoFailed: some steps resisted; try again after the lease has run out.
        """
        job, cancelled = await self._claim(job_id, expected=UNFINISHED, new=JobState.UNDOING, displacing=displacing)
        execution = self._execution(job, plan)
        return await self._conduct(execution, execution.backward(), job, cancelled)

    async def _claim(
        self, job_id: str, *, expected: Collection[JobState], new: JobState, displacing: str | None = None
    ) -> tuple[Job, asyncio.CancelledError | None]:
        """Claim a job, and give the cancellation that came meanwhile: a claimed job must be brought to an end."""
        claim = self._jobs.claim(
            job_id, self._owner, expected=expected, new=new, lease_s=self._terms.lease_s, displacing=displacing
        )
        claiming = asyncio.create_task(claim, name=f"claim of {job_id}")
        cancelled: asyncio.CancelledError | None = None
        try:
            await until_done(claiming)
        except asyncio.CancelledError as error:
            cancelled = error
        return _outcome(claiming, None, cancelled if claiming.exception() else None), cancelled

    def _execution(self, job: Job, plan: Plan[T]) -> Execution[T]:
        return Execution(job, plan, owner=self._owner, jobs=self._jobs, clock=self._clock, observer=self._observer)

    async def _conduct(
        self,
        execution: Execution[T],
        work: Coroutine[Any, Any, Job],
        job: Job,
        cancelled: asyncio.CancelledError | None,
    ) -> Job:
        """Run ``work`` beside its heartbeat to its end; a cancellation interrupts the steps and passes at the end."""
        working = asyncio.create_task(work, name=f"work on {job.id}")
        heartbeat = asyncio.create_task(
            keep_alive(self._jobs, job.id, self._owner, terms=self._terms, clock=self._clock),
            name=f"heartbeat of {job.id}",
        )
        lost: BaseException | None = None
        if cancelled is not None:
            execution.interrupt(working)
        while not working.done():
            waiting = {working} if lost else {working, heartbeat}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as error:
                cancelled = error
                execution.interrupt(working)
            if heartbeat.done() and not working.done() and lost is None:
                lost = heartbeat.exception() or heartbeat.result()
                execution.abandon(working)
        heartbeat.cancel()
        await until_done(heartbeat)
        return _outcome(working, lost, cancelled)


def _outcome(working: asyncio.Task[Job], lost: BaseException | None, cancelled: asyncio.CancelledError | None) -> Job:
    failure = None if working.cancelled() else working.exception()
    if cancelled is not None:
        raise cancelled from failure
    if lost is not None:
        raise lost from failure
    return working.result()
