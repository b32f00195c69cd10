"""Answers to requests with an Idempotency-Key in memory."""

from __future__ import annotations

from dataclasses import replace

from hearth.host.clock import Clock
from hearth.store import refusals
from hearth.store.answer_store import ANSWERS_KEPT_FOR, ANSWERS_KEPT_PER_USER, Answer, check_host
from hearth.store.memory_tables import Tables


class MemoryAnswers:
    """``AnswerStore`` in memory."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def begin(self, wanted: Answer) -> Answer:
        if wanted.user_id not in self._tables.users:
            raise refusals.not_found("user", wanted.user_id)
        answers, oldest = self._tables.answers, self._clock.now() - ANSWERS_KEPT_FOR
        for place in [place for place, each in answers.items() if each.created_at <= oldest]:
            del answers[place]
        there = [each for each in answers.values() if each.user_id == wanted.user_id and each.status is not None]
        for each in sorted(there, key=lambda each: each.created_at)[:-ANSWERS_KEPT_PER_USER]:
            del answers[each.user_id, each.key]
        known = answers.get((wanted.user_id, wanted.key))
        if known is not None and (known.status is not None or known.digest != wanted.digest):
            return known
        if known is not None and known.holder == wanted.holder:
            return known
        if known is not None:
            check_host(known, wanted)
        mine = wanted if known is None else replace(wanted, created_at=known.created_at)
        answers[wanted.user_id, wanted.key] = mine
        return mine

    async def finish(self, mine: Answer, *, status: int, sealed: bytes) -> None:
        if (known := self._mine(mine)) is not None:
            self._tables.answers[mine.user_id, mine.key] = replace(known, status=status, sealed=sealed)

    async def forget(self, mine: Answer) -> None:
        if (known := self._mine(mine)) is not None and known.status is None:
            del self._tables.answers[mine.user_id, mine.key]

    def _mine(self, mine: Answer) -> Answer | None:
        known = self._tables.answers.get((mine.user_id, mine.key))
        return known if known is not None and known.holder == mine.holder else None
