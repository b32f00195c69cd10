"""What every store of volumes promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from hearth.errors import Conflict, NotFound
from hearth.host.clock import ManualClock
from hearth.model import NamedVolume, Sandbox, SandboxSpec, SandboxState, User, VolumePlacement, VolumeState
from hearth.store.base import PageRequest, Store

CREATING, READY, DELETING = VolumeState.CREATING, VolumeState.READY, VolumeState.DELETING
Make = Callable[..., NamedVolume]


@pytest.fixture
def make(clock: ManualClock, ada: User) -> Make:
    """Makes volumes of ada's, each a second younger than the one before."""
    count = 0

    def make_one(name: str, *, owner: str = ada.id, size_mib: int = 64) -> NamedVolume:
        nonlocal count
        count += 1
        made_at = clock.now() + timedelta(seconds=count)
        return NamedVolume(id=f"vol-{count}", owner=owner, name=name, size_mib=size_mib, fs="ext4", created_at=made_at)

    return make_one


@pytest.fixture
async def boxes(store: Store, clock: ManualClock, ada: User) -> tuple[Sandbox, Sandbox]:
    """Two sandboxes of ada's."""
    made = tuple(
        Sandbox(
            id=f"sb-{name}",
            owner=ada.id,
            spec=SandboxSpec(name=name),
            state=SandboxState.RUNNING,
            created_at=clock.now(),
        )
        for name in ("web", "db")
    )
    for sandbox in made:
        await store.sandboxes.create(sandbox)
    return made[0], made[1]


def place(sandbox: Sandbox, volume: NamedVolume, slot: int, *, read_only: bool = False) -> VolumePlacement:
    return VolumePlacement(
        sandbox_id=sandbox.id,
        volume_id=volume.id,
        mount=f"/mnt/{volume.name}",
        read_only=read_only,
        slot=slot,
        attached_at=volume.created_at + timedelta(seconds=slot),
    )


async def test_a_volume_reads_back_as_it_was_written(store: Store, make: Make) -> None:
    volume = replace(make("Data_set+1.0", size_mib=16 * 2**20), state=READY)
    await store.volumes.create(volume)
    assert await store.volumes.get(volume.id) == volume


async def test_a_name_is_one_owners_once(store: Store, make: Make, bob: User) -> None:
    await store.volumes.create(make("data"))
    await store.volumes.create(make("data", owner=bob.id))
    with pytest.raises(Conflict, match="data") as refused:
        await store.volumes.create(make("data"))
    assert refused.value.field == "name"
    assert len((await store.volumes.list(None)).items) == 2


async def test_of_many_creations_of_one_name_one_succeeds(store: Store, make: Make) -> None:
    results = await asyncio.gather(
        *(store.volumes.create(make("data")) for _ in range(8)),
        return_exceptions=True,
    )
    assert results.count(None) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_a_volume_needs_an_owner(store: Store, make: Make) -> None:
    with pytest.raises(NotFound, match="user"):
        await store.volumes.create(make("data", owner="user-nobody"))


async def test_volumes_are_found_by_id_then_by_name_among_those_one_may_see(
    store: Store, make: Make, ada: User, bob: User
) -> None:
    mine, other = make("data"), make("data", owner=bob.id)
    named_as_id = make(mine.id)
    for volume in (mine, other, named_as_id):
        await store.volumes.create(volume)
    assert await store.volumes.resolve(ada.id, mine.id) == mine
    assert await store.volumes.resolve(ada.id, "data") == mine
    assert await store.volumes.resolve(bob.id, "data") == other
    assert await store.volumes.resolve(None, other.id) == other
    with pytest.raises(Conflict, match="several"):
        await store.volumes.resolve(None, "data")
    for reference in (mine.id, "no-such"):
        with pytest.raises(NotFound):
            await store.volumes.resolve(bob.id, reference)


async def test_lists_are_by_owner_and_state_a_page_at_a_time(store: Store, make: Make, ada: User, bob: User) -> None:
    made = [make("a"), replace(make("b"), state=READY), replace(make("c"), state=READY), make("d", owner=bob.id)]
    for volume in made:
        await store.volumes.create(volume)
    first = await store.volumes.list(ada.id, page=PageRequest(limit=2))
    rest = await store.volumes.list(ada.id, page=PageRequest(limit=2, cursor=first.next_cursor))
    assert [volume.name for volume in [*first.items, *rest.items]] == ["a", "b", "c"]
    assert rest.next_cursor is None
    assert [volume.name for volume in (await store.volumes.list(None, states=(READY,))).items] == ["b", "c"]


async def test_sizes_are_those_of_one_owner_in_any_state(store: Store, make: Make, ada: User, bob: User) -> None:
    for volume in (make("a", size_mib=16), replace(make("b", size_mib=32), state=DELETING), make("c", owner=bob.id)):
        await store.volumes.create(volume)
    used = await store.quotas.used(ada.id)
    assert (used.volumes, used.volume_mib) == (2, 48)


async def test_a_state_changes_only_from_an_expected_one(store: Store, make: Make) -> None:
    volume = make("data")
    await store.volumes.create(volume)
    ready = await store.volumes.transition(volume.id, (CREATING,), READY)
    assert ready == replace(volume, state=READY)
    grown = await store.volumes.transition(volume.id, (READY,), READY, size_mib=128)
    assert grown == await store.volumes.get(volume.id) == replace(volume, state=READY, size_mib=128)
    with pytest.raises(Conflict, match="ready"):
        await store.volumes.transition(volume.id, (CREATING,), DELETING)
    with pytest.raises(NotFound):
        await store.volumes.transition("vol-none", (READY,), DELETING)


async def test_a_deleted_volume_is_gone_and_its_name_free(store: Store, make: Make) -> None:
    volume = make("data")
    await store.volumes.create(volume)
    with pytest.raises(Conflict, match="creating"):
        await store.volumes.delete(volume.id, (DELETING,))
    await store.volumes.delete(volume.id, (CREATING,))
    with pytest.raises(NotFound):
        await store.volumes.delete(volume.id, (CREATING,))
    await store.volumes.create(make("data"))


async def test_placements_read_back_by_sandbox_and_by_volume(
    store: Store, make: Make, boxes: tuple[Sandbox, Sandbox]
) -> None:
    data, cache = make("data"), make("cache")
    for volume in (data, cache):
        await store.volumes.create(volume)
    web, db = boxes
    placed = [
        place(web, data, 5, read_only=True),
        place(web, cache, 0),
        place(db, data, 4, read_only=True),
    ]
    for placement in placed:
        await store.volumes.place(placement)
    assert await store.volumes.in_sandbox(web.id) == [placed[1], placed[0]]
    assert await store.volumes.sandboxes_of(data.id) == [placed[2], placed[0]]
    assert await store.volumes.in_sandbox("sb-none") == []
    await store.volumes.displace(web.id, data.id)
    await store.volumes.displace(web.id, data.id)
    assert await store.volumes.in_sandbox(web.id) == [placed[1]]


async def test_a_slot_holds_one_volume_and_a_volume_is_in_a_sandbox_once(
    store: Store, make: Make, boxes: tuple[Sandbox, Sandbox]
) -> None:
    data, cache = make("data"), make("cache")
    for volume in (data, cache):
        await store.volumes.create(volume)
    web, db = boxes
    await store.volumes.place(place(web, data, 0))
    for refused in (place(web, cache, 0), place(web, data, 1)):
        with pytest.raises(Conflict, match="placed"):
            await store.volumes.place(refused)
    await store.volumes.place(place(db, data, 0))


async def test_a_placement_needs_its_sandbox_and_its_volume(
    store: Store, make: Make, boxes: tuple[Sandbox, Sandbox]
) -> None:
    data = make("data")
    await store.volumes.create(data)
    with pytest.raises(NotFound, match="sandbox"):
        await store.volumes.place(replace(place(boxes[0], data, 0), sandbox_id="sb-none"))
    with pytest.raises(NotFound, match="volume"):
        await store.volumes.place(place(boxes[0], make("other"), 0))


async def test_what_is_placed_is_not_deleted_and_goes_on_without_its_sandbox(
    store: Store, make: Make, boxes: tuple[Sandbox, Sandbox]
) -> None:
    data = make("data")
    await store.volumes.create(data)
    await store.volumes.place(place(boxes[0], data, 0))
    with pytest.raises(Conflict, match=boxes[0].id):
        await store.volumes.delete(data.id, (CREATING,))
    await store.sandboxes.delete(boxes[0].id, (SandboxState.RUNNING,))
    assert await store.volumes.get(data.id) == data
    assert await store.volumes.sandboxes_of(data.id) == []
    await store.volumes.delete(data.id, (CREATING,))


async def test_a_user_with_volumes_stays(store: Store, make: Make, ada: User) -> None:
    data = make("data")
    await store.volumes.create(data)
    with pytest.raises(Conflict, match="volumes"):
        await store.users.delete(ada.id)
    await store.volumes.delete(data.id, (CREATING,))
    await store.users.delete(ada.id)
