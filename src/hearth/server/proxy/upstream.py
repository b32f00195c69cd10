"""HTTP/1.1 to servers inside sandboxes: connections through the agent, kept for a while where that is safe.

h11 does the reading and the writing: what leaves is unambiguous whatever came in, what comes back is judged strictly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator

import h11

from hearth.errors import GuestFailed, InvalidInput, Unavailable
from hearth.guest.client import Guest
from hearth.guest.faults import printable
from hearth.guest.forward import ForwardStream

READ_BYTES = 262_144
MAX_HEAD_BYTES = 65_536
KEPT_S = 4.0
"""How long an idle connection is kept: less than the 5 s after which the most impatient servers (Node's) close it."""
MAX_KEPT_PER_PORT = 16
MAX_KEPT = 256

_HEADED = (h11.Response, h11.InformationalResponse, h11.EndOfMessage)
Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class Upstream:
    """One connection to a server in a sandbox."""

    def __init__(self, stream: ForwardStream, guest: Guest, key: tuple[str, int]) -> None:
        self.stream = stream
        self.guest = guest
        self.key = key
        self.is_reused = False
        self.has_answered = False
        """True once a byte of the answer to the current request has come."""
        self._http = _fresh()
        self._plain_left: int | None = None
        """How much of a body is still to come that h11 does not see; below zero: too much came."""

    def encode(self, event: h11.Event) -> bytes:
        """Give the bytes of an event.

        Raises:
            InvalidInput: the request cannot be passed on.
        """
        try:
            return self._http.send(event) or b""
        except h11.LocalProtocolError as error:
            raise InvalidInput(
                "the request cannot be passed on",
                details=printable(str(error)),
                resolution="send well-formed HTTP/1.1",
            ) from error

    async def send(self, data: bytes) -> None:
        """Send bytes; raises GuestFailed when the connection is gone."""
        if data:
            await self.stream.write(data)

    def next(self) -> Event:
        """Give the next event of the answer, NEED_DATA when ``receive`` has to be called first.

        Raises:
            GuestFailed: the server does not speak HTTP, or ended in the middle.
        """
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise broken(str(error)) from error
        if isinstance(event, h11.ConnectionClosed):
            raise broken("it closed the connection without an answer")
        # h11 bounds only heads that are not whole yet.
        if isinstance(event, _HEADED) and sum(len(name) + len(value) for name, value in event.headers) > MAX_HEAD_BYTES:
            raise broken(f"its head has more than {MAX_HEAD_BYTES} bytes")
        return event

    async def receive(self) -> None:
        """Wait for bytes; raises GuestFailed when the connection is gone."""
        data = await self.stream.read(READ_BYTES)
        if data:
            self.has_answered = True
        self._http.receive_data(data)

    async def plain_body(self, length: int) -> AsyncGenerator[bytes, None]:
        """Give a body whose length is known, past h11: there is nothing to judge in it. ``next`` is of no use then.

        Raises:
            GuestFailed: the connection ended before the body did.
        """
        self._plain_left = length
        data = self.surplus()
        while True:
            if len(data) > self._plain_left:
                self._plain_left, data = -1, data[: self._plain_left]
                yield data
                return
            self._plain_left -= len(data)
            if data:
                yield data
            if not self._plain_left:
                return
            data = await self.stream.read(READ_BYTES)
            if not data:
                raise broken("it ended in the middle of a body")

    def surplus(self) -> bytes:
        """Give what came behind the answer: after an upgrade it belongs to the new protocol."""
        unread: bytes = self._http.trailing_data[0]
        return unread

    def renew(self) -> bool:
        """Make it ready for another request; False when it cannot take one."""
        if self._http.our_state is not h11.DONE or self.stream.is_readable():
            return False
        if self._plain_left is None:
            if self._http.their_state is not h11.DONE or self.surplus():
                return False
            self._http.start_next_cycle()
        elif self._plain_left:
            return False
        else:
            self._http = _fresh()
        self.is_reused, self.has_answered, self._plain_left = True, False, None
        return True

    def close(self) -> None:
        self.stream.close()


class Upstreams:
    """The connections that wait for another request, the latest used first."""

    def __init__(self, *, kept_s: float = KEPT_S, kept_per_port: int = MAX_KEPT_PER_PORT) -> None:
        self._kept_s = kept_s
        self._kept_per_port = kept_per_port
        self._idle: OrderedDict[Upstream, asyncio.TimerHandle] = OrderedDict()
        self._by_key: dict[tuple[str, int], list[Upstream]] = {}

    def __len__(self) -> int:
        return len(self._idle)

    async def open(self, sandbox_id: str, guest: Guest, port: int, *, fresh: bool = False) -> Upstream:
        """Give a connection to a port of a sandbox; ``fresh``: not one that was used before.

        Raises:
            GuestFailed: nothing listens there, or the guest misbehaves.
            TimedOut: the guest did not answer.
        """
        key = (sandbox_id, port)
        while not fresh and (kept := self._by_key.get(key)):
            upstream = kept[-1]
            self._forget(upstream)
            if upstream.guest is guest and not upstream.stream.is_readable():
                return upstream
            upstream.close()
        try:
            return Upstream(await guest.forward(port), guest, key)
        except Unavailable as error:
            raise GuestFailed(error.brief, details=error.details, resolution=error.resolution) from error

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request, or close it where it cannot take one."""
        kept = self._by_key.get(upstream.key, [])
        if not self._kept_per_port or not upstream.renew():
            upstream.close()
            return
        if len(kept) >= self._kept_per_port:
            self._drop(kept[0])
        elif len(self._idle) >= MAX_KEPT:
            self._drop(next(iter(self._idle)))
        loop = asyncio.get_running_loop()
        self._idle[upstream] = loop.call_later(self._kept_s, self._drop, upstream)
        self._by_key.setdefault(upstream.key, []).append(upstream)

    def close(self) -> None:
        """Close all that wait."""
        while self._idle:
            self._drop(next(iter(self._idle)))

    def _drop(self, upstream: Upstream) -> None:
        self._forget(upstream)
        upstream.close()

    def _forget(self, upstream: Upstream) -> None:
        self._idle.pop(upstream).cancel()
        kept = self._by_key[upstream.key]
        with contextlib.suppress(ValueError):
            kept.remove(upstream)
        if not kept:
            del self._by_key[upstream.key]


def _fresh() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)


def broken(how: str) -> GuestFailed:
    """Give the error for a server that does not answer as HTTP demands."""
    return GuestFailed(
        "the server in the sandbox broke the protocol",
        details=printable(how),
        resolution="look at that server's own log",
    )
