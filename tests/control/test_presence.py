"""A connection keeps its sandbox awake while it waits and while bytes flow, and not a moment longer than said."""

from __future__ import annotations

import asyncio

from tests.control.conftest import House

from hearth.control.presence import Presence, present
from hearth.model import SandboxSpec

WAIT_S = 60


async def until_let_go(presence: Presence) -> None:
    async with asyncio.timeout(WAIT_S):
        while presence.holds:
            await asyncio.sleep(0.005)


async def test_a_presence_holds_until_it_ends_and_counts_once(house: House) -> None:
    sandbox = (await house.sandboxes.create(house.admin, SandboxSpec(name="web"))).sandbox
    resident = house.sandboxes.sleep.residents[sandbox.id]
    async with present(house.sandboxes, sandbox) as presence:
        assert (presence.holds, resident.users) == (True, 1)
        assert isinstance(await presence.guest.ports(), list)
        async with present(house.sandboxes, sandbox):
            assert resident.users == 2
    assert resident.users == 0


async def test_once_relaxed_quiet_lets_go_and_bytes_hold_again(house: House) -> None:
    sandbox = (await house.sandboxes.create(house.admin, SandboxSpec(name="web"))).sandbox
    resident = house.sandboxes.sleep.residents[sandbox.id]
    async with house.sandboxes.awake(house.admin, sandbox.id) as guest:
        presence = Presence(house.sandboxes, sandbox, guest, quiet_s=0.05)
    try:
        await asyncio.sleep(0.15)
        assert presence.holds, "who waits for an answer waits as long as it takes"
        presence.relax()
        await until_let_go(presence)
        assert resident.users == 0
        presence.moved()
        assert (presence.holds, resident.users) == (True, 1)
        await until_let_go(presence)
        await presence.wake()
        assert (presence.holds, resident.users) == (True, 1)
    finally:
        presence.end()
    assert resident.users == 0


async def test_bytes_that_keep_flowing_keep_holding(house: House) -> None:
    sandbox = (await house.sandboxes.create(house.admin, SandboxSpec(name="web"))).sandbox
    async with house.sandboxes.awake(house.admin, sandbox.id) as guest:
        presence = Presence(house.sandboxes, sandbox, guest, quiet_s=0.2)
    try:
        presence.relax()
        for _ in range(20):
            await asyncio.sleep(0.02)
            presence.moved()
            assert presence.holds
    finally:
        presence.end()
