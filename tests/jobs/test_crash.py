"""A daemon killed in any step of a job leaves nothing behind once a fresh one has looked after its jobs.

Real processes, a real SIGKILL, a real database of each kind.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.model import Job, JobState, StepPhase
from hearth.store.sql import open_store

DAEMON = [sys.executable, str(Path(__file__).with_name("doomed_daemon.py"))]
TIMEOUT_S = 60.0


def run_until_killed(url: str, directory: Path, step: str, moment: str) -> str:
    """Start a daemon, kill it at the given place, give the job's id."""
    argv = [*DAEMON, "run", url, str(directory), step, moment]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        job_id = daemon.stdout.readline().strip()
        reached = "reached\n" in iter(daemon.stdout.readline, "")  # past what it logs
        daemon.kill()
    assert reached
    return job_id


async def read_job(url: str, job_id: str) -> Job:
    store = await open_store(url)
    try:
        return await store.jobs.get(job_id)
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("step", "moment", "left"),
    [
        ("first", "before", set()),
        ("first", "after", {"first"}),
        ("second", "before", {"first"}),
        ("second", "after", {"first", "second"}),
        ("third", "before", {"first", "second"}),
        ("third", "after", {"first", "second", "third"}),
        ("second", "undo", {"first", "second"}),
        ("first", "undo", {"first"}),
    ],
)
def test_a_killed_daemons_work_is_undone_by_the_next(
    migrated_url: str, tmp_path: Path, step: str, moment: str, left: set[str]
) -> None:
    url, directory = migrated_url, tmp_path / "world"
    directory.mkdir()
    job_id = run_until_killed(url, directory, step, moment)
    assert {path.name for path in directory.iterdir()} == left
    crashed = asyncio.run(read_job(url, job_id))
    assert crashed.state == (JobState.UNDOING if moment == "undo" else JobState.RUNNING)
    assert crashed.step == ("third" if moment == "undo" else step)
    subprocess.run([*DAEMON, "unwind", url, str(directory)], timeout=TIMEOUT_S, check=True)
    assert list(directory.iterdir()) == []
    job = asyncio.run(read_job(url, job_id))
    assert (job.state, job.attempt, job.lease_owner) == (JobState.FAILED, 2, None)
    undone = [record.name for record in job.steps if record.phase == StepPhase.UNDO]
    names = ["third", "second", "first"]
    assert undone == names[names.index(crashed.step) :]
    assert job.error is not None
    assert ("last step fails" if moment == "undo" else "daemon ended") in job.error.brief
