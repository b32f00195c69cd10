"""Opens connections to the agent: a free slot, a dial, authentication and the request in one write."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket

from hearth.errors import GuestFailed, TimedOut, Unavailable
from hearth.guest.connection import Connection
from hearth.guest.dial import CONTROL_PORT, FORWARD_PORT, Dialer
from hearth.guest.faults import Deadline
from hearth.guest.measuring import Asked
from hearth.guest.patience import Patience
from hearth.guest.timekeeping import Timekeeper
from hearth.host.clock import Clock, SystemClock
from hearth.wire import frames
from hearth.wire.frames import FrameType

SYSTEM_CLOCK = SystemClock()
UNREACHABLE = "the guest cannot be reached"
REDIAL_PAUSE_S = 0.05
"""Between two attempts: a refusal comes at once, and asking for the next without a pause would keep a CPU busy."""


class Connector:
    """The way to one agent. Holds its token and counts control connections.

    Args:
        dialer: reaches the agent, whatever the transport.
        token: what AUTH carries; None for an agent that was told none yet.
        connection_limit: control connections at a time. The agent takes 50; what lies between is for urgent requests,
            which are short.
        patience: how long to wait for what.
        clock: the time a machine that slept is told.
    """

    def __init__(
        self,
        dialer: Dialer,
        token: str | None,
        *,
        connection_limit: int,
        patience: Patience,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.patience = patience
        self.timekeeper = Timekeeper(clock)
        self._dialer = dialer
        self._slots = asyncio.Semaphore(connection_limit)
        self._connections: set[Connection] = set()
        self._auth = b""
        self.use_token(token)

    def use_token(self, token: str | None) -> None:
        """Authenticate with this token from the next connection on."""
        self._auth = b"" if token is None else frames.encode(FrameType.AUTH, token.encode())

    async def open(self, request: bytes, *, urgent: bool = False, once: bool = False) -> Connection:
        """Connect to the control port and send the request (whole frames). Closing the connection frees its slot.

        Args:
            request: whole frames.
            urgent: needs no slot.
            once: make one attempt, for a caller that tries anew by itself; others ride out a guest that stalls.

        Raises:
            Unavailable: all connections are in use and stayed so.
            TimedOut: the agent did not take the request in time.
            GuestFailed: it cannot be reached.
        """
        if urgent:
            return await self._connect(CONTROL_PORT, request, slot=None, once=once)
        if self._slots.locked():
            await self._wait_for_slot()
        else:
            await self._slots.acquire()  # does not wait
        return await self._connect(CONTROL_PORT, request, slot=self._slots, once=once)

    async def open_forward(self, request: bytes) -> Connection:
        """Connect to the forward port and send the request; these are not counted.

        Raises:
            TimedOut, GuestFailed: as for ``open``.
        """
        return await self._connect(FORWARD_PORT, request, slot=None)

    def close_all(self) -> None:
        """End every open connection at once; whoever waits on one learns that it is gone."""
        for connection in tuple(self._connections):
            connection.close()

    async def _wait_for_slot(self) -> None:
        try:
            async with Deadline(self.patience.slot_s, "waiting for a free connection"):
                await self._slots.acquire()
        except TimedOut as error:
            raise Unavailable(
                "the sandbox is busy",
                details="all connections to it are in use",
                resolution="close a terminal, a watch or a transfer, or try again",
            ) from error

    async def _connect(
        self, port: int, request: bytes, *, slot: asyncio.Semaphore | None, once: bool = False
    ) -> Connection:
        with contextlib.ExitStack() as undo:
            if slot is not None:
                undo.callback(slot.release)
            connection = Connection(await (self._dial(port) if once else self._dial_patiently(port)))
            undo.callback(connection.close)
            async with Deadline(self.patience.connect_s, "connecting to the guest"):
                time_sync, told = self.timekeeper.frame()
                connection.on_reply = Asked(request, told)
                with contextlib.suppress(GuestFailed):  # refused and closed: the reason waits to be received
                    await connection.send(self._auth + time_sync + request)
            undo.pop_all()
        self._connections.add(connection)
        connection.on_close = functools.partial(self._forget, connection, slot)
        return connection

    async def _dial_patiently(self, port: int) -> socket.socket:
        """Dial until the time for it is used up: a guest that is stopped or swamped for a while answers later."""
        last = "nothing answered"
        try:
            async with asyncio.timeout(self.patience.connect_s):
                while True:
                    try:
                        return await self._dial(port)
                    except GuestFailed as error:
                        if not isinstance(error.__cause__, TimeoutError | ConnectionRefusedError):
                            raise
                        last = error.details or last
                    await asyncio.sleep(REDIAL_PAUSE_S)
        except TimeoutError as error:
            details = f"{last}, for {self.patience.connect_s:g} s"
            raise GuestFailed(UNREACHABLE, details=details) from error

    async def _dial(self, port: int) -> socket.socket:
        try:
            return await self._dialer.connect(port)
        except OSError as error:
            raise GuestFailed(UNREACHABLE, details=str(error)) from error

    def _forget(self, connection: Connection, slot: asyncio.Semaphore | None) -> None:
        self._connections.discard(connection)
        if isinstance(connection.on_reply, Asked):
            connection.on_reply.unanswered()
        if slot is not None:
            slot.release()
