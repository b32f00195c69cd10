"""What every store promises about quotas: nobody gets more, however many ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from hearth.errors import NotFound, QuotaExceeded
from hearth.host.clock import ManualClock
from hearth.model import (
    NamedVolume,
    Sandbox,
    SandboxChanges,
    SandboxSpec,
    SandboxState,
    Snapshot,
    SnapshotState,
    User,
    VolumeState,
)
from hearth.quota import MEBIBYTE, UNBOUNDED, Amounts, Quotas
from hearth.store.base import SandboxExists, Store
from hearth.store.memory import MemoryStore
from hearth.store.sql import open_store

DEFAULTS = Quotas(sandboxes=3, snapshots=2, snapshot_mib=100, volumes=3, volume_mib=64)
NONE: frozenset[str] = frozenset()


@pytest.fixture
async def store(store_url: str | None, clock: ManualClock) -> AsyncIterator[Store]:
    opened: Store
    if store_url is None:
        opened = MemoryStore(clock=clock, quotas=DEFAULTS)
    else:
        opened = await open_store(store_url, clock=clock, quotas=DEFAULTS)
    yield opened
    await opened.close()


def sandbox(owner: User, number: int, clock: ManualClock, **spec: object) -> Sandbox:
    described = replace(SandboxSpec(name=f"s{number}"), **spec)  # type: ignore[arg-type]
    state = SandboxState.RUNNING
    return Sandbox(
        id=f"sb-{owner.name}-{number}",
        owner=owner.id,
        spec=described,
        state=state,
        created_at=clock.now(),
        disk_mib=100,
    )


def snapshot(owner: User, number: int, clock: ManualClock) -> Snapshot:
    return Snapshot(
        id=f"cp-{number}",
        owner=owner.id,
        name=f"c{number}",
        sandbox_id="sb-1",
        sandbox_name="web",
        created_at=clock.now(),
        image="debian",
        cpus=1,
        memory_mib=256,
    )


def volume(owner: User, number: int, clock: ManualClock, *, size_mib: int = 16) -> NamedVolume:
    return NamedVolume(
        id=f"vol-{number}", owner=owner.id, name=f"v{number}", size_mib=size_mib, fs="ext4", created_at=clock.now()
    )


async def test_of_many_who_ask_at_once_so_many_get_one(store: Store, ada: User, bob: User, clock: ManualClock) -> None:
    wanted = [store.sandboxes.create(sandbox(ada, number, clock)) for number in range(10)]
    results = await asyncio.gather(*wanted, return_exceptions=True)
    assert sum(result is None for result in results) == 3
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 7
    assert await store.sandboxes.count(ada.id) == 3
    await store.sandboxes.create(sandbox(bob, 1, clock))


async def test_a_refusal_names_quota_use_and_limit(store: Store, ada: User, clock: ManualClock) -> None:
    await store.quotas.set(ada.id, {"memory_mib": 600}, unset=NONE)
    await store.sandboxes.create(sandbox(ada, 1, clock, memory_mib=512))
    with pytest.raises(QuotaExceeded, match="too much memory") as refused:
        await store.sandboxes.create(sandbox(ada, 2, clock, memory_mib=128))
    assert refused.value.field == "memory_mb"
    assert "512 of 600 are used, 128 more would make 640" in refused.value.details
    with pytest.raises(QuotaExceeded):
        await store.quotas.check(ada.id, Amounts(memory_mib=89))
    await store.quotas.check(ada.id, Amounts(memory_mib=88))


async def test_a_name_that_is_there_is_no_question_of_quotas(store: Store, ada: User, clock: ManualClock) -> None:
    for number in range(3):
        await store.sandboxes.create(sandbox(ada, number, clock))
    with pytest.raises(SandboxExists):
        await store.sandboxes.create(replace(sandbox(ada, 1, clock), id="sb-other"))


async def test_what_goes_makes_room(store: Store, ada: User, clock: ManualClock) -> None:
    for number in range(3):
        await store.sandboxes.create(sandbox(ada, number, clock))
    await store.sandboxes.delete("sb-ada-0", (SandboxState.RUNNING,))
    await store.sandboxes.create(sandbox(ada, 7, clock))


async def test_everything_a_user_has_is_counted(store: Store, ada: User, clock: ManualClock) -> None:
    await store.sandboxes.create(sandbox(ada, 1, clock, cpus=2, net_policy={"base": "public"}))
    await store.sandboxes.create(
        sandbox(ada, 2, clock, net_policy={"names": ["example.org"], "upload_bytes_per_s": 20_000})
    )
    await store.sandboxes.create(sandbox(ada, 3, clock, net_policy={"base": "deny", "upload_bytes_per_s": 50_000}))
    await store.snapshots.create(snapshot(ada, 1, clock))
    await store.snapshots.transition(
        "cp-1", (SnapshotState.CREATING,), SnapshotState.READY, size_bytes=3 * MEBIBYTE + 1
    )
    await store.volumes.create(volume(ada, 1, clock, size_mib=32))
    assert await store.quotas.used(ada.id) == Amounts(
        sandboxes=3,
        cpus=4,
        memory_mib=768,
        disk_mib=300,
        snapshots=1,
        snapshot_mib=4,
        volumes=1,
        volume_mib=32,
        egress_bytes_per_s=UNBOUNDED + 20_000,
    )


async def test_limits_are_set_kept_and_given_back_to_the_default(store: Store, ada: User) -> None:
    assert await store.quotas.limits(ada.id) == DEFAULTS
    changed = await store.quotas.set(ada.id, {"sandboxes": None, "cpus": 4}, unset=NONE)
    assert (changed.sandboxes, changed.cpus, changed.volumes) == (None, 4, 3)
    assert await store.quotas.limits(ada.id) == changed
    changed = await store.quotas.set(ada.id, {"images": 0}, unset=frozenset({"sandboxes"}))
    assert (changed.sandboxes, changed.cpus, changed.images) == (3, 4, 0)
    for attempt in (store.quotas.limits("user-x"), store.quotas.set("user-x", {}, unset=NONE)):
        with pytest.raises(NotFound):
            await attempt


async def test_checkpoints_are_bounded_in_number_and_in_size(store: Store, ada: User, clock: ManualClock) -> None:
    for number in (1, 2):
        await store.snapshots.create(snapshot(ada, number, clock))
    with pytest.raises(QuotaExceeded, match="too many checkpoints"):
        await store.snapshots.create(snapshot(ada, 3, clock))
    await store.snapshots.transition("cp-1", (SnapshotState.CREATING,), SnapshotState.READY, size_bytes=60 * MEBIBYTE)
    with pytest.raises(QuotaExceeded, match="too large") as refused:
        await store.snapshots.transition(
            "cp-2", (SnapshotState.CREATING,), SnapshotState.READY, size_bytes=41 * MEBIBYTE
        )
    assert refused.value.field == "snapshot_mb"
    assert (await store.snapshots.get("cp-2")).state is SnapshotState.CREATING
    await store.snapshots.transition("cp-2", (SnapshotState.CREATING,), SnapshotState.READY, size_bytes=40 * MEBIBYTE)


async def test_volumes_are_bounded_when_they_are_made_and_when_they_grow(
    store: Store, ada: User, clock: ManualClock
) -> None:
    made = [store.volumes.create(volume(ada, number, clock)) for number in range(8)]
    results = await asyncio.gather(*made, return_exceptions=True)
    assert sum(result is None for result in results) == 3
    states = (VolumeState.CREATING,)
    with pytest.raises(QuotaExceeded, match="too large"):
        await store.volumes.transition("vol-0", states, VolumeState.READY, size_mib=33)
    assert (await store.volumes.transition("vol-0", states, VolumeState.READY, size_mib=32)).size_mib == 32
    await store.quotas.set(ada.id, {"volume_mib": 1}, unset=NONE)
    shrunk = await store.volumes.transition("vol-0", (VolumeState.READY,), VolumeState.READY, size_mib=16)
    assert shrunk.size_mib == 16


async def test_egress_needs_a_bound_where_it_is_limited(store: Store, ada: User, clock: ManualClock) -> None:
    await store.quotas.set(ada.id, {"egress_bytes_per_s": 100_000}, unset=NONE)
    with pytest.raises(QuotaExceeded, match="no bound"):
        await store.sandboxes.create(sandbox(ada, 1, clock, net_policy={"base": "public"}))
    await store.sandboxes.create(sandbox(ada, 1, clock, net_policy={"base": "public", "upload_bytes_per_s": 60_000}))
    await store.sandboxes.create(sandbox(ada, 2, clock))
    for policy in ({"base": "public"}, {"base": "public", "upload_bytes_per_s": 40_001}):
        with pytest.raises(QuotaExceeded):
            await store.sandboxes.update("sb-ada-2", SandboxChanges(net_policy=policy))
    policy = {"base": "public", "upload_bytes_per_s": 40_000}
    assert (await store.sandboxes.update("sb-ada-2", SandboxChanges(net_policy=policy))).spec.net_policy == policy
