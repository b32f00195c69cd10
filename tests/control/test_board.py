"""How far jobs are, as daemons tell each other by notes."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from hearth.control.board import KEPT_S, Board
from hearth.control.events import Events
from hearth.control.reporting import Reporter
from hearth.host.clock import ManualClock
from hearth.model import Job, JobState
from hearth.store.notes import MemoryNotes

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
JOB = Job(id="job-1", kind="volume.provision", subject="vm", any_host=True, state=JobState.RUNNING, created_at=NOON)
WAIT_S = 30.0


async def test_a_daemon_tells_of_its_jobs_and_another_hears_it_until_it_is_silent() -> None:
    clock = ManualClock()
    notes, reporter = MemoryNotes(clock), Reporter(Events(clock, run="here"))
    here = Board(notes, reporter, lambda: ["job-1"])
    there = Board(notes, Reporter(Events(clock, run="there")), list)
    reporter.work("job-1", "downloading", 12.5, 1, 8)
    telling = asyncio.create_task(here.run())
    try:
        async with asyncio.timeout(WAIT_S):
            while there.progress("job-1") is None:
                await there.ask(JOB)
                await asyncio.sleep(0.01)
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
    heard = there.progress("job-1")
    assert heard is not None and (heard.stage, heard.percent, heard.done, heard.total) == ("downloading", 12.5, 1, 8)
    await here.ask(JOB)
    assert here.progress("job-1") is None, "it knows better itself"
    clock.advance(KEPT_S)
    await there.ask(JOB)
    assert there.progress("job-1") is None


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        '{"stage":"x"}',
        '{"stage":"\\u001b[2J","percent":1}',
        '{"stage":"creating","percent":101}',
        '{"stage":"creating","percent":1,"done":-1}',
        '{"stage":"creating","percent":1,"rate_bps":"x"}',
    ],
)
async def test_a_note_that_makes_no_sense_is_none(note: str) -> None:
    clock = ManualClock()
    notes = MemoryNotes(clock)
    board = Board(notes, Reporter(Events(clock, run="there")), list)
    await notes.put("progress:job-1", note, kept_s=600)
    await board.ask(JOB)
    assert board.progress("job-1") is None


async def test_without_notes_nobody_tells_anything() -> None:
    board = Board(None, Reporter(Events(ManualClock(), run="here")), list)
    await board.run()
    await board.ask(JOB)
    assert board.progress("job-1") is None
