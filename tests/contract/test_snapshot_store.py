"""What every store of named checkpoints promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from hearth.errors import Conflict, NotFound
from hearth.host.clock import ManualClock
from hearth.model import Snapshot, SnapshotState, User
from hearth.store.base import PageRequest, SnapshotNeeded, Store

CREATING, READY, DELETING = SnapshotState.CREATING, SnapshotState.READY, SnapshotState.DELETING
Make = Callable[..., Snapshot]


@pytest.fixture
def make(clock: ManualClock, ada: User) -> Make:
    """Makes checkpoints of ada's, each a second younger than the one before."""
    count = 0

    def make_one(name: str, *, owner: str = ada.id, parent: str | None = None, sandbox: str = "web") -> Snapshot:
        nonlocal count
        count += 1
        return Snapshot(
            id=f"snap-{count}",
            owner=owner,
            name=name,
            sandbox_id=f"sb-{sandbox}",
            sandbox_name=sandbox,
            parent=parent,
            created_at=clock.now() + timedelta(seconds=count),
            image="debian",
            cpus=2,
            memory_mib=512,
        )

    return make_one


async def test_a_checkpoint_reads_back_as_it_was_written(store: Store, make: Make) -> None:
    parent = make("base")
    await store.snapshots.create(parent)
    child = replace(make("after-install", parent=parent.id), size_bytes=3 * 2**40, state=READY)
    await store.snapshots.create(child)
    assert await store.snapshots.get(parent.id) == parent
    assert await store.snapshots.get(child.id) == child


async def test_a_name_is_one_owners_once(store: Store, make: Make, bob: User) -> None:
    await store.snapshots.create(make("base"))
    await store.snapshots.create(make("base", owner=bob.id))
    with pytest.raises(Conflict, match="base"):
        await store.snapshots.create(make("base"))
    assert len((await store.snapshots.list(None)).items) == 2


async def test_of_many_racing_for_a_name_one_wins(store: Store, make: Make) -> None:
    attempts = [store.snapshots.create(make("base")) for _ in range(20)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19


async def test_a_taken_id_an_unknown_owner_and_an_unknown_parent_are_refused(store: Store, make: Make) -> None:
    first = make("base")
    await store.snapshots.create(first)
    with pytest.raises(Conflict):
        await store.snapshots.create(replace(make("other"), id=first.id))
    with pytest.raises(NotFound, match="user"):
        await store.snapshots.create(make("other", owner="user-x"))
    with pytest.raises(NotFound, match="snap-x"):
        await store.snapshots.create(make("other", parent="snap-x"))
    assert (await store.snapshots.list(None)).items == [first]


async def test_a_reference_is_an_id_or_a_name_of_the_owner(store: Store, make: Make, ada: User, bob: User) -> None:
    mine, theirs = make("base"), make("theirs", owner=bob.id)
    for snapshot in (mine, theirs):
        await store.snapshots.create(snapshot)
    assert await store.snapshots.resolve(ada.id, "base") == mine
    assert await store.snapshots.resolve(ada.id, mine.id) == mine
    assert await store.snapshots.resolve(None, "theirs") == theirs
    for reference in ("theirs", theirs.id, "nothing"):
        with pytest.raises(NotFound):
            await store.snapshots.resolve(ada.id, reference)


async def test_a_name_of_several_owners_is_ambiguous_for_an_administrator(store: Store, make: Make, bob: User) -> None:
    await store.snapshots.create(make("base"))
    await store.snapshots.create(make("base", owner=bob.id))
    with pytest.raises(Conflict, match="snapshot's id"):
        await store.snapshots.resolve(None, "base")


async def test_one_that_is_being_deleted_gives_its_name_free(store: Store, make: Make, ada: User) -> None:
    old = make("base")
    await store.snapshots.create(old)
    await store.snapshots.transition(old.id, {CREATING}, DELETING)
    with pytest.raises(NotFound):
        await store.snapshots.resolve(ada.id, "base")
    new = make("base")
    await store.snapshots.create(new)
    assert await store.snapshots.resolve(ada.id, "base") == new
    assert (await store.snapshots.resolve(ada.id, old.id)).state is DELETING
    with pytest.raises(Conflict):
        await store.snapshots.transition(old.id, {DELETING}, READY)
    assert (await store.snapshots.get(old.id)).state is DELETING


async def test_a_list_is_filtered_and_comes_in_pages(store: Store, make: Make, ada: User, bob: User) -> None:
    for name in "abc":
        await store.snapshots.create(make(name))
    await store.snapshots.create(make("d", sandbox="db"))
    await store.snapshots.create(make("e", owner=bob.id))
    await store.snapshots.transition((await store.snapshots.resolve(ada.id, "b")).id, {CREATING}, READY)

    async def names(**filters: object) -> list[str]:
        page = await store.snapshots.list(ada.id, **filters)  # type: ignore[arg-type]
        return [snapshot.name for snapshot in page.items]

    assert await names() == ["a", "b", "c", "d"]
    assert await names(sandbox_id="sb-db") == ["d"]
    assert await names(states=(READY, DELETING)) == ["b"]
    first = await store.snapshots.list(ada.id, page=PageRequest(limit=3))
    second = await store.snapshots.list(ada.id, page=PageRequest(limit=3, cursor=first.next_cursor))
    assert [snapshot.name for snapshot in second.items] == ["d"]
    assert second.next_cursor is None


async def test_a_transition_sets_state_and_size_and_keeps_a_size_it_is_not_told(store: Store, make: Make) -> None:
    snapshot = make("base")
    await store.snapshots.create(snapshot)
    ready = await store.snapshots.transition(snapshot.id, {CREATING}, READY, size_bytes=5_000_000_000)
    assert (ready.state, ready.size_bytes) == (READY, 5_000_000_000)
    gone = await store.snapshots.transition(snapshot.id, {READY}, DELETING)
    assert gone.size_bytes == 5_000_000_000
    with pytest.raises(Conflict, match="deleting"):
        await store.snapshots.transition(snapshot.id, {CREATING}, READY, size_bytes=1)
    assert await store.snapshots.get(snapshot.id) == gone


async def test_a_parent_stays_until_its_children_are_gone(store: Store, make: Make) -> None:
    parent = make("base")
    await store.snapshots.create(parent)
    children = [make(name, parent=parent.id) for name in ("left", "right")]
    for child in children:
        await store.snapshots.create(child)
    assert await store.snapshots.children_of(parent.id) == children
    with pytest.raises(SnapshotNeeded, match="left, right"):
        await store.snapshots.delete(parent.id, {CREATING})
    for child in children:
        await store.snapshots.delete(child.id, {CREATING})
    assert await store.snapshots.children_of(parent.id) == []
    await store.snapshots.delete(parent.id, {CREATING})
    assert (await store.snapshots.list(None)).items == []


async def test_it_is_deleted_only_from_the_states_expected(store: Store, make: Make) -> None:
    snapshot = make("base")
    await store.snapshots.create(snapshot)
    with pytest.raises(Conflict, match="creating"):
        await store.snapshots.delete(snapshot.id, {READY})
    assert await store.snapshots.get(snapshot.id) == snapshot


async def test_what_is_not_there_cannot_be_read_changed_or_deleted(store: Store) -> None:
    for work in (
        store.snapshots.get("snap-x"),
        store.snapshots.transition("snap-x", {READY}, DELETING),
        store.snapshots.delete("snap-x", {READY}),
    ):
        with pytest.raises(NotFound, match="snap-x"):
            await work
    assert await store.snapshots.children_of("snap-x") == []


async def test_a_user_who_owns_checkpoints_is_not_deleted(store: Store, make: Make, ada: User) -> None:
    snapshot = make("base")
    await store.snapshots.create(snapshot)
    with pytest.raises(Conflict, match="1 snapshots"):
        await store.users.delete(ada.id)
    await store.snapshots.delete(snapshot.id, {CREATING})
    await store.users.delete(ada.id)
