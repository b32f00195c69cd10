"""Who reaches whom: owners' machines, the host, the world, on namespaces in place of guests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.network.stage import HOST_ADDRESS, INSIDE, PUBLIC, Stage, stage

from hearth.network.policy import PUBLIC as EVERYTHING

pytestmark = pytest.mark.root


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


async def test_machines_of_one_owner_reach_each_other_by_address_and_nobody_reaches_anothers(scene: Stage) -> None:
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    other, fourth = await scene.guest("sb-3", owner="bob"), await scene.guest("sb-4", owner="bob")
    assert await one.dial(two.address) == "sb-2"
    assert await two.dial(one.address) == "sb-1"
    assert await other.dial(fourth.address) == "sb-4"
    assert await one.dial(other.address) == "refused"
    assert await other.dial(two.address) == "refused"


async def test_host_private_ranges_and_metadata_are_refused_even_where_the_world_is_open(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    for address in (HOST_ADDRESS, "172.16.0.1", guest.address, *INSIDE):
        assert await guest.dial(address) == "refused", address
