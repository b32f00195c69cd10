"""How far jobs are, told by the daemon that works on them to those of whom others ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Annotated

import msgspec

from hearth.control.reporting import Progressed, Reporter
from hearth.model import Job, JobState
from hearth.store.notes import Notes

TELL_EVERY_S = 0.5
KEPT_S = 15.0
"""A daemon that is silent for longer has nothing to tell."""
RETELL_S = 5.0
JOBS_MAX = 256


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """It ends in somebody's terminal: words alone."""

    stage: Annotated[str, msgspec.Meta(pattern="^[a-z_.-]{1,64}$")]
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)]
    done: Annotated[int, msgspec.Meta(ge=0)] | None = None
    total: Annotated[int, msgspec.Meta(ge=0)] | None = None
    rate_bps: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Board:
    """Progress of one daemon's jobs for the others, and of the others' for this one.

    Args:
        working: gives the ids of the jobs that are done here.
    """

    def __init__(self, notes: Notes | None, reporter: Reporter, working: Callable[[], Collection[str]]) -> None:
        self._notes = notes
        self._reporter = reporter
        self._working = working
        self._heard: OrderedDict[str, Progressed] = OrderedDict()

    def progress(self, job_id: str) -> Progressed | None:
        """Tell how far another daemon said that a job is."""
        return self._heard.get(job_id)

    async def ask(self, job: Job) -> None:
        """Hear how far a job is that another daemon works on."""
        if self._notes is None or job.state is not JobState.RUNNING or job.id in self._working():
            self._heard.pop(job.id, None)
            return
        told = _read(await self._notes.get(_key(job)))
        if told is None:
            self._heard.pop(job.id, None)
            return
        self._heard[job.id] = Progressed(
            stage=told.stage, percent=told.percent, done=told.done, total=told.total, rate_bps=told.rate_bps
        )
        self._heard.move_to_end(job.id)
        if len(self._heard) > JOBS_MAX:
            self._heard.popitem(last=False)

    async def run(self) -> None:
        """Tell the others, until cancelled."""
        if self._notes is None:
            return
        told: dict[str, tuple[Progressed, float]] = {}
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            working = set(self._working())
            told = {job_id: each for job_id, each in told.items() if job_id in working}
            for job_id in working:
                at = self._reporter.progress(job_id)
                known, at_s = told.get(job_id, (None, 0.0))
                if at is not None and (at != known or loop.time() - at_s >= RETELL_S):
                    told[job_id] = (at, loop.time())
                    await self._notes.put(f"progress:{job_id}", _write(at), kept_s=KEPT_S)


def _key(job: Job) -> str:
    return f"progress:{job.id}"


def _write(at: Progressed) -> str:
    told = _Told(stage=at.stage, percent=at.percent, done=at.done, total=at.total, rate_bps=at.rate_bps)
    return msgspec.json.encode(told).decode()


def _read(text: str | None) -> _Told | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=_Told)
    except msgspec.DecodeError:
        return None
