"""What the next daemon finds: machines adopted, half-made ones undone, lost ones told, orphans swept."""

from __future__ import annotations

import asyncio

import pytest
from tests.control.conftest import House, OpenHouse

from hearth.errors import Conflict
from hearth.host.identity import new_sandbox_id
from hearth.jobs.bringup import Bringup, Subject
from hearth.jobs.runner import Runner
from hearth.model import Sandbox, SandboxSpec, SandboxState

RUNNING = SandboxSpec(name="dev")


async def test_a_running_sandbox_is_adopted_by_the_next_daemon(opened: OpenHouse) -> None:
    async with opened() as house:
        await house.sandboxes.create(house.admin, RUNNING)
        await house.output("dev", "/bin/sh", "-c", f"echo kept > {house.data.root}/mark")

    async with opened() as house:
        out, _ = await house.output("dev", "cat", f"{house.data.root}/mark")
        assert out == b"kept\n"
        await house.destroy_all()


async def test_the_administrators_key_stays_the_same_over_restarts(opened: OpenHouse) -> None:
    keys = set()
    for _ in range(2):
        async with opened() as house:
            keys.add(house.data.admin_key.read_text())
    assert len(keys) == 1


async def test_a_removed_key_file_is_replaced_by_a_new_key(opened: OpenHouse) -> None:
    async with opened() as house:
        old = house.data.admin_key.read_text()
        house.data.admin_key.unlink()
    async with opened() as house:
        assert house.data.admin_key.read_text() != old
        assert house.data.admin_key.stat().st_mode & 0o777 == 0o600


async def test_a_machine_that_died_unseen_is_lost_and_can_be_destroyed(opened: OpenHouse) -> None:
    async with opened() as house:
        created = await house.sandboxes.create(house.admin, RUNNING)
        member = await house.sandboxes.fleet.take(created.sandbox.id)
        assert member is not None
        await member.machine.kill()

    async with opened() as house:
        sandbox = await house.sandboxes.get(house.admin, "dev")
        assert sandbox.state is SandboxState.LOST
        assert sandbox.error
        await house.sandboxes.destroy(house.admin, "dev")
        assert await house.sandboxes.count() == 0


@pytest.mark.parametrize("state", [SandboxState.CREATING, SandboxState.DESTROYING])
async def test_an_unfinished_sandbox_is_removed_with_what_it_had(opened: OpenHouse, state: SandboxState) -> None:
    async with opened() as house:
        created = await house.sandboxes.create(house.admin, RUNNING)
        await house.sandboxes.store.sandboxes.transition(created.sandbox.id, (SandboxState.RUNNING,), state)

    async with opened() as house:
        assert await house.sandboxes.count() == 0
        assert list(house.data.machines.iterdir()) == []


async def test_a_job_that_a_dead_daemon_began_is_undone(opened: OpenHouse) -> None:
    async with opened() as house:
        workshop, store = house.sandboxes.workshop, house.sandboxes.store
        sandbox = Sandbox(
            id=new_sandbox_id(),
            owner=house.admin.id,
            spec=RUNNING,
            state=SandboxState.CREATING,
            created_at=workshop.clock.now(),
        )
        await store.sandboxes.create(sandbox)
        plan = Bringup(workshop, None).creation()
        runner = Runner(store.jobs, owner="dead-daemon", clock=workshop.clock)
        job = await runner.submit(plan, sandbox.id, Subject(sandbox_id=sandbox.id))
        house.data.machine(sandbox.id).mkdir()

    async with opened() as house:
        assert await house.sandboxes.count() == 0
        assert list(house.data.machines.iterdir()) == []
        assert (await house.sandboxes.store.jobs.get(job.id)).finished_at is not None


async def test_orphans_that_no_row_speaks_of_are_swept(opened: OpenHouse) -> None:
    async with opened() as house:
        orphan = house.data.machine(new_sandbox_id())
        orphan.mkdir()

    async with opened():
        assert not orphan.exists()


async def test_a_second_daemon_on_one_data_directory_is_refused_with_the_firsts_process(
    opened: OpenHouse, house: House
) -> None:
    with pytest.raises(Conflict) as caught:
        async with opened():
            pytest.fail("the second daemon opened")

    assert caught.value.field == "HEARTH_DATA"
    assert "process" in caught.value.details
    assert await house.sandboxes.count() == 0


async def test_closing_cancels_a_creation_and_leaves_nothing_of_it(opened: OpenHouse) -> None:
    async with opened() as house:
        creation = asyncio.create_task(house.sandboxes.create(house.admin, RUNNING))
        while await house.sandboxes.count() == 0:
            await asyncio.sleep(0)
    await asyncio.gather(creation, return_exceptions=True)

    async with opened() as house:
        assert await house.sandboxes.count() == 0
        assert list(house.data.machines.iterdir()) == []
