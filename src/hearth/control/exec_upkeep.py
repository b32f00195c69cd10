"""Keeps logs of commands within their bounds: by size for each sandbox and each user, by number, and by age.

What goes first is the log of the command that ended first. Where nothing that has ended is left, those that run lose
their oldest output; a command never loses what it is just writing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from hearth.config import Settings
from hearth.control.exec_index import ExecIndex
from hearth.control.exec_log import ExecLog, LogDesk
from hearth.control.exec_run import Run
from hearth.errors import HearthError
from hearth.execs import Exec
from hearth.host.clock import Clock
from hearth.host.files import remove_tree
from hearth.journal.segments import segments_in
from hearth.store.base import Store

log = structlog.get_logger(__name__)

MIB = 1024 * 1024
ROUND_S = 60.0
REMOVED_AT_ONCE = 100


class ExecUpkeep:
    """``run`` it as long as there are commands; ``note`` what grows, so that a bound is not passed by much."""

    def __init__(
        self,
        *,
        store: Store,
        desk: LogDesk,
        index: ExecIndex,
        runs: Mapping[str, Run],
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._desk = desk
        self._index = index
        self._runs = runs
        self._clock = clock
        self._sandbox_bytes = settings.exec_logs_max_mib * MIB
        self._owner_bytes = settings.exec_logs_max_mib_per_user * MIB
        self._kept_count = settings.execs_kept
        self._kept_for = timedelta(seconds=settings.exec_kept_s)
        self._by_sandbox = Counter[str]()
        self._by_owner = Counter[str]()
        self._wanted = asyncio.Event()

    def note(self, written: ExecLog, grown_bytes: int) -> None:
        """Note that a log has grown, or shrunk."""
        self._by_sandbox[written.sandbox_id] += grown_bytes
        self._by_owner[written.owner] += grown_bytes
        if (
            self._by_sandbox[written.sandbox_id] > self._sandbox_bytes
            or self._by_owner[written.owner] > self._owner_bytes
        ):
            self._wanted.set()

    async def run(self) -> None:
        """Tidy up every minute, and when a bound is passed, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(ROUND_S):
                    await self._wanted.wait()
            except TimeoutError:
                log.debug("looking after logs of commands")
            self._wanted.clear()
            try:
                await self.tidy()
            except (HearthError, OSError) as error:
                log.error("logs of commands were not tidied", error=str(error))
                await asyncio.sleep(1)

    async def tidy(self) -> None:
        """Bring everything within its bounds.

        Raises:
            HearthError: what the store reports.
            OSError: a file cannot be removed.
        """
        await self._desk.flush()
        await self._index.flush()
        while old := await self._store.execs.ended(before=self._clock.now() - self._kept_for, limit=REMOVED_AT_ONCE):
            await self.remove(old)
        for sandbox_id, count in (await self._store.execs.usage()).ended.items():
            surplus = count - self._kept_count
            while surplus > 0:
                oldest = await self._store.execs.ended(sandbox_id=sandbox_id, limit=min(surplus, REMOVED_AT_ONCE))
                if not oldest:
                    break
                await self.remove(oldest)
                surplus -= len(oldest)
        usage = await self._measure()
        for sandbox_id in [key for key, size in usage[0].items() if size > self._sandbox_bytes]:
            await self._shrink(usage[0][sandbox_id] - self._sandbox_bytes, sandbox_id=sandbox_id)
        usage = await self._measure()
        for owner in [key for key, size in usage[1].items() if size > self._owner_bytes]:
            await self._shrink(usage[1][owner] - self._owner_bytes, owner=owner)
        self._by_sandbox, self._by_owner = await self._measure()

    async def remove(self, found: Sequence[Exec]) -> None:
        """Remove commands that are over, and their logs: the rows last, so that nothing is left without one.

        Raises:
            HearthError: what the store reports.
            OSError: a file cannot be removed.
        """
        await self._desk.flush()
        await self._desk.on_thread(lambda: self._unlink(found))
        await self._store.execs.delete([each.id for each in found])

    async def sweep(self) -> None:
        """Remove logs that no row speaks of, at a daemon's start."""
        known = await self._store.execs.known()
        removed = await self._desk.on_thread(lambda: self._unlink_unknown(known))
        if removed:
            log.info("logs of unknown commands removed", count=removed)

    async def _measure(self) -> tuple[Counter[str], Counter[str]]:
        usage = await self._store.execs.usage()
        by_sandbox, by_owner = Counter(usage.by_sandbox), Counter(usage.by_owner)
        for run in list(self._runs.values()):
            stored = await self._stored_bytes(run)
            grown = run.log.writer.size_bytes - stored
            by_sandbox[run.log.sandbox_id] += grown
            by_owner[run.log.owner] += grown
        return by_sandbox, by_owner

    async def _stored_bytes(self, run: Run) -> int:
        """Tell what a running command's row says that its log takes; rows are not written anew while it grows."""
        try:
            return (await self._store.execs.get(None, run.exec.id)).log_bytes
        except HearthError:
            return 0

    async def _shrink(self, surplus: int, *, sandbox_id: str | None = None, owner: str | None = None) -> None:
        while surplus > 0:
            oldest = await self._store.execs.ended(sandbox_id=sandbox_id, owner=owner, limit=1)
            if not oldest:
                break
            await self.remove(oldest)
            surplus -= oldest[0].log_bytes
        running = [run.log for run in self._runs.values() if run.log.sandbox_id == sandbox_id or run.log.owner == owner]
        while surplus > 0 and running:
            largest = max(running, key=lambda each: each.writer.size_bytes)
            before = largest.writer.size_bytes
            if not await self._desk.on_thread(largest.writer.drop_oldest):
                running.remove(largest)
            surplus -= before - largest.writer.size_bytes

    def _unlink(self, found: Sequence[Exec]) -> None:
        for sandbox_id in {each.sandbox_id for each in found}:
            segments = segments_in(self._desk.directory(sandbox_id))
            for each in found:
                for segment in segments.get(each.id, ()) if each.sandbox_id == sandbox_id else ():
                    segment.path.unlink(missing_ok=True)

    def _unlink_unknown(self, known: Mapping[str, frozenset[str]]) -> int:
        if not self._desk.root.is_dir():
            return 0
        removed = 0
        for directory in list(self._desk.root.iterdir()):
            if directory.name not in known:
                remove_tree(directory)
                removed += 1
                continue
            for exec_id, segments in segments_in(directory).items():
                if exec_id not in known[directory.name]:
                    removed += 1
                    for segment in segments:
                        segment.path.unlink(missing_ok=True)
        return removed
