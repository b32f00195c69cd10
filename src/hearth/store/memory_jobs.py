"""Jobs and their leases in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from hearth.host.clock import Clock
from hearth.model import Job, JobError, JobState, StepRecord
from hearth.store import refusals
from hearth.store.base import JobUnderWay, LineFull
from hearth.store.job_store import JOBS_KEPT_FOR, JOBS_KEPT_PER_SUBJECT, UNENDED
from hearth.store.memory_tables import Tables, page_of
from hearth.store.memory_webhooks import tell
from hearth.store.page import FIRST_PAGE, Page, PageRequest
from hearth.webhooks import PROGRESS, kind_of


class MemoryJobs:
    """``JobStore`` in memory."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def create(self, job: Job, *, most: int | None = None) -> None:
        if job.id in self._tables.jobs:
            raise refusals.taken("job", job.id)
        if job.holds is not None:
            for known in self._tables.jobs.values():
                if known.holds == job.holds and not known.state.is_final:
                    raise JobUnderWay(known)
        in_line = sum(known.kind == job.kind and not known.state.is_final for known in self._tables.jobs.values())
        if most is not None and in_line >= most:
            raise LineFull(job.kind, in_line)
        self._tables.jobs[job.id] = job
        ended = [known for known in self._tables.jobs.values() if known.state.is_final]
        oldest = self._clock.now() - JOBS_KEPT_FOR
        alike = [known for known in ended if (known.subject, known.kind) == (job.subject, job.kind)]
        surplus = sorted(alike, key=lambda known: (known.created_at, known.id))[:-JOBS_KEPT_PER_SUBJECT]
        for known in (*surplus, *(known for known in ended if known.created_at <= oldest)):
            self._tables.jobs.pop(known.id, None)

    async def get(self, job_id: str) -> Job:
        try:
            return self._tables.jobs[job_id]
        except KeyError:
            raise refusals.not_found("job", job_id) from None

    async def list(
        self,
        *,
        subject: str | None = None,
        owner: str | None = None,
        states: Collection[JobState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Job]:
        fitting = (
            job
            for job in self._tables.jobs.values()
            if subject in (None, job.subject) and owner in (None, job.owner) and (not states or job.state in states)
        )
        return page_of(fitting, page, lambda job: (job.created_at, job.id))

    async def claimable(self, *, states: Collection[JobState], limit: int = 100) -> Sequence[Job]:
        free = [job for job in self._tables.jobs.values() if job.state in states and self._is_free(job, None)]
        return sorted(free, key=lambda job: (job.created_at, job.id))[:limit]

    async def claim(
        self,
        job_id: str,
        owner: str,
        *,
        expected: Collection[JobState],
        new: JobState,
        lease_s: float,
        displacing: str | None = None,
    ) -> Job:
        job = await self.get(job_id)
        if job.state not in expected:
            raise refusals.wrong_state("job", job_id, job.state, expected)
        if not self._is_free(job, displacing):
            raise refusals.lease_lost(job)
        now = self._clock.now()
        return self._put(
            dataclasses.replace(
                job,
                state=new,
                attempt=job.attempt + 1,
                lease_owner=owner,
                lease_until=now + timedelta(seconds=lease_s),
                started_at=job.started_at or now,
            ),
            kind_of(new),
        )

    async def claim_next(
        self,
        owner: str,
        *,
        kinds: Collection[str],
        expected: Collection[JobState],
        new: JobState,
        lease_s: float,
        spared: Collection[str] = (),
    ) -> Job | None:
        for job in await self.claimable(states=expected, limit=len(self._tables.jobs)):
            if job.kind in kinds and job.id not in spared:
                return await self.claim(job.id, owner, expected=expected, new=new, lease_s=lease_s)
        return None

    async def renew(self, job_id: str, owner: str, *, lease_s: float) -> None:
        job = await self._held(job_id, owner)
        self._put(dataclasses.replace(job, lease_until=self._clock.now() + timedelta(seconds=lease_s)))

    async def record(self, job_id: str, owner: str, *, step: str, steps: Sequence[StepRecord]) -> None:
        job = await self._held(job_id, owner)
        self._put(dataclasses.replace(job, step=step, steps=tuple(steps)), PROGRESS)

    async def note(self, job_id: str, owner: str, result: Mapping[str, object]) -> None:
        job = await self._held(job_id, owner)
        self._put(dataclasses.replace(job, result=dict(result)))

    async def ask_cancel(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job.state.is_final:
            raise refusals.wrong_state("job", job_id, job.state, UNENDED)
        return self._put(dataclasses.replace(job, cancel_asked_at=job.cancel_asked_at or self._clock.now()))

    async def cancels_asked(self, owner: str) -> Sequence[str]:
        held = [job for job in self._tables.jobs.values() if job.lease_owner == owner and job.state is JobState.RUNNING]
        return sorted(job.id for job in held if job.cancel_asked_at is not None)

    async def transition(
        self,
        job_id: str,
        expected: Collection[JobState],
        new: JobState,
        *,
        owner: str | None,
        error: JobError | None = None,
        steps: Sequence[StepRecord] | None = None,
    ) -> Job:
        job = await self._held(job_id, owner)
        if job.state not in expected:
            raise refusals.wrong_state("job", job_id, job.state, expected)
        changed = dataclasses.replace(
            job, state=new, error=error or job.error, steps=job.steps if steps is None else tuple(steps)
        )
        if new.is_final:
            changed = dataclasses.replace(changed, lease_owner=None, lease_until=None, finished_at=self._clock.now())
        return self._put(changed, kind_of(new))

    async def _held(self, job_id: str, owner: str | None) -> Job:
        job = await self.get(job_id)
        if job.lease_owner != owner:
            raise refusals.lease_lost(job)
        return job

    def _is_free(self, job: Job, displacing: str | None) -> bool:
        if job.lease_owner is None or job.lease_until is None or job.lease_until <= self._clock.now():
            return True
        return job.lease_owner == displacing

    def _put(self, job: Job, event: str | None = None) -> Job:
        self._tables.jobs[job.id] = job
        if job.any_host:
            tell(self._tables, self._clock, job, event)
        return job
