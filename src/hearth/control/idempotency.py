"""Requests with an Idempotency-Key: done once, whoever repeats them, and answered the same for a day.

What is kept is sealed, with a key derived from the master key, or from the data directory's secret where there is none:
neither is in the database, and answers may hold what is shown once, such as a new API key. Daemons of one database that
have the same master key give each other's answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from nacl.exceptions import CryptoError
from nacl.secret import Aead

from hearth.control.vault import Vault
from hearth.errors import Conflict, HearthError
from hearth.host.clock import Clock
from hearth.store.answer_store import Answer, AnswerStore, UnderWayElsewhere

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


PURPOSE = b"answers to requests with an Idempotency-Key"
ELSEWHERE_WAIT_S = 10.0
"""For the answer of another host's daemon that was asked the same; what takes longer is not waited for."""
FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0

Work = Callable[[str], Awaitable[Outcome]]
"""Does what was asked. It is given text that is the same for each attempt at this request and no other, in hex."""


class Idempotency:
    """The requests with a key that are under way, and the answers to those that were.

    Args:
        secret: the data directory's.
        vault: has the master key.
        run: names this run of the daemon; never the same twice.
    """

    def __init__(self, store: AnswerStore, *, clock: Clock, secret: bytes, vault: Vault, run: str) -> None:
        self._store = store
        self._clock = clock
        self._run = run
        self._own_key = hmac.digest(secret, PURPOSE, "sha256")
        self._vault = vault
        self._flights: dict[tuple[str, str], asyncio.Event] = {}

    async def once(self, asked: Asked, work: Work) -> tuple[Outcome, bool]:
        """Do ``work`` unless it was done before; give what came of it, and whether it was done before.

        Of several at once one does it and the others wait, a while for one at another host, too. Work that fails, or
        raises, leaves no trace.

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
        mine = await self._begin(asked, key)
        if mine.digest != asked.digest:
            raise Conflict(
                "the idempotency key was used for another request",
                details=f"{asked.key[:80]!r} came with another path or body within the last 24 hours",
                resolution="use a new key for each request, and the same key only to repeat one",
                field="Idempotency-Key",
            )
        if mine.status is not None:
            return await self._open(mine, mine.status), True
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

    async def _begin(self, asked: Asked, key: str) -> Answer:
        """Note that a request is under way, or give what is known of it; another host's answer is waited for."""
        until_s, pause_s = self._clock.monotonic() + ELSEWHERE_WAIT_S, FIRST_LOOK_S
        while True:
            now = self._clock.now()
            wanted = Answer(user_id=asked.user_id, key=key, digest=asked.digest, holder=self._run, created_at=now)
            try:
                return await self._store.begin(wanted)
            except UnderWayElsewhere:
                if self._clock.monotonic() >= until_s:
                    raise
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_LOOK_S)

    async def _keep(self, mine: Answer, outcome: Outcome) -> None:
        try:
            sealed = bytes(Aead((await self._keys())[0]).encrypt(outcome.body, _context(mine)))
            await self._store.finish(mine, status=outcome.status, sealed=sealed)
        except HearthError as error:
            # The work is done: its caller shall hear of it, even where a repetition will not.
            log.error("an answer could not be kept", error=str(error))

    async def _forget(self, mine: Answer) -> None:
        try:
            await self._store.forget(mine)
        except HearthError as error:
            log.warning("a request that came to nothing is still noted", error=str(error))

    async def _open(self, known: Answer, status: int) -> Outcome:
        for key in await self._keys():
            with contextlib.suppress(CryptoError):  # another of them may be the right one
                return Outcome(status=status, body=Aead(key).decrypt(known.sealed or b"", _context(known)))
        raise Conflict(
            "the answer to this idempotency key cannot be read",
            details="it was kept by a daemon with another master key, or with another one then",
            resolution="see whether what you wanted is there; use a new key if it is not",
            field="Idempotency-Key",
        )

    async def _keys(self) -> Sequence[bytes]:
        """Give what answers may be sealed with, what they are sealed with now first."""
        return [*await self._vault.derived(PURPOSE), self._own_key]


def _context(answer: Answer) -> bytes:
    return f"{answer.user_id} {answer.key} {answer.digest}".encode()
