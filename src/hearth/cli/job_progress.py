"""How far a job is: a line that is drawn anew in its place at a terminal, nothing anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Protocol

from hearth.api.event_schemas import JobProgress, JobView
from hearth.cli.progress import ERASE, fitted
from hearth.cli.show import duration, size
from hearth.errors import InvalidInput

WIDTH = 24
"""Of the bar, in characters."""


class Following(Protocol):
    """A job that tells how far it is."""

    job: JobView

    def __iter__(self) -> Iterator[JobProgress]: ...

    def cancel(self) -> None:
        """Break it off."""
        ...


@contextlib.contextmanager
def ordering() -> Iterator[None]:
    """Whoever interrupts an order before its answer came is told that the job may be there all the same."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("hearth: interrupted before the answer came: 'hearth jobs' tells whether it was begun\n")
        raise


def follow(job: Following) -> None:
    """Draw how far a job is until its end; an interruption breaks it off, and says what came of that."""
    try:
        show_progress(job)
    except KeyboardInterrupt:
        sys.stderr.write(f"hearth: {job.job.job_id} is being cancelled\n")
        sys.stderr.flush()
        try:
            job.cancel()
        except InvalidInput:  # it ended in this moment
            sys.stderr.write(f"  it had ended: 'hearth jobs inspect {job.job.job_id}' tells how\n")
        raise


def show_progress(steps: Iterable[JobProgress]) -> None:
    """Draw each step over the one before, on stderr, until there are no more."""
    is_shown = sys.stderr.isatty()
    try:
        for progress in steps:
            if is_shown:
                sys.stderr.write(ERASE + fitted(line_of(progress)))
                sys.stderr.flush()
    finally:
        if is_shown:
            sys.stderr.write(ERASE)
            sys.stderr.flush()


def line_of(progress: JobProgress) -> str:
    """Say how far it is, in one line: ``downloading  37 % ████░░░░  12.0 MiB of 40.0 MiB``."""
    percent = progress.percent or 0.0
    full = round(WIDTH * percent / 100)
    line = f"{progress.stage or 'waiting':<11} {percent:3.0f} % {'█' * full}{'░' * (WIDTH - full)}"
    if progress.bytes_total:
        line += f"  {size(progress.bytes_processed or 0)} of {size(progress.bytes_total)}"
    if progress.rate_bps:
        line += f"  {size(round(progress.rate_bps))}/s"
    if progress.eta_s is not None and progress.eta_s >= 1:
        line += f"  {duration(progress.eta_s)} left"
    return line
