"""What every store promises for answers to requests that carry an Idempotency-Key."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from hearth.errors import NotFound
from hearth.host.clock import ManualClock
from hearth.model import User
from hearth.store.answer_store import ANSWERS_KEPT_FOR, Answer
from hearth.store.base import Store


def asked(clock: ManualClock, user: User, *, key: str = "k", digest: str = "d", holder: str = "run-1") -> Answer:
    return Answer(user_id=user.id, key=key, digest=digest, holder=holder, created_at=clock.now())


async def test_the_first_of_a_key_is_remembered_and_its_answer_given_to_the_others(
    store: Store, clock: ManualClock, ada: User
) -> None:
    first = asked(clock, ada)
    assert await store.answers.begin(first) == first

    await store.answers.finish(first, status=201, sealed=b"sealed")

    known = await store.answers.begin(asked(clock, ada, digest="another"))
    assert (known.digest, known.status, known.sealed, known.created_at) == ("d", 201, b"sealed", first.created_at)


async def test_of_many_that_begin_at_once_one_is_the_first(store: Store, clock: ManualClock, ada: User) -> None:
    wanted = [asked(clock, ada, digest=f"d{number}") for number in range(8)]
    found = await asyncio.gather(*(store.answers.begin(each) for each in wanted))
    assert len({each.digest for each in found}) == 1


async def test_keys_are_each_users_own(store: Store, clock: ManualClock, ada: User, bob: User) -> None:
    mine = await store.answers.begin(asked(clock, ada))
    await store.answers.finish(mine, status=201, sealed=b"of ada")

    theirs = await store.answers.begin(asked(clock, bob))
    assert (theirs.user_id, theirs.status) == (bob.id, None)


async def test_what_came_to_nothing_may_be_asked_again(store: Store, clock: ManualClock, ada: User) -> None:
    await store.answers.forget(await store.answers.begin(asked(clock, ada)))
    again = asked(clock, ada, digest="another")
    assert await store.answers.begin(again) == again


async def test_an_answer_that_is_there_is_not_forgotten_by_mistake(store: Store, clock: ManualClock, ada: User) -> None:
    mine = await store.answers.begin(asked(clock, ada))
    await store.answers.finish(mine, status=201, sealed=b"s")
    await store.answers.forget(mine)
    assert (await store.answers.begin(asked(clock, ada))).status == 201


async def test_a_dead_runs_request_is_taken_over_by_the_same_and_not_by_another(
    store: Store, clock: ManualClock, ada: User
) -> None:
    begun_at = clock.now()
    await store.answers.begin(asked(clock, ada))
    clock.advance(60)

    other = await store.answers.begin(asked(clock, ada, digest="another", holder="run-2"))
    assert (other.digest, other.holder) == ("d", "run-1")
    taken = await store.answers.begin(asked(clock, ada, holder="run-2"))
    assert (taken.holder, taken.created_at) == ("run-2", begun_at)
    await store.answers.finish(taken, status=200, sealed=b"s")
    assert (await store.answers.begin(asked(clock, ada, holder="run-2"))).status == 200


async def test_an_answer_is_kept_for_a_day(store: Store, clock: ManualClock, ada: User) -> None:
    mine = await store.answers.begin(asked(clock, ada))
    await store.answers.finish(mine, status=201, sealed=b"s")
    clock.advance((ANSWERS_KEPT_FOR - timedelta(seconds=1)).total_seconds())
    assert (await store.answers.begin(asked(clock, ada))).status == 201
    clock.advance(1)
    assert (await store.answers.begin(asked(clock, ada))).status is None


async def test_a_user_without_a_row_has_no_answers(store: Store, clock: ManualClock) -> None:
    with pytest.raises(NotFound):
        await store.answers.begin(asked(clock, User(id="user-nobody", name="nobody")))
