"""What every store of commands promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hearth.errors import Code, NotFound
from hearth.execs import Exec, ExecFailure, ExecState
from hearth.host.clock import ManualClock
from hearth.model import Sandbox, SandboxSpec, SandboxState, User
from hearth.store.base import PageRequest, Store


@pytest.fixture
async def box(store: Store, clock: ManualClock, ada: User) -> Sandbox:
    return await sandbox(store, clock, ada, "box")


async def sandbox(store: Store, clock: ManualClock, owner: User, name: str) -> Sandbox:
    spec = SandboxSpec(name=name)
    made = Sandbox(id=f"sb-{name}", owner=owner.id, spec=spec, state=SandboxState.RUNNING, created_at=clock.now())
    await store.sandboxes.create(made)
    return made


def command(clock: ManualClock, box: Sandbox, number: int = 1, *, ended: bool = False, log_bytes: int = 10) -> Exec:
    made = Exec(
        id=f"ex-{number:04}",
        sandbox_id=box.id,
        owner=box.owner,
        argv=("echo", "é"),
        created_at=clock.now() + timedelta(seconds=number),
        log_bytes=log_bytes,
    )
    if ended:
        made = replace(made, state=ExecState.EXITED, exit_code=0, ended_at=clock.now() + timedelta(minutes=number))
    return made


async def test_a_command_reads_back_with_everything(store: Store, clock: ManualClock, box: Sandbox) -> None:
    made = replace(
        command(clock, box),
        cwd="/tmp",
        user="root",
        kept=True,
        detached=True,
        linger_s=1.5,
        timeout_s=60.5,
        stdin_open=True,
        output_file="/out",
        output_bytes=2**40,
        log_start=2**39,
    )
    await store.execs.save([made])
    assert await store.execs.get(None, made.id) == made
    failure = ExecFailure(code=Code.TIMEOUT, brief="took too long", details="d", resolution="r")
    over = replace(made, state=ExecState.FAILED, failure=failure, ended_at=clock.now(), stdin_open=False)
    other = command(clock, box, 2, ended=True)
    await store.execs.save([over, other])
    assert await store.execs.get(box.owner, made.id) == over
    assert await store.execs.get(box.owner, other.id) == other
    assert await store.execs.running() == []


async def test_a_stranger_has_no_such_command(store: Store, clock: ManualClock, box: Sandbox, bob: User) -> None:
    made = command(clock, box)
    await store.execs.save([made])
    for owner, exec_id in ((bob.id, made.id), (None, "ex-none")):
        with pytest.raises(NotFound):
            await store.execs.get(owner, exec_id)
    assert (await store.execs.list(bob.id, sandbox_id=box.id)).items == []


async def test_a_list_comes_in_pages_oldest_first_and_by_state(store: Store, clock: ManualClock, box: Sandbox) -> None:
    made = [command(clock, box, number, ended=number % 2 == 0) for number in range(1, 8)]
    await store.execs.save(list(reversed(made)))
    first = await store.execs.list(box.owner, sandbox_id=box.id, page=PageRequest(limit=4))
    assert first.items == made[:4]
    rest = await store.execs.list(box.owner, sandbox_id=box.id, page=PageRequest(limit=4, cursor=first.next_cursor))
    assert (rest.items, rest.next_cursor) == (made[4:], None)
    running = await store.execs.list(None, sandbox_id=box.id, states=[ExecState.RUNNING])
    assert running.items == made[::2] == await store.execs.running()


async def test_with_a_sandbox_its_commands_go_and_none_come_after(
    store: Store, clock: ManualClock, box: Sandbox, ada: User
) -> None:
    other = await sandbox(store, clock, ada, "other")
    await store.execs.save([command(clock, box, 1), command(clock, other, 2)])
    await store.sandboxes.delete(box.id, [SandboxState.RUNNING])
    await store.execs.save([command(clock, box, 1, ended=True), command(clock, box, 3)])
    assert await store.execs.known() == {other.id: frozenset({"ex-0002"})}
    for number in (1, 3):
        with pytest.raises(NotFound):
            await store.execs.get(None, f"ex-{number:04}")


async def test_usage_is_counted_and_the_first_to_end_come_first(
    store: Store, clock: ManualClock, box: Sandbox, ada: User, bob: User
) -> None:
    others = await sandbox(store, clock, bob, "others")
    mine = [command(clock, box, number, ended=number != 3, log_bytes=100 * number) for number in range(1, 5)]
    theirs = command(clock, others, 9, ended=True, log_bytes=7)
    await store.execs.save([*mine, theirs])
    usage = await store.execs.usage()
    assert (usage.by_sandbox, usage.by_owner) == ({box.id: 1000, others.id: 7}, {ada.id: 1000, bob.id: 7})
    assert usage.ended == {box.id: 3, others.id: 1}
    assert await store.execs.ended(sandbox_id=box.id, limit=2) == [mine[0], mine[1]]
    assert await store.execs.ended(owner=bob.id) == [theirs]
    assert await store.execs.ended(before=clock.now() + timedelta(minutes=2)) == [mine[0]]
    await store.execs.delete([mine[0].id, "ex-none"])
    assert await store.execs.ended(owner=ada.id) == [mine[1], mine[3]]
