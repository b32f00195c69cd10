"""A daemon for test_crash: runs or unwinds a job over a real database, and stops where it is told, to be killed there.

``run URL DIRECTORY STEP MOMENT`` prints the job's id, and ``reached`` once it hangs in STEP: ``before`` or ``after``
the step's work, or in its ``undo``. ``unwind URL DIRECTORY`` undoes all it finds.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import EngineFailed
from hearth.host.clock import SystemClock
from hearth.jobs.plan import Plan, Step
from hearth.jobs.runner import UNFINISHED, Runner
from hearth.store.sql import open_store

NAMES = ("first", "second", "third")


@dataclass(frozen=True, kw_only=True)
class Input:
    directory: str


def step(name: str, doomed: str, moment: str) -> Step[Input]:
    async def hang(here: str) -> None:
        if (name, here) == (doomed, moment):
            print("reached", flush=True)
            await asyncio.Event().wait()

    async def do(value: Input) -> None:
        await hang("before")
        await asyncio.to_thread((Path(value.directory) / name).write_text, "made")
        await hang("after")
        if (name, moment) == (NAMES[-1], "undo"):
            raise EngineFailed("the last step fails so that all are undone")

    async def undo(value: Input) -> None:
        await hang("undo")
        await asyncio.to_thread((Path(value.directory) / name).unlink, missing_ok=True)

    return Step(name=name, do=do, undo=undo)


def plan(doomed: str, moment: str) -> Plan[Input]:
    return Plan(kind="doomed", input_type=Input, steps=[step(name, doomed, moment) for name in NAMES])


async def main(mode: str, url: str, directory: str, doomed: str = "", moment: str = "") -> None:
    store = await open_store(url)
    runner = Runner(store.jobs, owner=f"{mode} daemon", clock=SystemClock())
    if mode == "run":
        job = await runner.submit(plan(doomed, moment), "sb-1", Input(directory=directory))
        print(job.id, flush=True)
        await runner.run(job.id, plan(doomed, moment))
    else:
        for found in (await store.jobs.list(states=UNFINISHED)).items:
            await runner.unwind(found.id, plan("", ""), displacing=found.lease_owner)
    await store.close()


asyncio.run(main(*sys.argv[1:]))
