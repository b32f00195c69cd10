"""What is remembered of jobs and their leases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from hearth.model import Job, JobError, JobState, StepRecord
from hearth.store.page import FIRST_PAGE, Page, PageRequest

JOBS_KEPT_FOR = timedelta(days=30)
JOBS_KEPT_PER_SUBJECT = 50
UNENDED = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNDOING})
"""States of jobs that have not come to an end."""


class JobStore(Protocol):
    """Jobs and their leases: those of this host, and those that are any host's.

    Leases are reckoned by the store's clock. Of jobs that have ended the last
    JOBS_KEPT_PER_SUBJECT of each kind and subject are kept, for JOBS_KEPT_FOR.
    """

    async def create(self, job: Job, *, most: int | None = None) -> None:
        """Store a job; of several that want to hold the same at once one is stored.

        Args:
            most: jobs of its kind that may not have ended, this one included and whichever daemons stored them.

        Raises:
            LineFull: there are so many already.
            JobUnderWay: one that has not ended holds what this one would; carries it.
            Conflict: the id is taken.
        """
        ...

    async def get(self, job_id: str) -> Job: ...

    async def list(
        self,
        *,
        subject: str | None = None,
        owner: str | None = None,
        states: Collection[JobState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Job]: ...

    async def claimable(self, *, states: Collection[JobState], limit: int = 100) -> Sequence[Job]:
        """Jobs in ``states`` that nobody holds a valid lease on, oldest first; claiming one may still fail."""
        ...

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
        """Take the lease for ``lease_s`` seconds, count an attempt and set the state, all in one compare-and-set.

        Args:
            displacing: a lease owner known to be dead (the data directory's lock proves it): its lease counts as free.

        Raises:
            NotFound: no such job.
            LeaseLost: another owner's lease has not run out.
            Conflict: the state is not one of ``expected``.
        """
        ...

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
        """Claim the oldest job of ``kinds`` in one of ``expected`` that nobody holds; None when there is none.

        Those whose ids are ``spared`` are left to whoever works on them.

        Of several who ask at once each gets another, and none waits for the others.
        """
        ...

    async def renew(self, job_id: str, owner: str, *, lease_s: float) -> None:
        """Extend the lease (heartbeat). Raises LeaseLost."""
        ...

    async def record(self, job_id: str, owner: str, *, step: str, steps: Sequence[StepRecord]) -> None:
        """Note the step about to begin and what the earlier ones took. Raises LeaseLost."""
        ...

    async def note(self, job_id: str, owner: str, result: Mapping[str, object]) -> None:
        """Keep what is worth telling of what came of a job. Raises LeaseLost."""
        ...

    async def ask_cancel(self, job_id: str) -> Job:
        """Write down that a job is to end, for whoever holds it or takes it up; asking again changes nothing.

        Raises:
            NotFound: no such job.
            Conflict: it has ended.
        """
        ...

    async def cancels_asked(self, owner: str) -> Sequence[str]:
        """Give the ids of the jobs that ``owner`` works on and that are to end."""
        ...

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
        """Compare-and-set of the state, by the lease's holder (``owner``) or on a job without a lease (None).

        ``error`` and ``steps`` replace the stored ones unless they are None. A final state ends the lease and stamps
        ``finished_at``.

        Raises:
            NotFound: no such job.
            LeaseLost: ``owner`` does not hold the lease.
            Conflict: the state is not one of ``expected``.
        """
        ...
