"""Clones made ahead of need: VMMs that wait for their state, and machines restored, exercised and stopped.

A claimed one only has to run. They are made off the path, one at a time, for the shapes asked for lately. Nothing about
them is stored: what a daemon leaves behind the next one sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import structlog

from hearth.control.rehearsal import rehearse, rehearse_stop
from hearth.control.templates import Shape, Templates
from hearth.engine.base import Machine, MachineSpec, WaitingMachine
from hearth.errors import EngineFailed, HearthError
from hearth.guest.client import Guest
from hearth.host.identity import new_sandbox_id
from hearth.jobs.bringup import Workshop, sleeping
from hearth.jobs.reserve import Reserve

log = structlog.get_logger(__name__)

WANTED_FOR_S = 3600.0
"""A shape nobody asked for in so long is not kept ready any more."""
SHAPES_MAX = 4
LIVES = 3
"""Rehearsed by a ready clone: after so many no code is left that a first use would have to have translated."""
SETTLE_S = 0.2
"""From the end of the rehearsal to the pause: the guest closes its connections, which it need not do when claimed."""
QUIET_S = 0.5
"""Between a claim and the making of the next: whoever claimed wants the CPUs now."""
AGAIN_AFTER_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""From the first failure to the next try, and so on; the last for all that follow."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A clone of a template that belongs to the caller now; the new sandbox takes its id."""

    sandbox_id: str
    template_id: str
    reserve: Reserve

    @property
    def machine(self) -> Machine | WaitingMachine:
        """Give what is made ahead of it."""
        machine = self.reserve.ready or self.reserve.waiting
        if machine is None:
            raise AssertionError("a reserve is one of both")
        return machine


@dataclass(kw_only=True)
class _Shelf:
    """What is kept of one shape."""

    shape: Shape
    template_id: str
    wanted_at_s: float
    ready: deque[Claimed] = field(default_factory=deque)
    waiting: deque[Claimed] = field(default_factory=deque)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)


class Pool:
    """The clones kept ready.

    Args:
        ready: how many exercised, stopped clones to keep of each shape; each takes some 40 MiB.
        waiting: how many VMMs that wait for their state; each takes some 16 MiB.
    """

    def __init__(self, workshop: Workshop, templates: Templates, *, ready: int, waiting: int) -> None:
        self.hits: Counter[str] = Counter()
        self._workshop = workshop
        self._templates = templates
        self._ready = ready
        self._waiting = waiting
        self._shelves: dict[str, _Shelf] = {}
        self._changed = asyncio.Event()
        self._watchers: dict[str, asyncio.Task[None]] = {}
        """By sandbox id: each waits for the end of a clone that is kept."""

    def claim(self, shape: Shape, template_id: str) -> Claimed | None:
        """Take a clone of a template, the best there is; None when there is none. More will be made either way."""
        shelf = self._shelves.get(template_id)
        if shelf is None:
            shelf = self._shelves[template_id] = _Shelf(shape=shape, template_id=template_id, wanted_at_s=0.0)
        shelf.wanted_at_s = time.monotonic()
        self._changed.set()
        for name, kept in (("ready", shelf.ready), ("waiting", shelf.waiting)):
            if kept:
                self.hits[name] += 1
                claimed = kept.popleft()
                self._watchers.pop(claimed.sandbox_id).cancel()
                return claimed
        self.hits["miss"] += 1
        return None

    def templates(self) -> set[str]:
        """Tell the ids of the templates that clones are, or will be, kept of: these must not go."""
        return set(self._shelves)

    async def forsake(self, template_id: str) -> None:
        """Keep nothing more of a template until it is asked for again; returns once nothing is kept."""
        if (shelf := self.give_up(template_id)) is not None:
            await shelf.dropped.wait()

    def give_up(self, template_id: str) -> _Shelf | None:
        """Keep nothing more of a template, soon; gives what is to be dropped."""
        if (shelf := self._shelves.get(template_id)) is not None:
            shelf.wanted_at_s = -math.inf
            self._changed.set()
        return shelf

    def sizes(self) -> dict[str, int]:
        """Count what is kept, for metrics."""
        shelves = self._shelves.values()
        return {
            "ready": sum(len(shelf.ready) for shelf in shelves),
            "waiting": sum(len(shelf.waiting) for shelf in shelves),
        }

    async def run(self) -> None:
        """Keep the shelves full until cancelled; at the end nothing is kept."""
        failures = 0
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_AFTER_S[failures - 1] if failures else None):
                        await self._changed.wait()
                self._changed.clear()
                await asyncio.sleep(QUIET_S)
                await self._tidy()
                filled = [await self._fill(shelf) for shelf in list(self._shelves.values())]
                failures = 0 if all(filled) else min(failures + 1, len(AGAIN_AFTER_S))
        finally:
            await self._drop(list(self._shelves.values()))
            await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    async def _fill(self, shelf: _Shelf) -> bool:
        """Make what is missing; False where that failed, and is to be tried again."""
        while len(shelf.ready) < self._ready or len(shelf.waiting) < self._waiting:
            exercised = len(shelf.ready) < self._ready
            try:
                made = await self._make(shelf, exercised=exercised)
            except Exception as error:  # noqa: BLE001  one that cannot be made must not end the making of all others
                log.warning("nothing made ahead", template=shelf.template_id, error=repr(error))
                return False
            kept = shelf.ready if exercised else shelf.waiting
            kept.append(made)
            name = f"watch clone {made.sandbox_id}"
            self._watchers[made.sandbox_id] = asyncio.create_task(self._watch(kept, made), name=name)
        return True

    async def _watch(self, kept: deque[Claimed], clone: Claimed) -> None:
        """Nobody is given a clone that has died."""
        end = await clone.machine.wait()
        kept.remove(clone)
        log.warning("clone made ahead ended", sandbox=clone.sandbox_id, how=end.how)
        try:
            await self.discard(clone)
        except (HearthError, OSError) as error:
            log.error("clone made ahead not removed", sandbox=clone.sandbox_id, error=str(error))
        self._watchers.pop(clone.sandbox_id, None)
        self._changed.set()

    async def _make(self, shelf: _Shelf, *, exercised: bool) -> Claimed:
        sandbox_id = new_sandbox_id()
        origin = self._workshop.data.snapshot(shelf.template_id)
        spec = MachineSpec(
            place=self._workshop.place(sandbox_id),
            cpus=shelf.shape.cpus,
            memory_mib=shelf.shape.memory_mib,
            boot=shelf.shape.boot,
            origin=origin,
        )
        waiting: WaitingMachine | None = None
        # Whoever asked first is just having it made.
        if await self._templates.ensure(shelf.shape) != shelf.template_id:
            raise EngineFailed("the template is damaged", details=f"{shelf.template_id} was retired")
        try:
            await self._workshop.engine.prepare(spec)
            link = await self._workshop.network.reserve(sandbox_id)
            try:
                waiting = await sleeping(self._workshop.engine).wait_for(spec, origin, link)
            finally:
                os.close(link.tap_fd)
            if not exercised:
                return Claimed(sandbox_id=sandbox_id, template_id=shelf.template_id, reserve=Reserve(waiting=waiting))
            machine = await waiting.load()
            await machine.resume()
            guest = Guest(machine.dialer, None)
            await rehearse(self._workshop, guest, sandbox_id, lives=LIVES, token=None)
            await rehearse_stop(guest)
            await asyncio.sleep(SETTLE_S)
            await machine.pause()
            return Claimed(sandbox_id=sandbox_id, template_id=shelf.template_id, reserve=Reserve(ready=machine))
        except BaseException:
            await asyncio.shield(self._remove(sandbox_id, waiting))
            raise

    async def _tidy(self) -> None:
        """Give up shapes nobody asked for lately, the oldest first where there are too many."""
        shelves = sorted(self._shelves.values(), key=lambda shelf: -shelf.wanted_at_s)
        now_s = time.monotonic()
        old = [
            shelf
            for shelf in shelves
            if now_s - shelf.wanted_at_s > WANTED_FOR_S or self._templates.is_retired(shelf.template_id)
        ]
        await self._drop([*old, *(shelf for shelf in shelves[SHAPES_MAX:] if shelf not in old)])

    async def _drop(self, shelves: list[_Shelf]) -> None:
        for shelf in shelves:
            self._shelves.pop(shelf.template_id, None)
            await self._stop_watching(shelf)
            for claimed in [*shelf.ready, *shelf.waiting]:
                with contextlib.suppress(HearthError, OSError):
                    await self.discard(claimed)
            shelf.dropped.set()

    async def discard(self, claimed: Claimed) -> None:
        """Remove a clone that nobody uses."""
        await self._remove(claimed.sandbox_id, claimed.machine)

    async def _remove(self, sandbox_id: str, machine: Machine | WaitingMachine | None) -> None:
        if machine is not None:
            await machine.kill()
        await self._workshop.take_down(sandbox_id)

    async def _stop_watching(self, shelf: _Shelf) -> None:
        ids = [clone.sandbox_id for clone in (*shelf.ready, *shelf.waiting)]
        watchers = [watcher for sandbox_id in ids if (watcher := self._watchers.pop(sandbox_id, None)) is not None]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
