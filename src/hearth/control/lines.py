"""A client's line to a session: it lasts while the sandbox sleeps, and goes on where it was.

The agent counts a session's output in bytes. A line knows how much of it its client has, so that after any break of the
connection nothing is missing and nothing comes twice, but for what the agent's ring no longer holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

import structlog

from hearth.control.residents import Resident
from hearth.control.sandboxes import ALIVE, Sandboxes
from hearth.errors import Conflict, GuestFailed, HearthError, NotFound, TimedOut, Unavailable
from hearth.guest.client import Guest
from hearth.guest.sessions import Shell
from hearth.model import Sandbox
from hearth.wire.messages import SessionInfo

log = structlog.get_logger(__name__)

AWAY_LOOK_S = 1.0
"""Between two looks whether a sandbox that slept is awake again; its row is read at few of them only."""
FIRST_LOOKS = 5
"""What ended the connection may have ended the machine: its row soon says so."""
LOOKS_AT_ROW = 20
TRIES = 8
"""So often in a row a guest that is awake may fail to give a session back, a second apart."""
CHUNK_BYTES = 65_536
"""Input in one frame: one that failed to leave was not given at all, and may be given again."""
Opening = Callable[[Guest, "Line"], Awaitable[Shell]]
"""Opens a session in a guest for a line; the shell it gives has been entered."""


class Lines:
    """All lines of this daemon, which knows by them who took whose session."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def lock(self, sandbox_id: str) -> asyncio.Lock:
        """Give what whoever attaches to a session of a sandbox holds: the last to claim one is the last to attach."""
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    def holder(self, sandbox_id: str, session_id: str) -> Line | None:
        """Give the line that a session belongs to, also while it is let go."""
        return self._lines.get((sandbox_id, session_id))

    def claim(self, line: Line, session_id: str) -> Callable[[], None]:
        """Have a session belong to this line; gives what takes that back."""
        key = (line.sandbox.id, session_id)
        before = self._lines.get(key)
        if before is not None and before is not line:
            before.is_taken = True
        self._lines[key] = line

        def give_back() -> None:
            if self._lines.get(key) is line:
                del self._lines[key]
                if before is not None and before is not line and not before.is_closed:
                    before.is_taken = False
                    self._lines[key] = before

        return give_back

    def release(self, line: Line, session_id: str) -> None:
        """Forget a line that ended."""
        key = (line.sandbox.id, session_id)
        if self._lines.get(key) is line:
            del self._lines[key]


class Line:
    """One client's hold on a session. Iterate for its output; then ``exit_code`` is known.

    While it is connected its sandbox counts as used. ``idle_s`` seconds after the last byte it lets go: the sandbox may
    sleep then, and the next input wakes it.
    """

    info: SessionInfo

    def __init__(self, sandboxes: Sandboxes, lines: Lines, sandbox: Sandbox, *, idle_s: float) -> None:
        self.sandbox = sandbox
        self.is_taken = False
        self.is_closed = False
        self.exit_code: int | None = None
        self.lines = lines
        self._sandboxes = sandboxes
        self._idle_s = idle_s
        self._resident: Resident = sandboxes.sleep.residents[sandbox.id]
        self._loop = asyncio.get_running_loop()
        self._shell: Shell | None = None
        self._use = contextlib.ExitStack()
        self._position: int | None = None
        self._lock = lines.lock(sandbox.id)
        self._connected = asyncio.Event()
        self._was_asleep = False
        self._moved_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, opening: Opening) -> None:
        """Wake the sandbox and open the session.

        Raises:
            HearthError: it cannot be woken, or the session not be opened.
        """
        settled = await self._sandboxes.creation.settle(self.sandbox)
        async with self._sandboxes.sleep.awake(settled) as guest, self._lock:
            shell = await opening(guest, self)
            self.lines.claim(self, shell.info.session_id)
            self.info = shell.info
            self._take(shell)

    def close(self) -> None:
        """Detach; the session goes on."""
        self.is_closed = True
        self._drop()
        if hasattr(self, "info"):
            self.lines.release(self, self.info.session_id)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Wait for output, through sleep and wake.

        Raises:
            StopAsyncIteration: the process has ended, and this was all.
            Conflict: another client has taken the session.
            NotFound: session or sandbox are gone.
            HearthError: it cannot be reached any more.
        """
        while True:
            shell = self._shell
            if shell is None:
                await self._return()
                continue
            try:
                output = await anext(shell)
            except StopAsyncIteration:
                if self.is_taken:
                    raise _taken(self.info.session_id) from None
                self.exit_code = shell.exit_code
                raise
            except (GuestFailed, Unavailable) as error:
                if self._shell is shell:
                    log.info("session out of sight", sandbox=self.sandbox.id, why=str(error))
                    self._was_asleep = True  # or its agent died: then the session is not found
                    self._drop()
                continue
            self._moved_s = self._loop.time()
            if self._position is not None:
                self._position += len(output.data)
            return output.data

    async def write(self, data: bytes) -> None:
        """Give input; waits while the process does not take it, and wakes the sandbox.

        Raises:
            HearthError: as for the iteration, or the sandbox cannot be woken.
        """
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data[start : start + CHUNK_BYTES]
            await self._do(functools.partial(Shell.write_stdin, data=piece))

    async def end_input(self) -> None:
        """End the input. Raises as ``write``."""
        await self._do(Shell.close_stdin)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size. Raises as ``write``."""
        await self._do(functools.partial(Shell.resize, rows=rows, columns=columns))

    async def signal(self, number: int) -> None:
        """Send a signal to the process group. Raises as ``write``, and InvalidInput."""
        await self._do(functools.partial(Shell.signal, number=number))

    async def _do(self, act: Callable[[Shell], Awaitable[None]]) -> None:
        self._moved_s = self._loop.time()
        for attempt in range(2):
            if not self._resident.settled:
                await self._sandboxes.sleep.ensure_hot(self.sandbox)
            if self._shell is None:
                await self._connect()
            shell = self._shell
            try:
                if shell is not None:
                    await act(shell)
                    return
            except GuestFailed:
                if attempt:
                    raise
                if self._shell is shell:
                    self._was_asleep = True
                    self._drop()
        raise GuestFailed("the session cannot be reached", details=self.info.session_id)

    async def _return(self) -> None:
        """Wait until the line is connected again: by input, or because the sandbox slept and is awake again."""
        tries = looks = 0
        while self._shell is None:
            if self.is_taken:
                raise _taken(self.info.session_id)
            if looks < FIRST_LOOKS or looks % LOOKS_AT_ROW == 0 or tries:
                await self._check_alive()
            looks += 1
            if not self._resident.settled:
                self._was_asleep, tries = True, 0
            elif self._was_asleep:
                try:
                    await self._connect()
                    return
                except (GuestFailed, TimedOut, Unavailable):
                    tries += 1
                    if tries >= TRIES:
                        raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AWAY_LOOK_S):
                    await self._connected.wait()

    async def _connect(self) -> None:
        """Attach to the session again, where its client was; the sandbox is awake."""
        async with self._sandboxes.sleep.awake(self.sandbox) as guest, self._lock:
            if self._shell is None:
                if self.is_taken:
                    raise _taken(self.info.session_id)
                shell = guest.sessions.attach(self.info.session_id, after=self._position)
                try:
                    await shell.__aenter__()
                except NotFound as error:
                    raise NotFound(
                        "the session is gone",
                        details=f"{self.info.session_id}: the sandbox was booted anew, or its agent was",
                        resolution="start another",
                    ) from error
                self._take(shell)

    def _take(self, shell: Shell) -> None:
        """Go on with a shell, and keep the sandbox awake for it."""
        self._shell, self._position = shell, shell.info.position
        self._was_asleep = False
        self._use.enter_context(self._resident.use())
        self._moved_s = self._loop.time()
        self._connected.set()
        self._timer = self._loop.call_later(self._idle_s, self._look)

    def _drop(self) -> None:
        """Let go of the agent, and of the sandbox."""
        shell, self._shell = self._shell, None
        self._connected.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if shell is not None:
            shell.leave()
        self._use.close()

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._moved_s
        if quiet_s >= self._idle_s:
            log.info("an idle terminal lets its sandbox go", sandbox=self.sandbox.id, session=self.info.session_id)
            self._drop()
        else:
            self._timer = self._loop.call_later(self._idle_s - quiet_s, self._look)

    async def _check_alive(self) -> None:
        with contextlib.suppress(NotFound):
            found = await self._sandboxes.store.sandboxes.get(self.sandbox.id)
            if found.state in ALIVE:
                return
        raise NotFound(
            "the session is gone",
            details=f"the sandbox {self.sandbox.id} has ended",
            resolution="see why with 'hearth inspect'",
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _taken(session_id: str) -> HearthError:
    return Conflict(
        "another client attached to the session",
        details=session_id,
        resolution="attach again to take it back; if_detached leaves it to others",
    )
