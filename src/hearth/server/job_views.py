"""Jobs as the API tells of them."""

from __future__ import annotations

from collections.abc import Mapping

from hearth.api.event_schemas import JobProblem, JobProgress, JobStatus, JobView
from hearth.api.schemas import StepTiming
from hearth.control.daemon import Daemon
from hearth.model import Job, JobError, JobState

STATUS: dict[JobState, JobStatus] = {
    JobState.PENDING: "pending",
    JobState.RUNNING: "running",
    JobState.UNDOING: "running",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


def job_view(daemon: Daemon, job: Job, *, queue_position: int | None = None) -> JobView:
    """Give a job, and how far it is."""
    progress = daemon.jobs.progress(job)
    error = job.error
    return JobView(
        job_id=job.id,
        kind=job.kind,
        subject=job.subject,
        status=STATUS[job.state],
        progress=JobProgress(
            stage=progress.stage,
            percent=progress.percent,
            bytes_processed=progress.bytes_processed,
            bytes_total=progress.bytes_total,
            rate_bps=progress.rate_bps,
            eta_s=progress.eta_s,
        ),
        attempts=job.attempt,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        error=None if error is None else _problem(error),
        steps=[StepTiming(name=each.name, duration_ms=round(each.duration_s * 1000, 3)) for each in job.steps],
        correlation_id=_text(job.input, "correlation_id"),
        queue_position=queue_position,
        cache_hit=None if job.result is None else job.result.get("cache_hit") is True,
        image_path=_text(job.result, "image_path"),
        volume_path=_text(job.result, "volume_path"),
        host=_text(job.result, "host"),
        grown=_text(job.result, "grown"),
    )


def _problem(error: JobError) -> JobProblem:
    return JobProblem(
        error=error.brief,
        code=error.code.value,
        details=error.details,
        resolution=error.resolution,
        field=error.field,
    )


def _text(said: Mapping[str, object] | None, name: str) -> str | None:
    value = None if said is None else said.get(name)
    return value if isinstance(value, str) else None
