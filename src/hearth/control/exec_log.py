"""Commands' output on its way into their logs: held in memory for moments, written by one thread in batches.

Whoever reads along gets it at once; who is slower reads the files, so that no reader costs memory. A log that cannot be
written (a full disk) ends no command: what was to be written is a gap then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from hearth.host.waiting import until_done
from hearth.journal.records import Piece, Stream
from hearth.journal.writer import LogWriter

T = TypeVar("T")
log = structlog.get_logger(__name__)

GATHER_S = 0.01
"""How long little output waits to be written together with more; a daemon that is killed has not written that."""
URGENT_BYTES = 65_536
"""So much is written at once."""
HELD_BYTES = 1_048_576
"""So much of one command's output may be held in memory; then whoever brings more waits."""


class ExecLog:
    """One command's output, as far as it has come. ``end`` is the position behind it, ``stored`` what is written."""

    def __init__(self, desk: LogDesk, writer: LogWriter, *, sandbox_id: str, owner: str) -> None:
        self.sandbox_id = sandbox_id
        self.owner = owner
        self.writer = writer
        self.end = self.stored = writer.end
        self.finished = False
        self.on_closed: Callable[[], None] | None = None
        """Called when it has finished and all is written."""
        self._desk = desk
        self._held: deque[Piece] = deque()
        self._held_bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def is_full(self) -> bool:
        """True when as much is held as may be; ``change`` tells when there may be room again."""
        return self._held_bytes >= HELD_BYTES

    def append(self, stream: Stream, data: bytes) -> None:
        """Take output in."""
        self._held.append(Piece(stream, self.end, data))
        self.end += len(data)
        self._held_bytes += len(data)
        self._desk.note(self, urgent=self._held_bytes >= URGENT_BYTES)
        self.wake()

    def skip_to(self, position: int) -> None:
        """Note that what lies before ``position`` will not come."""
        if position > self.end:
            self.end = position
            if not self._held:
                self.stored = position
            self.wake()

    def finish(self) -> None:
        """Note that nothing more comes; the file is closed when all is written."""
        self.finished = True
        if self.end == 0 and self.on_closed is not None:  # there is no file, and many a command writes nothing
            self.on_closed()
        else:
            self._desk.note(self, urgent=False)
        self.wake()

    def held_from(self, position: int) -> Sequence[Piece]:
        """Give what is held from a position on, which must not lie before ``stored``."""
        return [piece.since(position) for piece in self._held if piece.end > position]

    async def change(self) -> None:
        """Wait until something came, was written or finished."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def written(self) -> None:
        """Wait until all that has come is written, or given up."""
        end = self.end
        self._desk.note(self, urgent=True)
        while self.stored < end:
            await self.change()

    def batch(self) -> Sequence[Piece]:
        """Give what is to be written, neighbours of one stream joined."""
        runs: list[list[Piece]] = []
        for piece in self._held:
            if runs and runs[-1][-1].stream == piece.stream and runs[-1][-1].end == piece.position:
                runs[-1].append(piece)
            else:
                runs.append([piece])
        return [run[0]._replace(data=b"".join([piece.data for piece in run])) for run in runs]

    def settle(self, position: int) -> None:
        """Note that all before ``position`` is written, or given up."""
        while self._held and self._held[0].end <= position:
            self._held_bytes -= len(self._held.popleft().data)
        self.stored = self.end if not self._held else self._held[0].position
        self.wake()

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(frozen=True, kw_only=True)
class _Work:
    log: ExecLog
    pieces: Sequence[Piece]
    closes: bool

    def do(self) -> str | None:
        """Write, on the thread; gives why that failed."""
        writer = self.log.writer
        try:
            if self.pieces:
                writer.append(self.pieces)
        except OSError as error:
            return error.strerror or type(error).__name__
        finally:
            if self.closes:
                writer.close()
        return None


OnWritten = Callable[[ExecLog, int], None]
"""Called with a log that was written and by how many bytes its files grew."""


class LogDesk:
    """Writes all logs, with one thread; ``run`` it as long as there are commands."""

    def __init__(self, root: Path, *, max_bytes: int, on_written: OnWritten) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._on_written = on_written
        self._dirty: dict[ExecLog, None] = {}
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hearth-execs")
        self._failing: set[str] = set()
        self._flushing = asyncio.Lock()

    def directory(self, sandbox_id: str) -> Path:
        return self.root / sandbox_id

    def open(self, sandbox_id: str, owner: str, exec_id: str) -> ExecLog:
        """Give a new command's log; its file comes with its first output."""
        writer = LogWriter(self.directory(sandbox_id), exec_id, max_bytes=self.max_bytes)
        return ExecLog(self, writer, sandbox_id=sandbox_id, owner=owner)

    async def reopen(self, sandbox_id: str, owner: str, exec_id: str) -> ExecLog:
        """Give the log of a command that an earlier daemon began.

        Raises:
            OSError: it cannot be read.
        """
        directory = self.directory(sandbox_id)
        writer = await self.on_thread(lambda: LogWriter.recover(directory, exec_id, max_bytes=self.max_bytes))
        return ExecLog(self, writer, sandbox_id=sandbox_id, owner=owner)

    def note(self, changed: ExecLog, *, urgent: bool) -> None:
        """Have a log written soon, or now."""
        self._dirty[changed] = None
        self._wanted.set()
        if urgent:
            self._urgent.set()

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do blocking work with logs; one thing at a time."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        await until_done(running)
        return running.result()

    async def run(self) -> None:
        """Write what is to be written until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                async with asyncio.timeout(GATHER_S):
                    await self._urgent.wait()
            except TimeoutError:
                pass  # nobody is in a hurry
            await self.flush()

    async def flush(self) -> None:
        """Write everything that has come by now; what another call is just writing is written, too, when this ends."""
        async with self._flushing:
            self._wanted.clear()
            self._urgent.clear()
            dirty, self._dirty = list(self._dirty), {}
            works = [_Work(log=each, pieces=each.batch(), closes=each.finished) for each in dirty]
            before = [each.writer.size_bytes for each in dirty]
            failures = await self.on_thread(lambda: [work.do() for work in works]) if works else []
            for work, size_bytes, failure in zip(works, before, failures, strict=True):
                self._tell(work.log, failure)
                work.log.settle(work.pieces[-1].end if work.pieces else work.log.stored)
                self._on_written(work.log, work.log.writer.size_bytes - size_bytes)
                if work.closes and work.log.on_closed is not None:
                    work.log.on_closed()

    async def close(self) -> None:
        """Write the rest and end the thread. ``run`` must have ended."""
        while self._dirty:
            await self.flush()
        self._thread.shutdown()

    def _tell(self, written: ExecLog, failure: str | None) -> None:
        if failure is None:
            self._failing.discard(written.sandbox_id)
        elif written.sandbox_id not in self._failing:
            self._failing.add(written.sandbox_id)
            log.error("output of commands is not kept", sandbox=written.sandbox_id, error=failure)
