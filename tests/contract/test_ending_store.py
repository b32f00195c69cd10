"""What every store of endings promises: a cause outlives its sandbox, and the past does not grow without end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hearth.errors import NotFound
from hearth.host.clock import ManualClock
from hearth.model import Ending, ExitCause, ExitKind, User
from hearth.store.base import ENDINGS_KEPT_FOR, ENDINGS_KEPT_PER_OWNER, PageRequest, Store


def ended(clock: ManualClock, sandbox_id: str, name: str = "web", *, owner: str = "user-ada") -> Ending:
    """A sandbox that ended now."""
    cause = ExitCause(
        kind=ExitKind.GUEST_OOM,
        detail="the guest ran out of memory",
        process="python3",
        console=("Out of memory: Killed process 7 (python3)", "reboot"),
        at=clock.now(),
    )
    return Ending(
        sandbox_id=sandbox_id,
        owner=owner,
        name=name,
        image="debian",
        cpus=2,
        memory_mib=512,
        created_at=clock.now() - timedelta(hours=1),
        ended_at=clock.now(),
        exit_cause=cause,
    )


async def ids(store: Store, owner: str | None) -> list[str]:
    return [ending.sandbox_id for ending in (await store.endings.list(owner)).items]


async def test_an_ending_reads_back_as_it_was_written(store: Store, ada: User, clock: ManualClock) -> None:
    ending = ended(clock, "sb-1")
    await store.endings.record(ending)
    assert await store.endings.find(ada.id, "sb-1") == ending
    assert (await store.endings.list(ada.id)).items == [ending]


async def test_of_one_sandbox_the_first_word_counts(store: Store, ada: User, clock: ManualClock) -> None:
    first = ended(clock, "sb-1")
    await store.endings.record(first)
    clock.advance(5)
    await store.endings.record(ended(clock, "sb-1"))
    assert (await store.endings.list(None)).items == [first]


async def test_a_name_finds_the_last_that_bore_it_and_an_id_goes_before(
    store: Store, ada: User, bob: User, clock: ManualClock
) -> None:
    for sandbox_id, name, owner in (
        ("sb-1", "web", ada.id),
        ("sb-2", "web", ada.id),
        ("sb-3", "web", bob.id),
        ("sb-4", "sb-1", ada.id),
    ):
        await store.endings.record(ended(clock, sandbox_id, name, owner=owner))
        clock.advance(1)
    assert (await store.endings.find(ada.id, "web")).sandbox_id == "sb-2"
    assert (await store.endings.find(None, "web")).sandbox_id == "sb-3"
    assert (await store.endings.find(ada.id, "sb-1")).sandbox_id == "sb-1"
    for reference in ("sb-3", "nothing"):
        with pytest.raises(NotFound, match=reference):
            await store.endings.find(ada.id, reference)


async def test_a_list_is_an_owners_and_comes_in_pages_that_split_one_moment(
    store: Store, ada: User, bob: User, clock: ManualClock
) -> None:
    for sandbox_id in ("sb-b", "sb-a", "sb-c"):
        await store.endings.record(ended(clock, sandbox_id))
    await store.endings.record(ended(clock, "sb-d", owner=bob.id))
    first = await store.endings.list(ada.id, page=PageRequest(limit=2))
    second = await store.endings.list(ada.id, page=PageRequest(limit=2, cursor=first.next_cursor))
    assert [[ending.sandbox_id for ending in page.items] for page in (first, second)] == [["sb-a", "sb-b"], ["sb-c"]]
    assert second.next_cursor is None
    assert await ids(store, None) == ["sb-a", "sb-b", "sb-c", "sb-d"]


async def test_what_is_too_old_is_not_found_any_more(store: Store, ada: User, clock: ManualClock) -> None:
    await store.endings.record(ended(clock, "sb-old"))
    clock.advance(ENDINGS_KEPT_FOR.total_seconds() - 1)
    await store.endings.record(ended(clock, "sb-new", "new"))
    assert await ids(store, ada.id) == ["sb-old", "sb-new"]
    clock.advance(1)
    assert await ids(store, ada.id) == ["sb-new"]
    for reference in ("sb-old", "web"):
        with pytest.raises(NotFound):
            await store.endings.find(ada.id, reference)
    await store.endings.record(ended(clock, "sb-newer"))
    assert await ids(store, ada.id) == ["sb-new", "sb-newer"]


async def test_an_owner_with_too_many_loses_the_oldest_and_nobody_else_any(
    store: Store, ada: User, bob: User, clock: ManualClock
) -> None:
    await store.endings.record(ended(clock, "sb-bob", owner=bob.id))
    for number in range(ENDINGS_KEPT_PER_OWNER + 2):
        clock.advance(1)
        await store.endings.record(ended(clock, f"sb-{number:04}"))
    page = await store.endings.list(ada.id, page=PageRequest(limit=ENDINGS_KEPT_PER_OWNER))
    assert len(page.items) == ENDINGS_KEPT_PER_OWNER
    assert page.next_cursor is None
    assert page.items[0].sandbox_id == "sb-0002"
    assert await ids(store, bob.id) == ["sb-bob"]


async def test_an_owner_must_exist_and_takes_the_past_along(store: Store, ada: User, clock: ManualClock) -> None:
    with pytest.raises(NotFound, match="user-x"):
        await store.endings.record(ended(clock, "sb-1", owner="user-x"))
    await store.endings.record(ended(clock, "sb-1"))
    await store.users.delete(ada.id)
    assert await ids(store, None) == []
