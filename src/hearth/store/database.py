"""What the stores stand on: functions of a connection, each run in a transaction of its own, off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class Database(Protocol):
    """A database. ``sqlite_database`` and ``postgresql_database`` have one each."""

    @property
    def name(self) -> str:
        """Tell which one it is, without secrets: for logs and errors."""
        ...

    @property
    def is_shared(self) -> bool:
        """Tell whether daemons of other data directories may use it at the same time."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which must not write; its rows must be fetched inside. Each statement sees the newest commit.

        Raises:
            Unavailable, StoreDamaged, HostUnfit: what the database reported, translated.
        """
        ...

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` and commit, or roll back when it raises; it may be run again where nothing of it was stored.

        A caller that is cancelled waits until the transaction has ended: nothing of it happens afterwards.

        Raises:
            NoSpace, Unavailable, StoreDamaged, HostUnfit: what the database reported, translated.
        """
        ...

    async def close(self) -> None:
        """Let the work in line end, then let go of the database; doing it twice is fine."""
        ...
