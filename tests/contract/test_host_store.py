"""Hosts: each spoken for by one daemon."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hearth.errors import Conflict
from hearth.host.clock import ManualClock
from hearth.store.base import Store
from hearth.store.host_store import SILENT_AFTER, Host

HOST = Host(id="host-1", name="one", tag="0123abcd", run="daemon-1")
AGAIN = replace(HOST, run="daemon-2")
COPY = replace(HOST, tag="ffffffff", run="daemon-3")


async def test_a_host_is_listed_with_when_it_was_heard_of(store: Store, clock: ManualClock) -> None:
    await store.hosts.enter(HOST)
    await store.hosts.enter(replace(HOST, id="host-0", name="another"))
    assert await store.hosts.list() == [
        replace(HOST, id="host-0", name="another", seen_at=clock.now()),
        replace(HOST, seen_at=clock.now()),
    ]


async def test_the_same_directory_comes_back_at_once_however_it_ended(store: Store) -> None:
    await store.hosts.enter(HOST)
    await store.hosts.enter(AGAIN)
    assert not await store.hosts.beat(HOST)
    assert await store.hosts.beat(AGAIN)


async def test_a_copy_of_the_directory_is_refused_while_the_first_lives(store: Store, clock: ManualClock) -> None:
    await store.hosts.enter(HOST)
    clock.advance(SILENT_AFTER.total_seconds() - 1)
    assert await store.hosts.beat(HOST)
    clock.advance(SILENT_AFTER.total_seconds() - 1)
    with pytest.raises(Conflict, match="another daemon speaks for this host"):
        await store.hosts.enter(COPY)
    assert await store.hosts.beat(HOST)


async def test_who_was_silent_for_long_or_left_makes_room(store: Store, clock: ManualClock) -> None:
    await store.hosts.enter(HOST)
    clock.advance((SILENT_AFTER + timedelta(seconds=1)).total_seconds())
    await store.hosts.enter(COPY)
    await store.hosts.leave(HOST)
    with pytest.raises(Conflict):
        await store.hosts.enter(AGAIN)
    await store.hosts.leave(COPY)
    await store.hosts.enter(AGAIN)


async def test_in_a_store_of_its_own_a_copy_speaks_for_itself(store: Store) -> None:
    await store.hosts.enter(HOST)
    await store.hosts.enter(COPY, is_shared=False)
    assert [host.tag for host in await store.hosts.list()] == [COPY.tag]
