"""A thin asyncio client of QEMU's machine protocol: commands, several in one send, and events awaited by name.

    EngineFailed
    ├── QmpRefused     QEMU answered a command with an error
    └── QmpClosed      the monitor's connection ended

Specification: QEMU's docs/interop/qmp-spec. Why not the qemu.qmp package: docs/decisions/qmp.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Self

from hearth.errors import EngineFailed, TimedOut

GREETING_TIMEOUT_S = 10.0
TOLD_MAX = 16
TOLD_CHARACTERS = 500
MAX_LINE_BYTES = 16 * 1024 * 1024

Arguments = Mapping[str, object]


class QmpRefused(EngineFailed):
    """QEMU refused a command; ``details`` holds the command and QEMU's words."""


class QmpClosed(EngineFailed):
    """The connection to the monitor ended while somebody waited."""


class Events:
    """The events of one name, in order, none lost between two calls of ``next``."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[dict[str, Any] | QmpClosed] = asyncio.Queue()

    def put(self, event: dict[str, Any] | QmpClosed) -> None:
        """Add an event's data, or what ended them."""
        self._queue.put_nowait(event)

    async def next(self) -> dict[str, Any]:
        """Wait for the next event and give its data.

        Raises:
            QmpClosed: there will be none.
        """
        event = await self._queue.get()
        if isinstance(event, QmpClosed):
            self.put(event)
            raise event
        return event


class Qmp:
    """One negotiated connection. Usable by several tasks at once; closed with ``close``."""

    def __init__(self, connection: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._writer.transport.set_write_buffer_limits(high=0)
        self._ids = count()
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._waiters: list[tuple[str, asyncio.Future[dict[str, Any]]]] = []
        self._watchers: list[tuple[str, Events]] = []
        self.told: deque[str] = deque(maxlen=TOLD_MAX)
        """The last events, each as one text, for whoever has to explain an end."""
        self._greeting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._read(), name="qmp")

    @classmethod
    async def open(cls, connection: socket.socket, *, timeout_s: float = GREETING_TIMEOUT_S) -> Self:
        """Negotiate over a connected, non-blocking Unix socket, which belongs to the client from now on.

        Raises:
            TimedOut: QEMU said nothing within ``timeout_s``.
            QmpClosed: QEMU ended first.
        """
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE_BYTES)
        client = cls(connection, reader, writer)
        try:
            async with asyncio.timeout(timeout_s):
                await client._greeting
                await client.execute("qmp_capabilities", timeout_s=timeout_s)
        except TimeoutError as error:
            await client.close()
            raise TimedOut("QEMU's monitor did not answer", details=f"no greeting within {timeout_s:g} s") from error
        except BaseException:
            await client.close()
            raise
        return client

    async def execute(self, command: str, arguments: Arguments | None = None, *, timeout_s: float = 10.0) -> Any:
        """Run one command and give what it returns.

        Raises:
            QmpRefused, QmpClosed, TimedOut: as their names say.
        """
        return (await self.execute_all([(command, arguments)], timeout_s=timeout_s))[0]

    async def execute_all(
        self, commands: Sequence[tuple[str, Arguments | None]], *, timeout_s: float = 10.0
    ) -> list[Any]:
        """Send several commands in one write; QEMU runs them in order. The first refusal raises."""
        data, pending = self._prepare(commands)
        self._writer.write(data)
        return await self._replies_to(commands, pending, timeout_s)

    async def hand_over(self, descriptor: int, set_id: int, *, timeout_s: float = 10.0) -> str:
        """Give QEMU a copy of an open file and tell the name under which its commands know it.

        Args:
            descriptor: ours; it stays open here.
            set_id: a number of a descriptor set that is not in use; ``take_back`` frees it.

        Raises:
            QmpRefused, QmpClosed, TimedOut: as their names say.
        """
        command: tuple[str, Arguments] = ("add-fd", {"fdset-id": set_id})
        data, pending = self._prepare([command])
        # A descriptor travels beside bytes (unix(7)), so what was written before must be on its way.
        await self._writer.drain()
        sent = socket.send_fds(self._connection, [data], [descriptor])
        self._writer.write(data[sent:])
        await self._replies_to([command], pending, timeout_s)
        return f"/dev/fdset/{set_id}"

    async def take_back(self, set_id: int) -> None:
        """Have QEMU close its copy of what was handed over."""
        await self.execute("remove-fd", {"fdset-id": set_id})

    def _prepare(
        self, commands: Sequence[tuple[str, Arguments | None]]
    ) -> tuple[bytearray, dict[int, asyncio.Future[Any]]]:
        loop = asyncio.get_running_loop()
        pending: dict[int, asyncio.Future[Any]] = {}
        data = bytearray()
        for command, arguments in commands:
            number = next(self._ids)
            message: dict[str, object] = {"execute": command, "id": number}
            if arguments:
                message["arguments"] = arguments
            data += json.dumps(message, separators=(",", ":")).encode() + b"\n"
            pending[number] = loop.create_future()
        if self._task.done():
            raise QmpClosed("QEMU's monitor is closed")
        self._replies.update(pending)
        return data, pending

    async def _replies_to(
        self,
        commands: Sequence[tuple[str, Arguments | None]],
        pending: Mapping[int, asyncio.Future[Any]],
        timeout_s: float,
    ) -> list[Any]:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.gather(*pending.values())
        except TimeoutError as error:
            names = ", ".join(command for command, _ in commands)
            raise TimedOut("QEMU did not answer", details=f"{names}: no reply within {timeout_s:g} s") from error
        finally:
            for number, future in pending.items():
                self._replies.pop(number, None)
                if future.done() and not future.cancelled():
                    future.exception()
                future.cancel()

    def expect(self, event: str) -> asyncio.Future[dict[str, Any]]:
        """Give a future of the next event of that name; take it *before* the command that causes the event."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if self._task.done():
            future.set_exception(QmpClosed("QEMU's monitor is closed"))
        else:
            self._waiters.append((event, future))
        return future

    @contextlib.contextmanager
    def watch(self, event: str) -> Iterator[Events]:
        """Collect all events of that name inside the context; enter it *before* the command that causes them."""
        watcher = (event, Events())
        if self._task.done():
            raise QmpClosed("QEMU's monitor is closed")
        self._watchers.append(watcher)
        try:
            yield watcher[1]
        finally:
            self._watchers.remove(watcher)

    async def close(self) -> None:
        """End the connection and its task; whoever waits gets QmpClosed."""
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._dispatch(json.loads(line))
        except (OSError, ValueError) as error:
            self._end(QmpClosed("QEMU's monitor broke", details=str(error)))
        finally:
            self._end(QmpClosed("QEMU's monitor is closed"))

    def _dispatch(self, message: dict[str, Any]) -> None:
        if "QMP" in message:
            self._greeting.set_result(None)
        elif "event" in message:
            self._deliver(message)
        else:
            future = self._replies.get(message.get("id", -1))
            if future is None or future.done():
                return
            if "error" in message:
                future.set_exception(QmpRefused("QEMU refused a command", details=message["error"].get("desc", "")))
            else:
                future.set_result(message.get("return"))

    def _deliver(self, message: dict[str, Any]) -> None:
        self.told.append(f"{message['event']} {json.dumps(message.get('data', {}))}"[:TOLD_CHARACTERS])
        remaining = []
        for name, future in self._waiters:
            if name == message["event"]:
                if not future.done():
                    future.set_result(message.get("data", {}))
            elif not future.done():
                remaining.append((name, future))
        self._waiters = remaining
        for name, events in self._watchers:
            if name == message["event"]:
                events.put(message.get("data", {}))

    def _end(self, reason: QmpClosed) -> None:
        if not self._greeting.done():
            self._greeting.set_exception(reason)
            self._greeting.exception()
        for future in [*self._replies.values(), *(future for _, future in self._waiters)]:
            if not future.done():
                future.set_exception(reason)
                future.exception()
        self._waiters.clear()
        for _, events in self._watchers:
            events.put(reason)
