"""Real VMMs brought to the moment of a snapshot, and what is left of those that cannot be."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.engine.qemu.vmms import MEMORY_BYTES, Vmms, peek, poke, template_of, vmms
from tests.machines.sleepers import start_threads

from hearth.engine.base import RunState, SnapshotRefused
from hearth.engine.qemu.restoring import read_own_pages
from hearth.engine.snapshot import MANIFEST, STATE, StoredSnapshot, load, publish, record, stage, write_manifest
from hearth.errors import EngineFailed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.root, pytest.mark.vm]

PAGE = 4096
NOISE = random.Random(8).randbytes(64 * PAGE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Vmms]:
    await start_threads()
    async with vmms() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def template(house: Vmms) -> AsyncIterator[StoredSnapshot]:
    async with template_of(house, NOISE) as made:
        yield made


async def test_a_woken_machine_has_the_memory_it_had_and_stands_still(house: Vmms, template: StoredSnapshot) -> None:
    async with house.prepared(template.directory) as spec:
        async with house.restored(template.directory, spec) as machine:
            assert await peek(machine, 0, len(NOISE)) == NOISE
            await poke(machine, PAGE, bytes(PAGE) + b"own" * PAGE + b"x" * PAGE)
            stored = await house.snapshot(machine, spec, "stop-own", with_disk=False)
            before = await peek(machine)
        async with house.restored(stored.directory, spec) as woken:
            assert await woken.run_state() is RunState.PAUSED
            assert await peek(woken) == before
            again = await house.snapshot(woken, spec, "stop-again", with_disk=False)
    assert again.memory_record == stored.memory_record, "diffs stay relative to the template"
    assert (await asyncio.to_thread(read_own_pages, template)) is None
    pages = await asyncio.to_thread(read_own_pages, again)
    assert pages is not None
    with pages:
        assert pages.zeros[0].offset == PAGE


def forged(original: StoredSnapshot, name: str, change: Callable[[Path], None]) -> Path:
    """Publish a copy whose state is another, with a checksum that fits it."""
    final = original.directory.with_name(name)
    staging = stage(final)
    for file in original.manifest.files:
        shutil.copyfile(original.directory / file, staging / file)
    change(staging / STATE)
    files = {**original.manifest.files, STATE: record(staging / STATE)}
    write_manifest(staging, msgspec.structs.replace(original.manifest, id=name, files=files))
    publish(staging, final)
    return final


def _write_noise(path: Path) -> None:
    path.write_bytes(NOISE)


FORGERIES: dict[str, Callable[[Path], None]] = {
    "noise": _write_noise,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "nothing": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("kind", FORGERIES)
async def test_a_state_that_qemu_does_not_take_is_told_and_its_vmm_is_ended(
    house: Vmms, template: StoredSnapshot, kind: str
) -> None:
    snapshot = await asyncio.to_thread(forged, template, f"ckp-{kind}", FORGERIES[kind])
    async with house.prepared(template.directory) as spec:
        waiting = await house.engine.wait_for(spec, snapshot, None)
        with pytest.raises(EngineFailed, match="the machine did not take its snapshot") as caught:
            await waiting.load()
        assert snapshot.name in caught.value.details
        assert await house.engine.adopt(spec.place) is None
    await house.engine.forget(snapshot.name)


async def test_a_damaged_memory_is_refused_and_its_vmm_is_ended(house: Vmms, template: StoredSnapshot) -> None:
    async with house.prepared(template.directory) as spec:
        async with house.restored(template.directory, spec) as machine:
            await poke(machine, PAGE, NOISE)
            stored = await house.snapshot(machine, spec, "stop-damaged", with_disk=False)
        content = bytearray(stored.memory.read_bytes())
        content[len(content) // 2] ^= 1
        stored.memory.write_bytes(content)
        waiting = await house.engine.wait_for(spec, stored.directory, None)
        with pytest.raises(SnapshotRefused, match="its checksum is wrong"):
            await waiting.load()
        assert await house.engine.adopt(spec.place) is None


@pytest.mark.parametrize("change", ["edited", "torn"])
async def test_a_manifest_that_was_changed_is_refused_before_a_vmm_starts(
    house: Vmms, template: StoredSnapshot, change: str
) -> None:
    snapshot = await asyncio.to_thread(forged, template, f"ckp-{change}", lambda _: None)
    text = (snapshot / MANIFEST).read_text()
    changed = text.replace('"cpus": 1', '"cpus": 2') if change == "edited" else text[: len(text) // 2]
    (snapshot / MANIFEST).write_text(changed)
    async with house.prepared(template.directory) as spec:
        with pytest.raises(SnapshotRefused, match="manifest") as caught:
            await house.engine.wait_for(spec, snapshot, None)
        assert "--force" in caught.value.resolution
        assert await house.engine.adopt(spec.place) is None


async def test_a_vmm_that_is_killed_while_it_waits_is_told(house: Vmms, template: StoredSnapshot) -> None:
    async with house.prepared(template.directory) as spec:
        waiting = await house.engine.wait_for(spec, template.directory, None)
        os.kill(waiting.machine.pid, signal.SIGKILL)
        await waiting.wait()
        with pytest.raises(EngineFailed):
            await waiting.load()


async def test_a_load_that_is_cancelled_leaves_no_vmm(house: Vmms, template: StoredSnapshot) -> None:
    async with house.prepared(template.directory) as spec:
        waiting = await house.engine.wait_for(spec, template.directory, None)
        loading = asyncio.create_task(waiting.load())
        await asyncio.sleep(0)  # it has begun
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        assert loading.cancelled()
        assert await house.engine.adopt(spec.place) is None


async def test_the_memory_of_a_template_is_one_for_all_and_stays_as_it_is(
    house: Vmms, template: StoredSnapshot
) -> None:
    async with house.clone(template.directory) as (one, _), house.clone(template.directory) as (other, _):
        await poke(one, 0, b"1" * PAGE)
        assert await peek(other, 0, PAGE) == NOISE[:PAGE]
    assert load(template.directory).memory.read_bytes()[: len(NOISE)] == NOISE
    assert len(NOISE) < MEMORY_BYTES
