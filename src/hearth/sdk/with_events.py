"""The ways to events that both clients have; what is behind them is loaded at its first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hearth.sdk.async_events import AsyncEvents
    from hearth.sdk.async_transport import AsyncTransport
    from hearth.sdk.events import Events
    from hearth.sdk.transport import Transport


class WithEvents:
    """A blocking client that tells what happens."""

    _transport: Transport

    @property
    def events(self) -> Events:
        """What happens, as it happens, and jobs.

        >>> any(event.type == "sandbox.running" for event in client.events.follow(after="oldest", follow=False))
        True
        """
        found: Events = import_module("hearth.sdk.events").Events(self, self._transport)
        return found


class WithAsyncEvents:
    """An asynchronous client that tells what happens."""

    _transport: AsyncTransport

    @property
    def events(self) -> AsyncEvents:
        """What happens, as it happens, and jobs.

        >>> "completed" in [job.status for job in await client.events.jobs()]
        True
        """
        found: AsyncEvents = import_module("hearth.sdk.async_events").AsyncEvents(self, self._transport)
        return found
