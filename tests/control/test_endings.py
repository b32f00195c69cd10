"""Why sandboxes ended: what is remembered of destroyed ones, whoever or whatever ended them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.control.conftest import House, OpenHouse

from hearth.control.endings import cause_of_removal
from hearth.control.exit_cause import ended_by
from hearth.control.heat import InUse
from hearth.errors import NotFound
from hearth.model import ExitKind, Lifetime, Sandbox, SandboxChanges, SandboxSpec, SandboxState, User

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = Sandbox(id="sb-1", owner="ada", spec=SandboxSpec(name="dev"), state=SandboxState.RUNNING, created_at=NOW)
PANIC = ended_by(ExitKind.KERNEL_PANIC, "Kernel panic", NOW)
STRANGER = User(id="user-stranger", name="stranger")

CAUSES = [
    (SandboxState.RUNNING, None, ExitKind.USER, ExitKind.USER),
    (SandboxState.STOPPED, None, ExitKind.USER, ExitKind.USER),
    (SandboxState.STOPPED, None, ExitKind.TTL, ExitKind.TTL),
    (SandboxState.FAILED, PANIC, ExitKind.USER, ExitKind.KERNEL_PANIC),
    (SandboxState.FAILED, None, ExitKind.USER, ExitKind.UNKNOWN),
    (SandboxState.LOST, None, ExitKind.TTL, ExitKind.UNKNOWN),
    (SandboxState.DESTROYING, PANIC, ExitKind.USER, ExitKind.KERNEL_PANIC),
    (SandboxState.DESTROYING, None, ExitKind.USER, None),
    (SandboxState.CREATING, None, ExitKind.USER, None),
]


@pytest.mark.parametrize(("state", "stored", "asked", "expected"), CAUSES)
def test_what_ended_a_machine_before_outweighs_who_removes_it(
    state: SandboxState, stored: object, asked: ExitKind, expected: ExitKind | None
) -> None:
    row = replace(ROW, state=state, exit_cause=PANIC if stored is PANIC else None)
    cause = cause_of_removal(row, asked, NOW)
    assert (cause.kind if cause is not None else None) is expected


async def test_a_destroyed_sandbox_is_remembered_by_id_and_name(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev", image="debian"))
    await house.sandboxes.destroy(house.admin, "dev")

    for reference in ("dev", created.sandbox.id):
        ending = await house.sandboxes.ending(house.admin, reference)
        assert (ending.sandbox_id, ending.name, ending.image) == (created.sandbox.id, "dev", "debian")
        assert ending.exit_cause.kind is ExitKind.USER
    assert [each.name for each in (await house.sandboxes.endings(house.admin)).items] == ["dev"]


async def test_strangers_learn_nothing_of_an_end(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    await house.sandboxes.destroy(house.admin, "dev")

    with pytest.raises(NotFound):
        await house.sandboxes.ending(STRANGER, "dev")
    assert (await house.sandboxes.endings(STRANGER)).items == []


async def test_a_living_sandbox_has_no_end(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    with pytest.raises(NotFound):
        await house.sandboxes.ending(house.admin, "dev")


async def test_of_a_machine_that_died_its_own_end_is_told_before_and_after_it_is_destroyed(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    member = house.sandboxes.fleet.member(created.sandbox.id)
    assert member is not None
    await member.machine.kill()
    async with asyncio.timeout(60):
        while (await house.sandboxes.get(house.admin, "dev")).state is SandboxState.RUNNING:
            await asyncio.sleep(0.01)

    before = await house.sandboxes.ending(house.admin, "dev")
    await house.sandboxes.destroy(house.admin, "dev")
    after = await house.sandboxes.ending(house.admin, "dev")
    assert before.exit_cause == after.exit_cause
    assert after.exit_cause.kind is not ExitKind.USER


async def test_a_sandbox_whose_time_is_over_says_so(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev", ttl_s=3600))
    await set_end(house, created.sandbox, in_s=-1)
    await house.sandboxes.thermostat().expire(created.sandbox.id)

    assert (await house.sandboxes.ending(house.admin, "dev")).exit_cause.kind is ExitKind.TTL
    assert await house.sandboxes.count() == 0


async def test_a_sandbox_that_was_given_more_time_is_not_destroyed_for_what_was_seen_before(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev", ttl_s=3600))
    await set_end(house, created.sandbox, in_s=-1)
    async with house.sandboxes.sleep.residents[created.sandbox.id].lock:  # it is being woken, say
        expiring = asyncio.create_task(house.sandboxes.thermostat().expire(created.sandbox.id))
        await set_end(house, created.sandbox, in_s=3600)

    with pytest.raises(InUse, match="more time"):
        await expiring
    assert await house.output("dev", "echo", "there") == (b"there\n", 0)


async def set_end(house: House, sandbox: Sandbox, *, in_s: float) -> None:
    """Have a sandbox's time be over in so many seconds."""
    over_at = house.sandboxes.workshop.clock.now() + timedelta(seconds=in_s)
    changes = SandboxChanges(lifetime=Lifetime(ttl_s=3600, expires_at=over_at))
    await house.sandboxes.store.sandboxes.update(sandbox.id, changes)


async def test_a_creation_that_was_cancelled_is_no_end(house: House) -> None:
    creation = asyncio.create_task(house.sandboxes.create(house.admin, SandboxSpec(name="dev")))
    while True:
        try:
            await house.sandboxes.destroy(house.admin, "dev")
            break
        except NotFound:
            await asyncio.sleep(0)
    await asyncio.gather(creation, return_exceptions=True)

    assert (await house.sandboxes.endings(house.admin)).items == []


async def test_a_removal_that_a_crash_cut_short_is_remembered_by_the_next_daemon(opened: OpenHouse) -> None:
    async with opened() as house:
        created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
        cause = ended_by(ExitKind.USER, "it was destroyed", NOW)
        await house.sandboxes.fleet.end(created.sandbox.id)
        await house.sandboxes.store.sandboxes.transition(
            created.sandbox.id, (SandboxState.RUNNING,), SandboxState.DESTROYING, exit_cause=cause
        )
    async with opened() as house:
        assert await house.sandboxes.count() == 0
        assert (await house.sandboxes.ending(house.admin, "dev")).exit_cause == cause
