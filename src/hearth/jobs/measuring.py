"""What jobs do, as figures: an observer of the runner's, and the ends of jobs."""

from __future__ import annotations

from hearth.jobs.events import Moment, StepEvent
from hearth.metrics.instruments import JOB_STEP_FAILURES, JOB_STEPS, JOBS_ENDED
from hearth.model import Job, JobState

ENDS = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


def count_step(event: StepEvent) -> None:
    """Take a step's time, and its failure."""
    if event.duration_s is None:
        return
    labels = (event.kind, event.step, event.phase.value)
    JOB_STEPS.labels(*labels).observe(event.duration_s)
    if event.moment is Moment.FAILED:
        JOB_STEP_FAILURES.labels(*labels).inc()


def ended(job: Job) -> Job:
    """Count a job that has come to its end, and give it back; any other is just given back."""
    if job.state in ENDS:
        JOBS_ENDED.labels(job.kind, job.state.value).inc()
    return job
