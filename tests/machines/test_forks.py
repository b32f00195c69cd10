"""Copies of living machines: what they share, what they never share, and what is left when they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.machines.sleepers import QUIET, VmHouse, opened, start_threads, until

from hearth.config import DataDirectory
from hearth.control.forks import CopiesFailed, Model
from hearth.engine.manifest import LayerKind
from hearth.engine.snapshot import DISK, MANIFEST, MEMORY_DIFF, load
from hearth.errors import Code, Conflict
from hearth.model import Heat, Sandbox, SandboxChanges, SandboxSpec, SandboxState
from hearth.store.base import SandboxExists

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

MAX_LAYERS = 3
GENERATIONS = 5
WITNESS = """
import hashlib, os, time
blob = os.urandom(1 << 20)
count = 0
while True:
    count += 1
    with open("/dev/shm/new", "w") as file:
        file.write(f"{os.getpid()} {hashlib.sha256(blob).hexdigest()} {count}")
    os.rename("/dev/shm/new", "/dev/shm/witness")
    time.sleep(0.2)
"""
"""A process that holds random bytes nobody else has, and tells their checksum for as long as it lives."""
IDENTITY = "hostname; cat /etc/machine-id /etc/hostname; od -An -N16 -tx1 /dev/urandom | tr -d ' '"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(slept_in: DataDirectory) -> AsyncIterator[VmHouse]:
    await start_threads()
    async with opened(slept_in, replace(QUIET, max_disk_layers=MAX_LAYERS)) as house:
        async with house.sandbox("first"):
            """The template is in memory from here on."""
        yield house


async def witness(house: VmHouse, sandbox: Sandbox) -> tuple[str, int]:
    """Give what a witness says: its process and checksum, and how often it has said so."""
    said = await house.shell(sandbox, "cat /dev/shm/witness")
    who, _, count = said.rpartition(" ")
    return who, int(count)


async def require_goes_on(house: VmHouse, sandbox: Sandbox, who: str) -> None:
    _, before = await witness(house, sandbox)

    async def has_counted() -> bool:
        now, count = await witness(house, sandbox)
        assert now == who
        return count > before

    await until(has_counted, f"the process in {sandbox.spec.name} goes on")


def origin_layers(house: VmHouse, sandbox: Sandbox) -> list[str]:
    """Give the ids of the snapshots that a sandbox's disk lies over, lowest first."""
    assert sandbox.origin is not None
    disk = load(house.data.snapshot(sandbox.origin)).manifest.disk
    return [*(layer.id for layer in disk.layers if layer.kind is LayerKind.SNAPSHOT), sandbox.origin]


async def only_templates_left(house: VmHouse) -> bool:
    names = [path.name for path in house.data.snapshots.iterdir()]
    return all(name.startswith("tpl-") for name in names)


async def test_copies_go_on_where_their_source_was_and_are_somebody_else(house: VmHouse) -> None:
    async with house.sandbox("web", env={"COLOUR": "green"}, labels={"app": "shop"}) as source:
        await house.shell(source, f"python3 -c '{WITNESS}' >/dev/null 2>&1 &")
        await until(lambda: _says(house, source), "the witness speaks")
        await house.mark(source, "forked")
        who, _ = await witness(house, source)

        copies = await house.sandboxes.fork(house.admin, "web", name="copy", count=2)
        try:
            assert [copy.spec.name for copy in copies] == ["copy-1", "copy-2"]
            assert {copy.parent for copy in copies} == {source.id}
            assert all(copy.spec.labels == {"app": "shop"} for copy in copies)
            everybody = [source, *copies]
            for each in everybody:
                await require_goes_on(house, each, who)
                assert await house.marks(each) == ("forked", "forked")
                assert await house.output(each.id, "/bin/sh", "-c", "echo $COLOUR") == (b"green\n", 0)
            layer = house.data.snapshot(copies[0].origin or "none")
            await until(lambda: not (layer / MEMORY_DIFF).exists(), "all have started: their memory is not kept")
            assert [path.name for path in sorted(layer.iterdir())] == [DISK, MANIFEST]
            await house.stop(copies[0])
            await require_goes_on(house, copies[0], who)
            await house.mark(copies[0], "changed")
            assert await house.marks(copies[1]) == await house.marks(source) == ("forked", "forked")

            told = [(await house.shell(each, IDENTITY)).split() for each in everybody]
            assert [names[0] for names in told] == [names[2] for names in told] == ["web", "copy-1", "copy-2"]
            assert len({names[1] for names in told}) == 3, "machine-id"
            assert len({names[3] for names in told}) == 3, "random bytes"
        finally:
            await asyncio.gather(*(house.sandboxes.destroy(house.admin, copy.id) for copy in copies))
        await require_goes_on(house, source, who)
    await until(lambda: only_templates_left(house), "what the fork left is gone")


async def _says(house: VmHouse, sandbox: Sandbox) -> bool:
    _, code = await house.output(sandbox.id, "test", "-e", "/dev/shm/witness")
    return code == 0


async def test_more_generations_than_layers_may_be_keep_every_checksum(house: VmHouse) -> None:
    family = [await house.create("generation-0")]
    try:
        sums = ""
        for number in range(1, GENERATIONS + 1):
            parent = family[-1]
            files = f"/dev/shm/{number} /var/tmp/{number}"
            await house.shell(
                parent, f"for f in {files}; do head -c 700000 /dev/urandom > $f; done; echo {number} > /etc/generation"
            )
            sums = await house.shell(parent, "sha256sum /dev/shm/[0-9] /var/tmp/[0-9]")

            (child,) = await house.sandboxes.fork(house.admin, parent.id, name=f"generation-{number}")
            family.append(child)

            assert len(origin_layers(house, child)) <= MAX_LAYERS
            assert await house.shell(child, "sha256sum /dev/shm/[0-9] /var/tmp/[0-9]") == sums
            assert await house.shell(child, "cat /etc/generation") == str(number)
        assert len(sums.splitlines()) == 2 * GENERATIONS

        last = family[-1]
        for parent in family[:-1]:
            await house.sandboxes.destroy(house.admin, parent.id)
        family = [last]
        await house.sandboxes.shelf.sweep()
        await house.stop(last)
        assert await house.shell(last, "sha256sum /dev/shm/[0-9] /var/tmp/[0-9]") == sums, "after a sleep"
        await house.shell(last, "echo 3 > /proc/sys/vm/drop_caches")
        assert await house.shell(last, "sha256sum /dev/shm/[0-9] /var/tmp/[0-9]") == sums, "from the disk itself"
    finally:
        for each in family:
            await house.sandboxes.destroy(house.admin, each.id)
    await until(lambda: only_templates_left(house), "what the forks left is gone")


async def test_a_source_that_sleeps_is_woken_and_one_that_is_paused_runs_on(house: VmHouse) -> None:
    async with house.sandbox("web") as source:
        await house.mark(source, "slept")
        paused = await house.sandboxes.pause(house.admin, "web")
        assert house.heat(paused) is Heat.WARM
        assert await house.sandboxes.pause(house.admin, "web") == paused, "twice is fine"
        made = await house.sandboxes.create(house.admin, SandboxSpec(name="copy", env={"A": "1"}), from_="web")
        try:
            assert made.new
            assert made.sandbox.parent == source.id
            assert house.heat(source) is Heat.HOT
            assert await house.marks(made.sandbox) == ("slept", "slept")
            assert await house.output("copy", "/bin/sh", "-c", "echo $A") == (b"1\n", 0)
            again = await house.sandboxes.create(house.admin, SandboxSpec(name="copy"), from_="web")
            assert (again.new, again.sandbox.id) == (False, made.sandbox.id)
        finally:
            await house.sandboxes.destroy(house.admin, "copy")

        assert (await house.sandboxes.stop(house.admin, "web")).state is SandboxState.STOPPED
        assert (await house.sandboxes.stop(house.admin, "web")).state is SandboxState.STOPPED, "twice is fine"
        for refused in (house.sandboxes.pause(house.admin, "web"), house.sandboxes.resume(house.admin, "web")):
            with pytest.raises(Conflict, match="does not run"):
                await refused
        (copy,) = await house.sandboxes.fork(house.admin, "web")
        assert copy.spec.name.startswith("web-fork-")
        assert await house.marks(copy) == ("slept", "slept")
        await house.sandboxes.destroy(house.admin, copy.id)


async def test_what_cannot_be_copied_is_refused_before_anything_is_done(house: VmHouse) -> None:
    async with house.sandbox("web") as source, house.sandbox("taken"):
        before = sorted(house.data.snapshots.iterdir())
        with pytest.raises(SandboxExists):
            await house.sandboxes.fork(house.admin, "web", name="taken")
        with pytest.raises(Conflict) as caught:
            await house.sandboxes.create(house.admin, SandboxSpec(name="copy", memory_mib=512), from_="web")
        assert caught.value.field == "memory_mb"
        assert sorted(house.data.snapshots.iterdir()) == before

        snapshot_id = "fork-000000000001"
        with house.sandboxes.shelf.pin(snapshot_id):
            await house.sandboxes.forks.capture(source, house.data.snapshot(snapshot_id))
            model = Model(snapshot=snapshot_id, known_as=source.id, parent=source.id, spec=source.spec)
            specs = [replace(source.spec, name="copy"), replace(source.spec, name="taken")]
            with pytest.raises(CopiesFailed) as failed:
                await house.sandboxes.forks.copies(house.admin, model, specs)
        assert failed.value.code is Code.CONFLICT
        assert [made.spec.name for made in failed.value.made] == ["copy"]
        assert (await house.output("copy", "hostname"))[0] == b"copy\n"
        await house.sandboxes.destroy(house.admin, "copy")


async def test_who_uses_the_source_waits_only_while_it_stands_still(house: VmHouse) -> None:
    """Not until what was taken is on disk; and the source may go before that."""
    source = await house.create("web")
    await house.mark(source, "kept")
    (parent,) = await house.sandboxes.fork(house.admin, "web", name="parent")
    await house.sandboxes.destroy(house.admin, source.id)
    final = house.data.snapshot("fork-000000000002")
    with house.sandboxes.shelf.pin(final.name):
        capturing = asyncio.create_task(house.sandboxes.forks.capture(parent, final))
        lock = house.resident(parent).lock
        while not (lock.locked() or capturing.done()):
            await asyncio.sleep(0)
        async with lock:  # at the very moment it runs on
            assert not capturing.done()
        await house.sandboxes.destroy(house.admin, parent.id)
        await house.sandboxes.shelf.sweep()
        await capturing
        model = Model(snapshot=final.name, known_as=parent.id, parent=parent.id, spec=parent.spec)
        (copy,) = await house.sandboxes.forks.copies(house.admin, model, [replace(parent.spec, name="copy")])
    assert await house.marks(copy) == ("kept", "kept")
    await house.sandboxes.destroy(house.admin, copy.id)


async def test_a_new_name_is_the_host_name_after_the_next_start_from_disk(house: VmHouse) -> None:
    async with house.sandbox("before") as sandbox:
        await house.sandboxes.update(house.admin, "before", SandboxChanges(name="after"))
        assert await house.shell(sandbox, "hostname") == "before"
        await house.sandboxes.stop(house.admin, "after")
        started = await house.sandboxes.start(house.admin, "after")
        assert started.state is SandboxState.RUNNING
        assert await house.shell(sandbox, "hostname") == "after"
