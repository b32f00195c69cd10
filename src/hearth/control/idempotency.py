"""Requests with an Idempotency-Key: done once, whoever repeats them, and answered the same for a day.

What is kept is sealed with a key derived from the data directory's secret, which is not in the database: answers may
hold what is shown once, such as a new API key.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from nacl.exceptions import CryptoError
from nacl.secret import Aead

from hearth.errors import Conflict, HearthError
from hearth.host.clock import Clock
from hearth.store.answer_store import Answer, AnswerStore

log = structlog.get_logger(__name__)

MAX_KEPT_BYTES = 1_048_576
"""A longer answer is given and not kept: a repetition would do its work again."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was answered. Only successes are kept: what failed may be tried again with the same key."""

    status: int
    body: bytes

    @property
    def is_kept(self) -> bool:
        return 200 <= self.status < 300 and len(self.body) <= MAX_KEPT_BYTES


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: whose, under which key, and the SHA-256 of what was asked, in hex."""

    user_id: str
    key: str
    digest: str


Work = Callable[[str], Awaitable[Outcome]]
"""Does what was asked. It is given text that is the same for each attempt at this request and no other, in hex."""


class Idempotency:
    """The requests with a key that are under way, and the answers to those that were.

    Args:
        secret: the data directory's.
        run: names this run of the daemon; never the same twice.
    """

    def __init__(self, store: AnswerStore, *, clock: Clock, secret: bytes, run: str) -> None:
        self._store = store
        self._clock = clock
        self._run = run
        self._box = Aead(hmac.digest(secret, b"answers to requests with an Idempotency-Key", "sha256"))
        self._flights: dict[tuple[str, str], asyncio.Event] = {}

    async def once(self, asked: Asked, work: Work) -> tuple[Outcome, bool]:
        """Do ``work`` unless it was done before; give what came of it, and whether it was done before.

        Of several at once one does it and the others wait. Work that fails, or raises, leaves no trace.

        Raises:
            Conflict: the key was used for something else, or its answer cannot be read any more.
        """
        key = hashlib.sha256(asked.key.encode()).hexdigest()
        while (flight := self._flights.get((asked.user_id, key))) is not None:
            await flight.wait()
        self._flights[asked.user_id, key] = asyncio.Event()
        try:
            return await self._once(asked, key, work)
        finally:
            self._flights.pop((asked.user_id, key)).set()

    async def _once(self, asked: Asked, key: str, work: Work) -> tuple[Outcome, bool]:
        mine = await self._store.begin(
            Answer(
                user_id=asked.user_id,
                key=key,
                digest=asked.digest,
                holder=self._run,
                created_at=self._clock.now(),
            )
        )
        if mine.digest != asked.digest:
            raise Conflict(
                "the idempotency key was used for another request",
                details=f"{asked.key[:80]!r} came with another path or body within the last 24 hours",
                resolution="use a new key for each request, and the same key only to repeat one",
                field="Idempotency-Key",
            )
        if mine.status is not None:
            return self._open(mine, mine.status), True
        try:
            outcome = await work(hashlib.sha256(f"{mine.user_id} {key} {mine.created_at}".encode()).hexdigest())
        except BaseException:
            # Also where the daemon stops: what was begun is undone then.
            await asyncio.shield(self._forget(mine))
            raise
        if outcome.is_kept:
            await self._keep(mine, outcome)
        else:
            await self._forget(mine)
        return outcome, False

    async def _keep(self, mine: Answer, outcome: Outcome) -> None:
        try:
            sealed = bytes(self._box.encrypt(outcome.body, _context(mine)))
            await self._store.finish(mine, status=outcome.status, sealed=sealed)
        except HearthError as error:
            # The work is done: its caller shall hear of it, even where a repetition will not.
            log.error("an answer could not be kept", error=str(error))

    async def _forget(self, mine: Answer) -> None:
        try:
            await self._store.forget(mine)
        except HearthError as error:
            log.warning("a request that came to nothing is still noted", error=str(error))

    def _open(self, known: Answer, status: int) -> Outcome:
        try:
            return Outcome(status=status, body=self._box.decrypt(known.sealed or b"", _context(known)))
        except CryptoError as error:
            raise Conflict(
                "the answer to this idempotency key cannot be read any more",
                details="it was kept by a daemon with another secret in its data directory",
                resolution="see whether what you wanted is there; use a new key if it is not",
                field="Idempotency-Key",
            ) from error


def _context(answer: Answer) -> bytes:
    return f"{answer.user_id} {answer.key} {answer.digest}".encode()
