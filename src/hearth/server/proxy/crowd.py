"""How many connections one address may hold open: whoever takes them all shuts everybody else out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hearth.control.buckets import Crowd, subscriber
from hearth.server.proxy.door import Door
from hearth.server.proxy.trust import Trust

MAX_PER_ADDRESS = 768
"""Requests of one subscriber under way (512) and idle connections beside them."""


class Visitors:
    """Who is connected; a trusted proxy stands for many."""

    def __init__(self, trust: Trust, *, limit: int = MAX_PER_ADDRESS) -> None:
        self._trust = trust
        self._crowd = Crowd(limit)

    def __len__(self) -> int:
        """How many subscribers are connected."""
        return len(self._crowd)

    def enter(self, address: str) -> contextlib.ExitStack | None:
        """Count a connection in, until what is given is closed; None when there are as many as may be."""
        with contextlib.ExitStack() as stay:
            if not self._trust.covers(address) and not stay.enter_context(self._crowd.entered(subscriber(address))):
                return None
            return stay.pop_all()


class AddressDoor(Door):
    """A connection of somebody from outside."""

    def __init__(self, visitors: Visitors, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._visitors = visitors
        self._stay: contextlib.ExitStack | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stay = None if self.client is None else self._visitors.enter(self.client[0])
        if self.client is not None and self._stay is None:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stay is not None:
            self._stay.close()
        super().connection_lost(exc)
