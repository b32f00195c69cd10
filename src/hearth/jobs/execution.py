"""One claimed job being done or undone. A step is stored before it is done, which makes a crash survivable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import structlog

from hearth.errors import HearthError, TimedOut, Unavailable
from hearth.host.clock import Clock
from hearth.jobs import measuring
from hearth.jobs.events import Moment, Observer, StepEvent
from hearth.jobs.failure import INTERRUPTED, UndoFailed, describe, final_state, step_error
from hearth.jobs.patience import patiently
from hearth.jobs.plan import Plan, Step
from hearth.metrics.tracing import span
from hearth.model import Job, JobError, JobState, StepPhase, StepRecord
from hearth.store.base import JobStore, LeaseLost

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Execution(Generic[T]):
    """Does or undoes the steps of a job whose lease ``owner`` holds. Used once, by the runner."""

    def __init__(
        self,
        job: Job,
        plan: Plan[T],
        *,
        owner: str,
        jobs: JobStore,
        clock: Clock,
        observer: Observer,
        is_patient: bool = False,
    ) -> None:
        self._job = job
        self._plan = plan
        self._owner = owner
        self._jobs = jobs
        self._clock = clock
        self._observer = observer
        self._is_patient = is_patient
        self._records = list(job.steps)
        self._abandoned = False
        self._interrupted = False
        self._interruptible = False

    def interrupt(self, task: asyncio.Task[Job]) -> None:
        """Break ``forward`` off, which runs in ``task``, while steps are being done; undoing is never broken off."""
        self._interrupted = True
        if self._interruptible:
            task.cancel()

    def abandon(self, task: asyncio.Task[Job]) -> None:
        """Stop at once and undo nothing: the lease is lost, row and world are somebody else's now."""
        self._abandoned = True
        task.cancel()

    async def forward(self) -> Job:
        """Do all steps; when one fails or the task is cancelled, undo what was begun and raise the first error.

        Raises:
            LeaseLost: somebody else has the job; nothing was undone.
        """
        try:
            value = self._plan.decode(self._job.input)
        except HearthError as error:
            await self._finish(JobState.FAILED, describe(error))
            raise
        begun: str | None = None
        try:
            self._interruptible = True
            for step in self._plan.steps:
                if self._interrupted:
                    raise asyncio.CancelledError
                begun = step.name
                # Stored first: what is not known to have begun would never be undone after a crash.
                await self._record(step)
                with self._measured(step, StepPhase.DO):
                    await step.do(value)
            self._interruptible = False
            return await self._finish(JobState.COMPLETED, None)
        except (Exception, asyncio.CancelledError) as error:
            self._interruptible = False
            if self._abandoned or isinstance(error, LeaseLost):
                raise
            await self._give_up(value, begun, error)
            raise

    async def backward(self) -> Job:
        """Undo what an earlier, dead runner had begun, from the stored input alone.

        Raises:
            UndoFailed: some steps resisted; the job stays in UNDOING and may be claimed again once its lease ran out.
        """
        value = self._plan.decode(self._job.input)
        error = self._job.error or INTERRUPTED
        failed = await self._undo(value, self._job.step)
        if failed:
            await self._jobs.transition(
                self._job.id, {JobState.UNDOING}, JobState.UNDOING, owner=self._owner, error=error, steps=self._records
            )
            raise UndoFailed("some steps could not be undone", details=f"{self._job.id}: {', '.join(failed)}")
        return await self._finish(final_state(error), error)

    async def _give_up(self, value: T, begun: str | None, error: BaseException) -> None:
        """Store why, undo, store the end. The caller raises ``error``, so what goes wrong here is logged."""
        reason = describe(error)
        log.info("job gives up", job=self._job.id, kind=self._job.kind, step=begun, error=step_error(error))
        if not await self._stored(JobState.UNDOING, reason):
            return
        if await self._undo(value, begun):
            await self._stored(JobState.UNDOING, reason)
        else:
            await self._stored(final_state(reason), reason)

    async def _stored(self, new: JobState, reason: JobError) -> bool:
        """Store a state on the way out; False when the job is somebody else's by now."""
        try:
            await self._finish(new, reason)
        except LeaseLost as error:
            log.warning("job was taken over", job=self._job.id, error=str(error))
            return False
        except Exception as error:  # noqa: BLE001  the disk may be full of what the undo is about to remove: go on
            _log_failure("job's end could not be stored", error, job=self._job.id, state=new)
        return True

    async def _undo(self, value: T, begun: str | None) -> list[str]:
        """Undo in reverse order up to and including ``begun``; give the names of the steps that resisted."""
        failed: list[str] = []
        for step in self._plan.begun(begun):
            try:
                with self._measured(step, StepPhase.UNDO):
                    await _bounded(step, value)
            except (Exception, asyncio.CancelledError) as error:
                if self._abandoned:
                    raise
                failed.append(step.name)
                _log_failure("undo failed", error, job=self._job.id, step=step.name)
        return failed

    async def _record(self, step: Step[T]) -> None:
        async def record() -> None:
            await self._jobs.record(self._job.id, self._owner, step=step.name, steps=self._records)

        await (patiently(record, self._clock, what=self._job.id) if self._is_patient else record())

    async def _finish(self, new: JobState, error: JobError | None) -> Job:
        expected = {JobState.RUNNING, JobState.UNDOING} if error is not None else {JobState.RUNNING}
        was_lost = False

        async def finish() -> Job:
            nonlocal was_lost
            try:
                return await self._jobs.transition(
                    self._job.id, expected, new, owner=self._owner, error=error, steps=self._records
                )
            except Unavailable:
                was_lost = True  # it may be stored all the same
                raise
            except LeaseLost:
                job = await self._jobs.get(self._job.id)
                if was_lost and (job.state, job.attempt) == (new, self._job.attempt):
                    return job
                raise

        job = await (patiently(finish, self._clock, what=self._job.id) if self._is_patient else finish())
        return measuring.ended(job)

    @contextmanager
    def _measured(self, step: Step[T], phase: StepPhase) -> Iterator[None]:
        """Time what runs inside, keep it as a record and tell the observer."""
        started_at, started_s = self._clock.now(), self._clock.monotonic()
        self._tell(step, phase, Moment.STARTED)
        failure: str | None = None
        try:
            with span(f"step {step.name}", phase=phase.value, kind=self._job.kind, subject=self._job.subject):
                yield
        except (Exception, asyncio.CancelledError) as error:
            failure = step_error(error)
            raise
        finally:
            duration_s = self._clock.monotonic() - started_s
            self._records.append(
                StepRecord(name=step.name, phase=phase, started_at=started_at, duration_s=duration_s, error=failure)
            )
            self._tell(step, phase, Moment.FAILED if failure else Moment.DONE, duration_s, failure)

    def _tell(
        self,
        step: Step[T],
        phase: StepPhase,
        moment: Moment,
        duration_s: float | None = None,
        error: str | None = None,
    ) -> None:
        event = StepEvent(
            job_id=self._job.id,
            kind=self._job.kind,
            subject=self._job.subject,
            step=step.name,
            number=self._plan.steps.index(step) + 1,
            count=len(self._plan.steps),
            phase=phase,
            moment=moment,
            duration_s=duration_s,
            error=error,
        )
        measuring.count_step(event)
        try:
            self._observer(event)
        except Exception:
            log.exception("an observer failed", job=self._job.id, step=step.name)


def _log_failure(event: str, error: BaseException, **context: str) -> None:
    """Log an error of ours in its own words, anything else with its traceback."""
    if isinstance(error, HearthError):
        log.error(event, error=str(error), **context)
    else:
        log.error(event, exc_info=error, **context)


async def _bounded(step: Step[T], value: T) -> None:
    try:
        async with asyncio.timeout(step.undo_timeout_s) as limit:
            await step.undo(value)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimedOut("the undo took too long", details=f"{step.name}: {step.undo_timeout_s:g} s") from error
