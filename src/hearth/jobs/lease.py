"""Keeps a job's lease alive while somebody works on it, and tells when it is lost."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from hearth.errors import HearthError, NotFound
from hearth.host.clock import Clock
from hearth.store.base import JobStore, LeaseLost

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class LeaseTerms:
    """How long a lease lasts and how often it is renewed, in seconds.

    Three heartbeats fit into a lease: two may be lost (a busy disk, a pause) before somebody else takes over.
    """

    lease_s: float = 30.0
    heartbeat_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s < self.lease_s:
            raise ValueError(f"a heartbeat of {self.heartbeat_s} s does not keep a lease of {self.lease_s} s")


async def keep_alive(jobs: JobStore, job_id: str, owner: str, *, terms: LeaseTerms, clock: Clock) -> LeaseLost:
    """Renew a lease that was just taken until it is lost, and return why; run it as a task and cancel it at the end.

    It is lost when somebody else took it, and also when it could not be renewed before it ran out: from then on
    somebody else may take it at any moment.
    """
    valid_until_s = clock.monotonic() + terms.lease_s
    while True:
        await clock.sleep(terms.heartbeat_s)
        asked_s = clock.monotonic()
        try:
            await jobs.renew(job_id, owner, lease_s=terms.lease_s)
        except LeaseLost as error:
            return error
        except NotFound as error:
            return _lost(job_id, error)
        except HearthError as error:
            log.warning("heartbeat failed", job=job_id, owner=owner, error=str(error))
            if clock.monotonic() >= valid_until_s:
                return _lost(job_id, error)
        else:
            valid_until_s = asked_s + terms.lease_s


def _lost(job_id: str, error: HearthError) -> LeaseLost:
    return LeaseLost(
        "the job's lease could not be renewed",
        details=f"{job_id}: {error}",
        resolution="whoever takes the job over undoes it",
    )
