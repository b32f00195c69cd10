"""Jobs and leases in SQL. Every change is one UPDATE whose WHERE holds what must still be true."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from zlib import crc32

from sqlalchemy import ColumnElement, Connection, Select, Update, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError, Unavailable
from hearth.host.clock import Clock
from hearth.model import Job, JobError, JobState, StepRecord
from hearth.store import refusals, rows
from hearth.store.base import (
    FIRST_PAGE,
    JOBS_KEPT_FOR,
    JOBS_KEPT_PER_SUBJECT,
    UNENDED,
    JobUnderWay,
    LineFull,
    Page,
    PageRequest,
)
from hearth.store.database import Database
from hearth.store.host_store import ALONE, ANY_HOST
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import jobs
from hearth.store.sql_paging import page_of
from hearth.store.sql_webhooks import tell
from hearth.webhooks import PROGRESS, kind_of

ENDED = sorted(state for state in JobState if state.is_final)
LINE_LOCK = 0x68656172
"""The first key of PostgreSQL's advisory locks on the line of a kind of jobs."""
HOLD_TRIES = 5
"""Of storing a job whose predecessor ends in just this moment."""
GET = select(jobs).where(jobs.c.id == bindparam("job_id"))


class SqlJobs:
    """``JobStore`` over a database."""

    def __init__(self, database: Database, clock: Clock, host: str = ALONE) -> None:
        self._database = database
        self._clock = clock
        self._host = host
        self._get = GET.where(self._ours())

    async def create(self, job: Job, *, most: int | None = None) -> None:
        row = rows.job_row(job, self._host)
        ended = jobs.c.state.in_(ENDED)
        surplus = (
            select(jobs.c.id)
            .where(jobs.c.subject == job.subject, jobs.c.kind == job.kind, ended)
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .offset(JOBS_KEPT_PER_SUBJECT)
        )

        def work(connection: Connection) -> None:
            if most is not None and connection.dialect.name == "postgresql":
                # One after the other: two that cannot see each other's rows would both take the last place.
                connection.execute(select(func.pg_advisory_xact_lock(LINE_LOCK, crc32(job.kind.encode()) >> 1)))
            connection.execute(insert(jobs), row)
            if most is not None and (in_line := connection.scalar(self._in_line(job.kind)) or 0) > most:
                raise LineFull(job.kind, in_line - 1)
            connection.execute(delete(jobs).where(ended, jobs.c.created_at <= self._clock.now() - JOBS_KEPT_FOR))
            connection.execute(delete(jobs).where(jobs.c.id.in_(surplus)))

        for _ in range(HOLD_TRIES):
            try:
                await self._database.write(work)
            except IntegrityError as error:
                if await self._is_there(job.id):
                    raise refusals.taken("job", job.id) from error
                if (holder := await self._holder(job.holds)) is not None:
                    raise JobUnderWay(holder) from error
            else:
                return
        raise Unavailable(
            "jobs for the same thing come and go",
            details=f"{job.kind} of {job.subject}",
            resolution="try again",
        )

    def _in_line(self, kind: str) -> Select[int]:
        unended = (jobs.c.kind == kind, jobs.c.state.in_(sorted(UNENDED)), self._ours())
        return select(func.count()).select_from(jobs).where(*unended)

    async def _is_there(self, job_id: str) -> bool:
        statement = select(jobs.c.id).where(jobs.c.id == job_id)
        return await self._database.read(lambda connection: connection.scalar(statement)) is not None

    async def _holder(self, held: str | None) -> Job | None:
        """Give the job that holds something, on whichever host; None when it has ended by now."""
        statement = select(jobs).where(jobs.c.holds == held, jobs.c.state.in_(sorted(UNENDED)))
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else rows.job_of(row)

    async def get(self, job_id: str) -> Job:
        row = await self._database.read(lambda connection: connection.execute(self._get, {"job_id": job_id}).first())
        if row is None:
            raise refusals.not_found("job", job_id)
        return rows.job_of(row)

    async def list(
        self,
        *,
        subject: str | None = None,
        owner: str | None = None,
        states: Collection[JobState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Job]:
        limit, after = read_request(page)
        statement = select(jobs).where(self._ours())
        if subject is not None:
            statement = statement.where(jobs.c.subject == subject)
        if owner is not None:
            statement = statement.where(jobs.c.owner == owner)
        if states:
            statement = statement.where(jobs.c.state.in_(sorted(states)))
        statement = page_of(statement, jobs, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[rows.job_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def claimable(self, *, states: Collection[JobState], limit: int = 100) -> Sequence[Job]:
        statement = (
            select(jobs)
            .where(jobs.c.state.in_(sorted(states)), self._ours(), self._lease_is_free(None))
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(limit)
        )
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [rows.job_of(row) for row in found]

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
        free = (jobs.c.state.in_(sorted(expected)), self._ours(), self._lease_is_free(displacing))
        statement = self._leased(owner, new, lease_s).where(jobs.c.id == job_id, *free)

        def explain(job: Job) -> HearthError:
            if job.state in expected:
                return refusals.lease_lost(job)
            return refusals.wrong_state("job", job_id, job.state, expected)

        return await self._change(job_id, statement, explain, kind_of(new))

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
        # Locked, and past what others have locked: of many who ask at once each gets another.
        first = (
            select(jobs.c.id)
            .where(jobs.c.kind.in_(sorted(kinds)), jobs.c.state.in_(sorted(expected)))
            .where(self._ours(), self._lease_is_free(None), jobs.c.id.not_in(sorted(spared)))
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        leased = self._leased(owner, new, lease_s).returning(*jobs.c)

        def work(connection: Connection) -> Job | None:
            job_id = connection.scalar(first)
            if job_id is None:
                return None
            job = rows.job_of(connection.execute(leased.where(jobs.c.id == job_id)).one())
            tell(connection, job, kind_of(new), self._clock.now())
            return job

        return await self._database.write(work)

    async def renew(self, job_id: str, owner: str, *, lease_s: float) -> None:
        until = self._clock.now() + timedelta(seconds=lease_s)
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.lease_owner == owner).values(lease_until=until)
        await self._change(job_id, statement, refusals.lease_lost)

    async def record(self, job_id: str, owner: str, *, step: str, steps: Sequence[StepRecord]) -> None:
        statement = (
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.lease_owner == owner)
            .values(step=step, steps=rows.plain(steps))
        )
        await self._change(job_id, statement, refusals.lease_lost, PROGRESS)

    async def note(self, job_id: str, owner: str, result: Mapping[str, object]) -> None:
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.lease_owner == owner)
        await self._change(job_id, statement.values(result=rows.plain(result)), refusals.lease_lost)

    async def ask_cancel(self, job_id: str) -> Job:
        now = bindparam("now", self._clock.now(), jobs.c.cancel_asked_at.type)
        statement = update(jobs).where(jobs.c.id == job_id, self._ours(), jobs.c.state.in_(sorted(UNENDED)))
        statement = statement.values(cancel_asked_at=func.coalesce(jobs.c.cancel_asked_at, now))

        def explain(job: Job) -> HearthError:
            return refusals.wrong_state("job", job_id, job.state, UNENDED)

        return await self._change(job_id, statement, explain)

    async def cancels_asked(self, owner: str) -> Sequence[str]:
        statement = (
            select(jobs.c.id)
            .where(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_owner == owner)
            .where(jobs.c.cancel_asked_at.is_not(None))
            .order_by(jobs.c.id)
        )
        return await self._database.read(lambda connection: connection.scalars(statement).all())

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
        statement = (
            update(jobs)
            .where(
                jobs.c.id == job_id, jobs.c.state.in_(sorted(expected)), jobs.c.lease_owner.is_not_distinct_from(owner)
            )
            .values(state=new.value)
        )
        if error is not None:
            statement = statement.values(error=rows.plain(error))
        if steps is not None:
            statement = statement.values(steps=rows.plain(steps))
        if new.is_final:
            statement = statement.values(lease_owner=None, lease_until=None, finished_at=self._clock.now())

        def explain(job: Job) -> HearthError:
            if job.lease_owner != owner:
                return refusals.lease_lost(job)
            return refusals.wrong_state("job", job_id, job.state, expected)

        return await self._change(job_id, statement, explain, kind_of(new))

    def _leased(self, owner: str, new: JobState, lease_s: float) -> Update:
        now = self._clock.now()
        return update(jobs).values(
            state=new.value,
            attempt=jobs.c.attempt + 1,
            lease_owner=owner,
            lease_until=now + timedelta(seconds=lease_s),
            started_at=func.coalesce(jobs.c.started_at, bindparam("now", now, jobs.c.started_at.type)),
        )

    def _ours(self) -> ColumnElement[bool]:
        return jobs.c.host.in_([self._host, ANY_HOST])

    def _lease_is_free(self, displacing: str | None) -> ColumnElement[bool]:
        free = or_(jobs.c.lease_owner.is_(None), jobs.c.lease_until <= self._clock.now())
        return free if displacing is None else or_(free, jobs.c.lease_owner == displacing)

    async def _change(
        self, job_id: str, statement: Update, explain: Callable[[Job], HearthError], event: str | None = None
    ) -> Job:
        """Change one job, and tell its hooks of ``event``: those that any host may do alone have some."""
        returning = statement.returning(*jobs.c)

        def work(connection: Connection) -> Job:
            row = connection.execute(returning).first()
            if row is not None:
                job = rows.job_of(row)
                if job.any_host:
                    tell(connection, job, event, self._clock.now())
                return job
            unchanged = connection.execute(self._get, {"job_id": job_id}).first()
            if unchanged is None:
                raise refusals.not_found("job", job_id)
            raise explain(rows.job_of(unchanged))

        return await self._database.write(work)
