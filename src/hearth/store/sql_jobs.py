"""Jobs and leases in SQL. Every change is one UPDATE whose WHERE holds what must still be true."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Update, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError
from hearth.host.clock import Clock
from hearth.model import Job, JobError, JobState, StepRecord
from hearth.store import refusals, rows
from hearth.store.base import FIRST_PAGE, JOBS_KEPT_FOR, JOBS_KEPT_PER_SUBJECT, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import jobs
from hearth.store.sql_paging import page_of

ENDED = sorted(state for state in JobState if state.is_final)
GET = select(jobs).where(jobs.c.id == bindparam("job_id"))


class SqlJobs:
    """``JobStore`` over a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, job: Job) -> None:
        row = rows.job_row(job)
        ended = jobs.c.state.in_(ENDED)
        surplus = (
            select(jobs.c.id)
            .where(jobs.c.subject == job.subject, jobs.c.kind == job.kind, ended)
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .offset(JOBS_KEPT_PER_SUBJECT)
        )

        def work(connection: Connection) -> None:
            connection.execute(insert(jobs), row)
            connection.execute(delete(jobs).where(ended, jobs.c.created_at <= self._clock.now() - JOBS_KEPT_FOR))
            connection.execute(delete(jobs).where(jobs.c.id.in_(surplus)))

        try:
            await self._database.write(work)
        except IntegrityError as error:
            raise refusals.taken("job", job.id) from error

    async def get(self, job_id: str) -> Job:
        row = await self._database.read(lambda connection: connection.execute(GET, {"job_id": job_id}).first())
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
        statement = select(jobs)
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
            .where(jobs.c.state.in_(sorted(states)), self._lease_is_free(None))
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
        now = self._clock.now()
        statement = (
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state.in_(sorted(expected)), self._lease_is_free(displacing))
            .values(
                state=new.value,
                attempt=jobs.c.attempt + 1,
                lease_owner=owner,
                lease_until=now + timedelta(seconds=lease_s),
                started_at=func.coalesce(jobs.c.started_at, bindparam("now", now, jobs.c.started_at.type)),
            )
        )

        def explain(job: Job) -> HearthError:
            if job.state in expected:
                return refusals.lease_lost(job)
            return refusals.wrong_state("job", job_id, job.state, expected)

        return await self._change(job_id, statement, explain)

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
        await self._change(job_id, statement, refusals.lease_lost)

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

        return await self._change(job_id, statement, explain)

    def _lease_is_free(self, displacing: str | None) -> ColumnElement[bool]:
        free = or_(jobs.c.lease_owner.is_(None), jobs.c.lease_until <= self._clock.now())
        return free if displacing is None else or_(free, jobs.c.lease_owner == displacing)

    async def _change(self, job_id: str, statement: Update, explain: Callable[[Job], HearthError]) -> Job:
        returning = statement.returning(*jobs.c)

        def work(connection: Connection) -> Job:
            row = connection.execute(returning).first()
            if row is not None:
                return rows.job_of(row)
            unchanged = connection.execute(GET, {"job_id": job_id}).first()
            if unchanged is None:
                raise refusals.not_found("job", job_id)
            raise explain(rows.job_of(unchanged))

        return await self._database.write(work)
