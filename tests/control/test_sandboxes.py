"""Creating, running in and destroying sandboxes, and what happens when several people do so at once."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.control.conftest import House

from hearth.control.heat import InUse
from hearth.errors import Cancelled, Conflict, InvalidInput, NoSpace, NotFound, StartFailed
from hearth.host.processes import find_by_arguments
from hearth.model import ExitKind, SandboxSpec, SandboxState
from hearth.wire.messages import ExecRequest


async def test_a_created_sandbox_runs_commands_with_its_environment(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev", env={"COLOUR": "green"}))

    assert created.new
    assert created.sandbox.state is SandboxState.RUNNING
    assert await house.output("dev", "/bin/sh", "-c", "echo $COLOUR; exit 3") == (b"green\n", 3)


async def test_every_step_of_a_creation_is_timed(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))

    steps = await house.sandboxes.timings(house.admin, "dev")
    assert [step.name for step in steps] == ["disk", "vmm", "agent", "identity"]
    assert all(step.duration_s >= 0 for step in steps)


async def test_a_destroyed_sandbox_is_gone_with_its_process_and_files(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    directory = house.data.machine(created.sandbox.id)
    assert directory.exists()

    await house.sandboxes.destroy(house.admin, "dev")

    assert not directory.exists()
    with pytest.raises(NotFound):
        await house.sandboxes.get(house.admin, created.sandbox.id)
    assert await house.sandboxes.count() == 0


async def test_the_same_name_again_gives_the_sandbox_there_is(house: House) -> None:
    first = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    second = await house.sandboxes.create(house.admin, SandboxSpec(name="dev", cpus=1))

    assert (second.new, second.sandbox.id) == (False, first.sandbox.id)


async def test_many_creators_of_one_name_make_one_machine_and_all_get_it_running(house: House) -> None:
    spec = SandboxSpec(name="dev")
    everybody = await asyncio.gather(*(house.sandboxes.create(house.admin, spec) for _ in range(8)))

    assert len({created.sandbox.id for created in everybody}) == 1
    assert [created.new for created in everybody].count(True) == 1
    assert all(created.sandbox.state is SandboxState.RUNNING for created in everybody)
    assert len(list(house.data.machines.iterdir())) == 1


async def test_destroying_during_creation_is_carried_out_and_told_to_the_creator(house: House) -> None:
    creation = asyncio.create_task(house.sandboxes.create(house.admin, SandboxSpec(name="dev")))
    while True:
        try:
            await house.sandboxes.destroy(house.admin, "dev")
            break
        except NotFound:
            await asyncio.sleep(0)

    with pytest.raises(Cancelled):
        await creation
    assert await house.sandboxes.count() == 0
    assert list(house.data.machines.iterdir()) == []


@pytest.mark.parametrize("delay_s", [number * 0.02 for number in range(16)])
async def test_whenever_it_is_destroyed_during_creation_nothing_is_left(house: House, delay_s: float) -> None:
    creation = asyncio.create_task(house.sandboxes.create(house.admin, SandboxSpec(name="dev")))
    await asyncio.sleep(delay_s)
    while True:
        try:
            await house.sandboxes.destroy(house.admin, "dev")
            break
        except NotFound:
            await asyncio.sleep(0)
    await asyncio.gather(creation, return_exceptions=True)

    assert await house.sandboxes.count() == 0
    assert list(house.data.machines.iterdir()) == []
    assert len(house.sandboxes.fleet) == 0


async def test_a_command_for_a_sandbox_under_way_waits_for_it(house: House) -> None:
    creation = asyncio.create_task(house.sandboxes.create(house.admin, SandboxSpec(name="dev")))
    while await house.sandboxes.count() == 0:
        await asyncio.sleep(0)

    assert await house.output("dev", "/bin/echo", "early") == (b"early\n", 0)
    await creation


async def test_a_creator_who_leaves_does_not_undo_the_creation(house: House) -> None:
    creation = asyncio.create_task(house.sandboxes.create(house.admin, SandboxSpec(name="dev")))
    while await house.sandboxes.count() == 0:
        await asyncio.sleep(0)
    creation.cancel()
    await asyncio.gather(creation, return_exceptions=True)

    again = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    assert not again.new
    assert again.sandbox.state is SandboxState.RUNNING


async def test_nothing_is_kept_in_memory_of_a_sandbox_that_somebody_wants_when_it_is_gone(house: House) -> None:
    gone = (await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))).sandbox
    await house.sandboxes.destroy(house.admin, "dev")
    sleep, thermostat = house.sandboxes.sleep, house.sandboxes.thermostat()

    for cool in (thermostat.pause, thermostat.page_out, thermostat.stop):
        with pytest.raises(InUse):
            await cool(gone.id)
    with pytest.raises(NotFound):
        await sleep.ensure_hot(gone)
    with pytest.raises(NotFound):
        await house.sandboxes._removal.remove(gone, ExitKind.USER)
    with pytest.raises(NotFound):
        await thermostat.expire(gone.id)

    assert sum(sleep.residents.count().values()) == 0


async def test_many_destroyers_of_one_sandbox_all_succeed_or_find_it_gone(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    outcomes = await asyncio.gather(
        *(house.sandboxes.destroy(house.admin, "dev") for _ in range(5)), return_exceptions=True
    )

    assert all(outcome is None or isinstance(outcome, NotFound) for outcome in outcomes)
    assert await house.sandboxes.count() == 0


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (SandboxSpec(name="dev", cpus=0), "cpus"),
        (SandboxSpec(name="dev", cpus=10_000), "cpus"),
        (SandboxSpec(name="dev", memory_mib=1), "memory_mb"),
        (SandboxSpec(name="dev", memory_mib=10**9), "memory_mb"),
        (SandboxSpec(name="Not a name"), "name"),
        (SandboxSpec(name="x" * 64), "name"),
        (SandboxSpec(name="-rf"), "name"),
        (SandboxSpec(name="dev", image="../../etc/passwd"), "image"),
        (SandboxSpec(name="dev", env={"A=B": "x"}), "env"),
        (SandboxSpec(name="dev", env={"A": "x\0y"}), "env"),
        (SandboxSpec(name="dev", env={"A": "x" * 200_000}), "env"),
        (SandboxSpec(name="dev", labels={"": "x"}), "labels"),
    ],
)
async def test_a_bad_spec_is_refused_by_its_field_and_leaves_no_row(
    house: House, spec: SandboxSpec, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await house.sandboxes.create(house.admin, spec)

    assert caught.value.field == field
    assert await house.sandboxes.count() == 0


async def test_an_unknown_image_is_not_found_by_name_and_the_known_ones_are_told(house: House) -> None:
    with pytest.raises(NotFound) as caught:
        await house.sandboxes.create(house.admin, SandboxSpec(name="dev", image="no-such"))

    assert caught.value.field == "image"
    assert "debian" in caught.value.details
    assert await house.sandboxes.count() == 0


async def test_an_image_that_is_no_root_file_system_is_refused(house: House) -> None:
    with pytest.raises(InvalidInput) as caught:
        await house.sandboxes.create(house.admin, SandboxSpec(name="dev", image="kernel"))

    assert caught.value.field == "image"


async def test_an_empty_command_is_refused_and_a_missing_program_told_apart(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))

    with pytest.raises(InvalidInput) as empty:
        await house.output("dev")
    assert empty.value.field == "cmd"
    with pytest.raises(StartFailed):
        await house.output("dev", "/no/such/program")


async def test_leaving_an_execution_early_kills_its_process(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    mark = f"31.{os.getpid()}"  # of no other run on this host

    request = ExecRequest(argv=["/bin/sh", "-c", f"sleep {mark} & echo up; wait"])
    async with house.sandboxes.execute(house.admin, "dev", request) as running:
        assert (await anext(aiter(running))).data == b"up\n"
        async with asyncio.timeout(60):
            while not find_by_arguments(["sleep", mark]):
                await asyncio.sleep(0.01)

    async with asyncio.timeout(60):
        while find_by_arguments(["sleep", mark]):
            await asyncio.sleep(0.01)


async def test_a_machine_that_dies_makes_its_sandbox_failed_and_says_why(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    member = await house.sandboxes.fleet.take(created.sandbox.id)
    assert member is not None
    house.sandboxes.fleet.add(created.sandbox.id, member)
    await member.machine.kill()

    async with asyncio.timeout(60):
        while (await house.sandboxes.get(house.admin, "dev")).state is SandboxState.RUNNING:
            await asyncio.sleep(0.01)
    sandbox = await house.sandboxes.get(house.admin, "dev")
    assert sandbox.state is SandboxState.FAILED
    assert "SIGKILL" in (sandbox.error or "")
    with pytest.raises(Conflict):
        await house.output("dev", "true")
    await house.sandboxes.destroy(house.admin, "dev")


async def test_a_machine_started_anew_at_once_survives_the_tidying_up_after_the_last_one(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    id_ = created.sandbox.id
    member = house.sandboxes.fleet.member(id_)
    assert member is not None
    resident = house.sandboxes.sleep.residents[id_]
    async with resident.lock:  # whoever changes it goes first, as a forced start does
        await member.machine.kill()
        async with asyncio.timeout(60):
            while (await house.sandboxes.get(house.admin, "dev")).state is SandboxState.RUNNING:
                await asyncio.sleep(0.01)
        starting = asyncio.create_task(house.sandboxes.start(house.admin, "dev", force=True))
        await asyncio.sleep(0)

    started = await starting
    assert started.state is SandboxState.RUNNING
    for _ in range(3):  # both have had the lock by now
        async with resident.lock:
            await asyncio.sleep(0)
    assert await house.output("dev", "echo", "there") == (b"there\n", 0)


async def test_why_a_machine_ended_is_told_even_if_somebody_found_it_gone_first(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    id_ = created.sandbox.id
    member = house.sandboxes.fleet.member(id_)
    assert member is not None
    store = house.sandboxes.store.sandboxes
    await store.transition(id_, (SandboxState.RUNNING,), SandboxState.LOST, error="found gone")

    await member.machine.kill()

    async with asyncio.timeout(60):
        while (await house.sandboxes.get(house.admin, "dev")).state is SandboxState.LOST:
            await asyncio.sleep(0.01)
    sandbox = await house.sandboxes.get(house.admin, "dev")
    assert (sandbox.state, sandbox.exit_cause is not None) == (SandboxState.FAILED, True)
    assert "SIGKILL" in (sandbox.error or "")


async def test_a_full_disk_refuses_a_creation_before_anything_is_made(opened_full: House) -> None:
    with pytest.raises(NoSpace) as caught:
        await opened_full.sandboxes.create(opened_full.admin, SandboxSpec(name="dev"))

    assert "MiB left" in caught.value.details
    assert await opened_full.sandboxes.count() == 0


async def test_who_uses_a_sandbox_while_it_is_destroyed_is_told_that_it_is_gone(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    lock = house.sandboxes.sleep.residents[created.sandbox.id].lock
    async with lock:  # somebody changes it: all others wait
        destroying = asyncio.create_task(house.sandboxes.destroy(house.admin, "dev"))
        while not house.sandboxes._removal._tasks:
            await asyncio.sleep(0)
        using = asyncio.create_task(house.output(created.sandbox.id, "true"))
        while not house.sandboxes.sleep.residents[created.sandbox.id].users:
            await asyncio.sleep(0)

    with pytest.raises(NotFound):
        await using
    await destroying
    assert sum(house.sandboxes.sleep.residents.count().values()) == 0
