"""Use cases of jobs: what the daemon does for somebody, how far it has come, and an end to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from hearth.control.board import Board
from hearth.control.reporting import Reporter
from hearth.control.sandboxes import Sandboxes
from hearth.errors import Conflict, InvalidInput
from hearth.jobs.bringup import CREATE_KIND
from hearth.model import Job, JobState, User
from hearth.store.base import JobStore, Page, PageRequest
from hearth.store.refusals import not_found

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job is: the step it is at, and how much is done, in percent, where that is known.

    Of a step that counts bytes also how many are done of how many, how many a second, and the seconds that are left.
    """

    stage: str | None
    percent: float | None
    bytes_processed: int | None = None
    bytes_total: int | None = None
    rate_bps: float | None = None
    eta_s: float | None = None


class Cancellable(Protocol):
    """Who does jobs of some kinds and can break them off."""

    def can_cancel(self, job: Job) -> bool:
        """Tell whether this one is theirs."""
        ...

    async def cancel(self, job: Job) -> None:
        """End it, and return when nothing is left of it; one that has ended is fine."""
        ...


class Jobs:
    """The jobs of all users."""

    def __init__(
        self, store: JobStore, sandboxes: Sandboxes, reporter: Reporter, *cancellable: Cancellable, board: Board
    ) -> None:
        self._board = board
        self._store = store
        self._sandboxes = sandboxes
        self._reporter = reporter
        self._cancellable = cancellable

    async def list(self, user: User, *, states: Collection[JobState], page: PageRequest) -> Page[Job]:
        """Give a page of the user's jobs (everybody's for an administrator), oldest first."""
        return await self._store.list(owner=None if user.admin else user.id, states=states, page=page)

    async def get(self, user: User, job_id: str) -> Job:
        """Give a job of the user's, and hear how far it is where another daemon works on it. Raises NotFound."""
        job = await self._store.get(job_id)
        if not user.admin and job.owner != user.id:
            raise not_found("job", job_id)
        if job.any_host:
            await self._board.ask(job)
        return job

    def progress(self, job: Job) -> Progress:
        """Tell how far a job is."""
        if job.state is JobState.COMPLETED:
            return Progress(stage=job.step, percent=100.0)
        at = self._board.progress(job.id) or self._reporter.progress(job.id)
        if at is None:
            return Progress(stage=job.step, percent=None)
        if not at.total or at.done is None:
            return Progress(stage=at.stage, percent=at.percent)
        return Progress(
            stage=at.stage,
            percent=at.percent,
            bytes_processed=at.done,
            bytes_total=at.total,
            rate_bps=at.rate_bps,
            eta_s=at.eta_s,
        )

    async def cancel(self, user: User, job_id: str) -> Job:
        """End a job that is under way, undo what it did, and give it as it is then.

        Raises:
            NotFound: the user has no such job.
            InvalidInput: it has ended already.
            Conflict: it is of a kind that cannot be broken off.
        """
        job = await self.get(user, job_id)
        if not job.state.is_final:
            whose = next((each for each in self._cancellable if each.can_cancel(job)), None)
            if whose is not None:
                log.info("job is cancelled", job=job.id, subject=job.subject, user=user.name)
                await whose.cancel(job)
                job = await self._store.get(job_id)
                if job.state is JobState.CANCELLED:
                    return job
                raise _ended(job)
            if job.kind != CREATE_KIND:
                raise Conflict(
                    "this job cannot be cancelled",
                    details=f"{job.id} is of kind {job.kind}, which ends by itself and soon",
                    resolution="wait for its end",
                )
            log.info("job is cancelled", job=job.id, sandbox=job.subject, user=user.name)
            await self._sandboxes.creation.cancel(job.subject)
            job = await self._store.get(job_id)
            if job.state is JobState.CANCELLED:
                return job
        raise _ended(job)


def _ended(job: Job) -> InvalidInput:
    return InvalidInput(
        "the job has ended already",
        details=f"{job.id} is {job.state}",
        resolution="there is nothing to cancel",
        field="job",
    )
