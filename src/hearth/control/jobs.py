"""Use cases of jobs: what the daemon does for somebody, how far it has come, and an end to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import structlog

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
    """Where a job is: the step it is at, and how much is done, in percent, where that is known."""

    stage: str | None
    percent: float | None


class Jobs:
    """The jobs of all users."""

    def __init__(self, store: JobStore, sandboxes: Sandboxes, reporter: Reporter) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._reporter = reporter

    async def list(self, user: User, *, states: Collection[JobState], page: PageRequest) -> Page[Job]:
        """Give a page of the user's jobs (everybody's for an administrator), oldest first."""
        return await self._store.list(owner=None if user.admin else user.id, states=states, page=page)

    async def get(self, user: User, job_id: str) -> Job:
        """Give a job of the user's. Raises NotFound."""
        job = await self._store.get(job_id)
        if not user.admin and job.owner != user.id:
            raise not_found("job", job_id)
        return job

    def progress(self, job: Job) -> Progress:
        """Tell how far a job is."""
        if job.state is JobState.COMPLETED:
            return Progress(stage=job.step, percent=100.0)
        stage, percent = self._reporter.progress(job.id) or (job.step, None)
        return Progress(stage=stage, percent=percent)

    async def cancel(self, user: User, job_id: str) -> Job:
        """End a job that is under way, undo what it did, and give it as it is then.

        Raises:
            NotFound: the user has no such job.
            InvalidInput: it has ended already.
            Conflict: it is of a kind that cannot be broken off.
        """
        job = await self.get(user, job_id)
        if not job.state.is_final:
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
        raise InvalidInput(
            "the job has ended already",
            details=f"{job.id} is {job.state}",
            resolution="there is nothing to cancel",
            field="job",
        )
