"""Waiting for a guest's answer ends with its machine."""

from __future__ import annotations

import asyncio

import pytest
from tests.control.conftest import House, data, house, opened

from hearth.engine.base import MachineDied
from hearth.errors import NotFound
from hearth.jobs.answers import while_it_lives
from hearth.model import SandboxSpec

__all__ = ["data", "house", "opened"]


async def never() -> None:
    await asyncio.Event().wait()


async def refuse() -> None:
    raise NotFound("no such thing")


async def answer() -> None:
    """At once."""


async def test_who_waits_for_an_answer_is_told_when_the_machine_ends_instead(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    member = await house.sandboxes.fleet.take(created.sandbox.id)
    assert member is not None
    waiting = asyncio.create_task(while_it_lives(member.machine, never(), until="it was configured"))
    await asyncio.sleep(0)

    await member.machine.kill()

    with pytest.raises(MachineDied, match="ended before it was configured") as caught:
        await waiting
    assert "SIGKILL" in caught.value.details


async def test_an_answer_and_a_refusal_pass_and_the_machine_lives_on(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    member = house.sandboxes.fleet.member(created.sandbox.id)
    assert member is not None

    await while_it_lives(member.machine, answer(), until="it answered")
    with pytest.raises(NotFound, match="no such thing"):
        await while_it_lives(member.machine, refuse(), until="it answered")

    assert await house.output("dev", "echo", "there") == (b"there\n", 0)
