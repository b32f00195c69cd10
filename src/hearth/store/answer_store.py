"""What every store offers for answers to requests that carry an Idempotency-Key, so that a repetition does nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from hearth.errors import Conflict

ANSWERS_KEPT_FOR = timedelta(hours=24)
ANSWERS_KEPT_PER_USER = 10_000
"""Of those that are there the oldest go first."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request and what came of it.

    Args:
        key: the SHA-256 of the Idempotency-Key, in hex.
        digest: the SHA-256 of what was asked, in hex.
        holder: the run of the daemon that does it, or did; before a slash its host.
        status: the HTTP status; None while it is under way.
        sealed: the answer's body, sealed.
    """

    user_id: str
    key: str
    digest: str
    holder: str
    created_at: datetime
    status: int | None = None
    sealed: bytes | None = field(default=None, repr=False)


class UnderWayElsewhere(Conflict):
    """A daemon of another host does what was asked; it may have an answer in a moment."""


def check_host(known: Answer, wanted: Answer) -> None:
    """Refuse to take over what may be alive.

    Raises:
        UnderWayElsewhere: it is another host's.
    """
    if known.holder.rpartition("/")[0] != wanted.holder.rpartition("/")[0]:
        raise UnderWayElsewhere(
            "the request is under way at another daemon",
            details="somebody sent it there with this idempotency key; it has not been answered yet",
            resolution="repeat it there, or see whether what you wanted is there",
            field="Idempotency-Key",
        )


class AnswerStore(Protocol):
    """Answers, of each user by key, for ANSWERS_KEPT_FOR."""

    async def begin(self, wanted: Answer) -> Answer:
        """Remember that a request is under way, unless one with its key is known; give the one that is.

        One whose ``holder`` is another run on the same host is that of a dead one: nobody else may have the data
        directory. Where it is not there yet and was asked the same, ``wanted`` takes it over, and keeps its
        ``created_at``.

        Raises:
            NotFound: no such user.
            UnderWayElsewhere: a daemon of another host does it.
        """
        ...

    async def finish(self, mine: Answer, *, status: int, sealed: bytes) -> None:
        """Remember the answer to a request that is under way; forgotten ones stay so."""
        ...

    async def forget(self, mine: Answer) -> None:
        """Forget a request that came to nothing, so that it may be made again."""
        ...
