"""Answers to requests with an Idempotency-Key in SQL; the primary key decides who was first."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hearth.host.clock import Clock
from hearth.store import refusals
from hearth.store.answer_store import ANSWERS_KEPT_FOR, ANSWERS_KEPT_PER_USER, Answer, check_host
from hearth.store.database import Database
from hearth.store.rows import AnyRow
from hearth.store.schema import answers


class SqlAnswers:
    """``AnswerStore`` over a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, wanted: Answer) -> Answer:
        surplus = (
            select(answers.c.key)
            .where(answers.c.user_id == wanted.user_id, answers.c.status.is_not(None))
            .order_by(answers.c.created_at.desc())
            .offset(ANSWERS_KEPT_PER_USER)
        )
        row = {
            "user_id": wanted.user_id,
            "key": wanted.key,
            "digest": wanted.digest,
            "holder": wanted.holder,
            "created_at": wanted.created_at,
        }

        def work(connection: Connection) -> Answer:
            connection.execute(delete(answers).where(answers.c.created_at <= self._clock.now() - ANSWERS_KEPT_FOR))
            connection.execute(delete(answers).where(answers.c.user_id == wanted.user_id, answers.c.key.in_(surplus)))
            found = connection.execute(select(answers).where(*_place(wanted)).with_for_update()).first()
            if found is None:
                connection.execute(insert(answers), row)
                return wanted
            known = _answer_of(found)
            if known.status is None and known.holder != wanted.holder and known.digest == wanted.digest:
                check_host(known, wanted)
                connection.execute(update(answers).where(*_place(wanted)).values(holder=wanted.holder))
                return replace(wanted, created_at=known.created_at)
            return known

        try:
            return await self._database.write(work)
        except IntegrityError as error:
            raise refusals.not_found("user", wanted.user_id) from error

    async def finish(self, mine: Answer, *, status: int, sealed: bytes) -> None:
        statement = update(answers).where(*_place(mine), answers.c.holder == mine.holder)
        await self._database.write(
            lambda connection: connection.execute(statement.values(status=status, sealed=sealed))
        )

    async def forget(self, mine: Answer) -> None:
        statement = delete(answers).where(*_place(mine), answers.c.holder == mine.holder, answers.c.status.is_(None))
        await self._database.write(lambda connection: connection.execute(statement))


def _place(answer: Answer) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return answers.c.user_id == answer.user_id, answers.c.key == answer.key


def _answer_of(row: AnyRow) -> Answer:
    return Answer(
        user_id=row.user_id,
        key=row.key,
        digest=row.digest,
        holder=row.holder,
        created_at=row.created_at,
        status=row.status,
        sealed=row.sealed,
    )
