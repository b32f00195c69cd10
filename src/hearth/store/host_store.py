"""What every store offers for the hosts whose daemons use it: who is there, and that nobody is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from hearth.errors import Conflict

ALONE = "alone"
"""The host of a store that nobody named one for."""
ANY_HOST = "*"
"""Stands where a host's id does for jobs that any daemon may do."""
SILENT_AFTER = timedelta(seconds=60)
"""A daemon that was not heard of for so long counts as ended."""
BEAT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """A data directory and the daemon that has it.

    Args:
        id: the data directory's, for good.
        name: what the machine is called, for people.
        tag: marks this directory in this boot: a copy of it has another.
        run: the daemon's present run.
        seen_at: when it was last heard of; None when it ended in order.
    """

    id: str
    name: str
    tag: str
    run: str
    seen_at: datetime | None = None


class HostStore(Protocol):
    """Hosts. Times are reckoned by the store's clock."""

    async def enter(self, host: Host, *, is_shared: bool = True) -> None:
        """Speak for a host from now on.

        Args:
            is_shared: others may use this store; in one that lies in the host's own directory there is nobody else.

        Raises:
            Conflict: a daemon with another ``tag`` did so within SILENT_AFTER: the directory was copied.
        """
        ...

    async def beat(self, host: Host) -> bool:
        """Say that the daemon lives; False when another speaks for its host."""
        ...

    async def leave(self, host: Host) -> None:
        """Say that the daemon ends."""
        ...

    async def list(self) -> Sequence[Host]:
        """Give all hosts there ever were, by name."""
        ...


def spoken_for(known: Host) -> Conflict:
    """Say that two daemons would be the same host."""
    return Conflict(
        "another daemon speaks for this host",
        details=f"{known.id} was heard of at {known.seen_at:%H:%M:%S} UTC on {known.name}, with another data directory",
        resolution=(
            "was the data directory copied? Then delete host.id in the copy; else wait a minute:"
            " the host may have been restarted"
        ),
    )


def is_taken(known: Host, host: Host, now: datetime) -> bool:
    """Tell whether somebody else speaks for a host."""
    return known.tag != host.tag and known.seen_at is not None and known.seen_at > now - SILENT_AFTER
