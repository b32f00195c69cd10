"""What jobs do, as figures: an observer of the runner's, and the ends of jobs."""

from __future__ import annotations

from hearth.jobs.events import Moment, StepEvent
from hearth.metrics.instruments import JOB_SECONDS, JOB_STEP_FAILURES, JOB_STEPS, JOB_WAIT_SECONDS, JOBS_ENDED
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
        if job.started_at is not None and job.finished_at is not None:
            took_s = (job.finished_at - job.started_at).total_seconds()
            JOB_SECONDS.labels(job.kind, job.state.value).observe(max(0.0, took_s))
            JOB_WAIT_SECONDS.labels(job.kind).observe(max(0.0, (job.started_at - job.created_at).total_seconds()))
    return job
