"""One connection to a libvirt: blocking calls on threads of their own with limits, opened anew after it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from hearth.errors import HearthError, Unavailable
from hearth.host.libvirt_binding import Binding, Connection, error_number, error_text, load_binding

log = structlog.get_logger(__name__)

T = TypeVar("T")

CALL_TIMEOUT_S = 60.0
CALLS_MAX = 4
"""At once; a server answers five of one client by default and lets the others wait."""
LEFT_MAX = 8
"""Threads that wait for a server that answers nothing; beyond these nobody else is sent to wait."""
HOW_TO_REACH = "check libvirt_uri, and that libvirtd runs: 'virsh -c URI version'"


class LibvirtFailed(HearthError):
    """libvirt refused something; ``number`` is its own code (virErrorNumber), ``details`` what it said."""

    def __init__(self, brief: str, *, number: int, details: str) -> None:
        super().__init__(brief, details=details)
        self.number = number


class LibvirtUnavailable(Unavailable):
    """libvirt cannot be reached or does not answer."""


class Libvirt:
    """A libvirt by its URI. Nothing is opened before the first call.

    Args:
        uri: such as ``qemu:///system``.
        call_timeout_s: for each call.
    """

    def __init__(self, uri: str, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.uri = uri
        self.is_local = is_local(uri)
        self._call_timeout_s = call_timeout_s
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._left = 0

    async def call(
        self,
        work: Callable[[Connection], T],
        *,
        timeout_s: float | None = None,
        again: bool = True,
        unwanted: threading.Event | None = None,
    ) -> T:
        """Run blocking ``work`` with the connection; a cancelled caller waits for its end, within the limit.

        Args:
            again: once more with a new connection when the old one was lost; False for what must not happen twice.
            unwanted: is set when the caller is cancelled, for work that looks at it.

        Raises:
            HostUnfit: there is no binding.
            LibvirtUnavailable: nobody answers, or not in time; whether it happened is then not known.
            LibvirtFailed: libvirt refused.
        """
        limit_s = self._call_timeout_s if timeout_s is None else timeout_s
        binding = load_binding()
        async with self._calls:
            try:
                return await self._on_thread(lambda: self._work(binding, work), limit_s, unwanted)
            except _Lost as lost:
                if not again:
                    raise _unavailable(self.uri, lost.said) from lost
            try:
                return await self._on_thread(lambda: self._work(binding, work), limit_s, unwanted)
            except _Lost as lost:
                raise _unavailable(self.uri, lost.said) from lost

    async def close(self) -> None:
        """End the connection; another call opens a new one."""
        if self._connection is not None:
            with contextlib.suppress(LibvirtUnavailable):  # it is stuck: its thread is left with it
                await self._on_thread(lambda: self._drop(None), self._call_timeout_s)

    def _work(self, binding: Binding, work: Callable[[Connection], T]) -> T:
        connection = self._opened(binding)
        try:
            return work(connection)
        except binding.libvirtError as error:
            said = error_text(error)
            if not _is_alive(binding, connection):
                self._drop(connection)
                raise _Lost(said) from error
            raise LibvirtFailed("libvirt refused", number=error_number(error), details=said) from error

    def _opened(self, binding: Binding) -> Connection:
        with self._guard:
            connection = self._connection
            if connection is not None and _is_alive(binding, connection):
                return connection
        self._drop(connection)
        try:
            opened = binding.open(self.uri)
        except binding.libvirtError as error:
            raise _unavailable(self.uri, error_text(error)) from error
        with self._guard:
            if self._connection is None:
                self._connection = opened
                return opened
            kept = self._connection
        opened.close()
        return kept

    def _drop(self, connection: Connection | None) -> None:
        """Close the connection if it is still this one; None stands for whichever it is."""
        with self._guard:
            if self._connection is None or connection not in (None, self._connection):
                return
            old, self._connection = self._connection, None
        old.close()

    async def _on_thread(self, work: Callable[[], T], timeout_s: float, unwanted: threading.Event | None = None) -> T:
        if self._left >= LEFT_MAX:
            raise _unavailable(self.uri, f"{self._left} calls wait for an answer already")
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()
        threading.Thread(target=_run, args=(done, work), name="libvirt", daemon=True).start()
        waiting = asyncio.wrap_future(done)
        try:
            await _until(waiting, timeout_s, unwanted)
        finally:
            if not waiting.done():
                self._leave(done)
                waiting.cancel()
        if waiting.cancelled():
            raise _unavailable(self.uri, f"no answer within {timeout_s:g} s")
        return waiting.result()

    def _leave(self, done: Future[T]) -> None:
        """Let a thread wait alone for a server that is stuck, and its connection with it."""
        with self._guard:
            self._left += 1
            self._connection = None
        done.add_done_callback(self._came_back)

    def _came_back(self, _: Future[T]) -> None:
        with self._guard:
            self._left -= 1


class _Lost(Exception):
    """The connection was lost under a call."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def is_local(uri: str) -> bool:
    """Tell whether a URI leads to this host's own libvirt: no server, no transport but a Unix socket."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    return driver != "test" and not parts.netloc and transport in ("", "unix")


async def _until(waiting: asyncio.Future[T], timeout_s: float, unwanted: threading.Event | None) -> None:
    """Wait for an end, a limited time; a cancelled caller waits on, since what was begun is to be known of."""
    loop = asyncio.get_running_loop()
    deadline_s, cancelled = loop.time() + timeout_s, None
    while not waiting.done() and loop.time() < deadline_s:
        try:
            await asyncio.wait({waiting}, timeout=deadline_s - loop.time())
        except asyncio.CancelledError as error:
            cancelled = error
            if unwanted is not None:
                unwanted.set()
    if cancelled is not None:
        if waiting.done() and not waiting.cancelled():
            waiting.exception()
        raise cancelled


def _run(done: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - the thread ends here; its error continues in the caller
        done.set_exception(error)
    else:
        done.set_result(result)


def _is_alive(binding: Binding, connection: Connection) -> bool:
    try:
        return connection.isAlive() == 1
    except binding.libvirtError:
        return False


def _unavailable(uri: str, said: str) -> LibvirtUnavailable:
    return LibvirtUnavailable("libvirt cannot be reached", details=f"{uri}: {said[:300]}", resolution=HOW_TO_REACH)
