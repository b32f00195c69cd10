"""Runs plans for durable job rows: claims, keeps the lease alive, and lets nothing stop an undo half-way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from hearth.errors import HearthError
from hearth.host.clock import Clock
from hearth.host.identity import new_job_id
from hearth.host.waiting import until_done
from hearth.jobs.events import Observer, unobserved
from hearth.jobs.execution import Execution
from hearth.jobs.lease import LeaseTerms, keep_alive
from hearth.jobs.patience import patiently
from hearth.jobs.plan import Plan
from hearth.model import Job, JobError, JobState
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
        is_patient: a store that does not answer is waited for as long as the lease lasts; else the job fails.
    """

    def __init__(
        self,
        jobs: JobStore,
        *,
        owner: str,
        clock: Clock,
        terms: LeaseTerms | None = None,
        observer: Observer = unobserved,
        is_patient: bool = False,
    ) -> None:
        self._jobs = jobs
        self._owner = owner
        self._clock = clock
        self._terms = terms or LeaseTerms()
        self._observer = observer
        self._is_patient = is_patient
        self._is_leaving = False

    @property
    def terms(self) -> LeaseTerms:
        """How leases are kept."""
        return self._terms

    def leave(self) -> None:
        """From now on what is cancelled is not undone: its lease is given up, and whoever takes it goes on with it."""
        self._is_leaving = True

    async def submit(
        self,
        plan: Plan[T],
        subject: str,
        value: T,
        *,
        owner: str | None = None,
        any_host: bool = False,
        holds: str | None = None,
        most: int | None = None,
    ) -> Job:
        """Store a job to be run, for the user ``owner``; its input is all that undoing it will have.

        ``most`` jobs of its kind may not have ended, at all daemons of the store together.

        Raises:
            LineFull: there are so many.
            JobUnderWay: another that has not ended holds what ``holds`` names.
        """
        job = Job(
            id=new_job_id(),
            kind=plan.kind,
            subject=subject,
            owner=owner,
            any_host=any_host,
            holds=holds,
            input=plan.encode(value),
            created_at=self._clock.now(),
        )
        await self._jobs.create(job, most=most)
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

    async def take(self, kinds: Collection[str], *, of_the_dead: bool = False, but: Collection[str] = ()) -> Job | None:
        """Claim the oldest job of these kinds that waits, or with ``of_the_dead`` one whose daemon has died; None when
        there is none. Whoever gets it calls ``go_on`` or ``go_back``.

        Args:
            but: the ids of jobs under way here: their leases, too, have run out when the host stood still for long.
        """
        expected = frozenset({JobState.RUNNING, JobState.UNDOING}) if of_the_dead else frozenset({JobState.PENDING})
        return await self._jobs.claim_next(
            self._owner,
            kinds=kinds,
            expected=expected,
            new=JobState.RUNNING,
            lease_s=self._terms.lease_s,
            spared=but,
        )

    async def go_on(self, job: Job, plan: Plan[T]) -> Job:
        """Do a job that was taken, from its first step; ends as ``run`` does."""
        execution = self._execution(job, plan)
        return await self._conduct(execution, execution.forward(), job, None)

    async def go_back(self, job: Job, plan: Plan[T], error: JobError | None = None) -> Job:
        """Undo a job that was taken, for the reason ``error`` if its row tells none; ends as ``unwind`` does."""
        undoing = await self._jobs.transition(
            job.id, {JobState.RUNNING}, JobState.UNDOING, owner=self._owner, error=job.error or error
        )
        execution = self._execution(undoing, plan)
        return await self._conduct(execution, execution.backward(), undoing, None)

    async def note(self, job_id: str, result: Mapping[str, object]) -> None:
        """Keep what came of a job that is being done here. Raises LeaseLost."""

        async def note() -> None:
            await self._jobs.note(job_id, self._owner, result)

        await (patiently(note, self._clock, what=job_id) if self._is_patient else note())

    async def cancels_asked(self) -> Sequence[str]:
        """Give the ids of the jobs under way here whose end somebody wishes for."""
        return await self._jobs.cancels_asked(self._owner)

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
        return Execution(
            job,
            plan,
            owner=self._owner,
            jobs=self._jobs,
            clock=self._clock,
            observer=self._observer,
            is_patient=self._is_patient,
        )

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
                if self._is_leaving:
                    execution.abandon(working)
                else:
                    execution.interrupt(working)
            if heartbeat.done() and not working.done() and lost is None:
                lost = heartbeat.exception() or heartbeat.result()
                execution.abandon(working)
        heartbeat.cancel()
        await until_done(heartbeat)
        if cancelled is not None and self._is_leaving:
            with contextlib.suppress(HearthError):  # the job has ended, or is somebody else's
                await self._jobs.renew(job.id, self._owner, lease_s=0.0)
        return _outcome(working, lost, cancelled)


def _outcome(working: asyncio.Task[Job], lost: BaseException | None, cancelled: asyncio.CancelledError | None) -> Job:
    failure = None if working.cancelled() else working.exception()
    if cancelled is not None:
        raise cancelled from failure
    if lost is not None:
        raise lost from failure
    return working.result()
