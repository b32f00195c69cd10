"""What every engine does whose machines sleep: pause, capture, restore, and refuse what would not work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tests.contract.sleeping import Bed, Clone, full_snapshot, yard_of
from tests.machines.sleepers import start_threads

from hearth.engine.base import RunState, SnapshotRefused
from hearth.engine.manifest import Manifest
from hearth.engine.snapshot import (
    DISK,
    MANIFEST,
    MEMORY_DIFF,
    MEMORY_FULL,
    STATE,
    consume,
    load,
    stage,
    verify,
    write_manifest,
)
from hearth.errors import Conflict, HearthError, NoSpace

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.root, pytest.mark.vm, pytest.mark.slow]

ROUNDS = 10
CLOCK_ERROR_S = 0.05
TELLINGS = 5
"""A busy host may let a guest hear the time late; being told once more mends that."""
A_MONTH_S = 30 * 86400.0
CLOCK = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
SAMPLES = 8
CUT_BYTES = 4096


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["qemu"])
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[Bed]:
    """An engine, a template, a machine that sleeps and one that slept without a template."""
    await start_threads()
    with yard_of(request.param) as yard:
        async with full_snapshot(yard) as bed:
            yield bed


@pytest_asyncio.fixture(loop_scope="module")
async def clone(bed: Bed) -> AsyncIterator[Clone]:
    async with bed.clone() as clone:
        yield clone


async def test_pausing_and_resuming_may_be_done_twice_and_the_run_state_is_true(clone: Clone) -> None:
    machine = clone.machine
    assert await machine.run_state() is RunState.RUNNING
    for _ in range(2):
        await machine.pause()
        assert await machine.run_state() is RunState.PAUSED
    for _ in range(2):
        await machine.resume()
        assert await machine.run_state() is RunState.RUNNING
    assert await clone.run("echo on") == "on"


async def test_only_a_paused_machine_can_be_captured(bed: Bed, clone: Clone) -> None:
    staging = stage(bed.snapshots / "never")
    with pytest.raises(Conflict, match="paused"):
        await clone.machine.capture(clone.spec, staging, with_disk=False)
    assert list(staging.iterdir()) == []
    staging.rmdir()


async def test_memory_and_disk_survive_ten_rounds_of_sleep(bed: Bed) -> None:
    async with bed.clone() as clone:
        await clone.run("(while read line; do echo $line > /dev/shm/heard; done < /dev/shm/pipe) & true", fifo=True)
        for number in range(ROUNDS):
            await clone.run(f"echo {number} | tee -a /dev/shm/rounds >> /var/tmp/rounds; sync /var/tmp/rounds")
            snapshot = await bed.put_to_sleep(clone)
            assert load(snapshot).manifest.memory.base is not None, "only what the template has not"
            await bed.wake(clone, snapshot)
        counted = "\n".join(map(str, range(ROUNDS)))
        for file in ("/dev/shm/rounds", "/var/tmp/rounds"):
            assert await clone.run(f"cat {file}") == counted
        await clone.run("echo heard > /dev/shm/pipe; while ! [ -e /dev/shm/heard ]; do sleep 0.05; done")


async def test_a_diff_is_small_and_whole(bed: Bed, clone: Clone) -> None:
    await clone.run("head -c 10000000 /dev/urandom > /dev/shm/ten")
    digest = await clone.run("sha256sum < /dev/shm/ten")
    snapshot = await bed.put_to_sleep(clone)
    stored = await asyncio.to_thread(verify, snapshot)
    assert stored.manifest.memory.file == MEMORY_DIFF
    assert 10_000_000 < stored.size_bytes < 40_000_000
    assert {path.stat().st_mode & 0o777 for path in snapshot.iterdir()} == {0o600}
    await bed.wake(clone, snapshot)
    assert await clone.run("sha256sum < /dev/shm/ten") == digest


async def test_a_machine_without_a_template_sleeps_with_all_its_memory(bed: Bed) -> None:
    async with bed.woken(bed.lone, bed.full) as machine:
        assert load(bed.full).manifest.memory.file == MEMORY_FULL
        assert await machine.run("cat /dev/shm/mark /var/tmp/mark") == "lone\nlone"


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system with room for less than what a machine wrote; nobody may hold on to it at the end."""
    with tempfile.TemporaryDirectory(prefix="hearth-full-") as root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", root], check=True)
        try:
            yield Path(root)
        finally:
            subprocess.run(["umount", root], check=True)


async def test_a_full_file_system_is_told_and_the_machine_runs_on(clone: Clone) -> None:
    await clone.run("head -c 10000000 /dev/urandom > /dev/shm/ten")
    with small_disk() as root:
        await clone.guest.freeze()
        await clone.machine.pause()
        capture = await clone.machine.capture(clone.spec, stage(root / "never"), with_disk=False)
        with pytest.raises(NoSpace):
            await capture.store()
        await clone.machine.resume()
        await clone.guest.thaw()
    assert await clone.run("wc -c < /dev/shm/ten; echo on > /var/tmp/mark; cat /var/tmp/mark") == "10000000\non"


async def test_a_vmm_that_waits_can_be_ended(bed: Bed) -> None:
    engine = bed.engine
    async with bed.cold_clone() as (spec, link):
        waiting = await engine.wait_for(spec, bed.template, link)
        assert waiting.id == spec.id
        await waiting.kill()
        await waiting.kill()
        assert await engine.adopt(spec.place) is None


async def test_a_paused_machine_is_adopted_as_it_is(bed: Bed, clone: Clone) -> None:
    await clone.run("echo kept > /dev/shm/mark")
    await clone.machine.pause()
    await clone.machine.release()
    async with bed.another_engine() as engine:
        await clone.adopt(engine)
        assert await clone.machine.run_state() is RunState.PAUSED
        await clone.machine.resume()
        assert await clone.run("cat /dev/shm/mark") == "kept"


Damage = Callable[[Path], "contextlib.AbstractContextManager[None]"]


@contextmanager
def truncated(path: Path) -> Iterator[None]:
    size = path.stat().st_size
    kept = size - min(CUT_BYTES, size // 2)
    with path.open("rb") as file:
        file.seek(kept)
        tail = file.read()
    os.truncate(path, kept)
    try:
        yield
    finally:
        with path.open("ab") as file:
            file.write(tail)


@contextmanager
def flipped(path: Path) -> Iterator[None]:
    _flip(path)
    try:
        yield
    finally:
        _flip(path)


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        # In the manifest a place that matters: the words of an image's name do not.
        file.seek(file.read().rindex(b'"block_hash": "') + 20 if path.name == MANIFEST else path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@contextmanager
def missing(path: Path) -> Iterator[None]:
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


DAMAGES: dict[Damage, str] = {
    truncated: "bytes instead of|damaged|cannot be read|shorter",
    flipped: "checksum|damaged",
    missing: "missing|cannot be read|No such file",
}
OWN_FILES, TEMPLATE_FILES = (MEMORY_DIFF, STATE, MANIFEST), (MEMORY_FULL, DISK, MANIFEST)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(
    ("own", "name"), [*((True, name) for name in OWN_FILES), *((False, name) for name in TEMPLATE_FILES)]
)
async def test_a_damaged_snapshot_is_refused_and_leaves_no_process(
    bed: Bed, own: bool, name: str, damage: Damage
) -> None:
    words = DAMAGES[damage]
    if name == MANIFEST and damage is not missing:
        words = "manifest|checksum|bytes instead of|damaged"
    with damage((bed.stopped if own else bed.template) / name):
        await refused(bed, words)


async def refused(bed: Bed, words: str) -> None:
    async with bed.another_engine() as engine:
        with pytest.raises(SnapshotRefused, match=words) as caught:
            machine = await bed.start(engine, bed.sleeper, bed.stopped)
            await bed.take_down(machine, bed.sleeper)
        assert caught.value.details
        assert "--force" in caught.value.resolution
        assert await engine.adopt(bed.sleeper.place) is None


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "VMM version": ({"vmm_version": "1.0"}, "VMM version: 1.0 when it was taken"),
    "machine shape": ({"machine": "0" * 64}, "machine shape: 000000000000"),
    "accelerator": ({"accelerator": "abacus"}, "accelerator: abacus"),
    "CPU model": ({"cpu_model": "Z80"}, "CPU model: Z80"),
    "kernel": ({"kernel": "kernel-other"}, "kernel: kernel-other"),
    "agent": ({"agent": "agent-other"}, "agent: agent-other"),
    "engine": ({"engine": "other"}, "engine: other"),
    "CPUs": ({"cpus": 2}, "CPUs: 2 when it was taken, 1 now"),
    "memory": ({"memory_mib": 512}, "memory: 512 MiB when it was taken, 256 MiB now"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_snapshot_of_another_machine_is_refused_with_what_differs(bed: Bed, what: str) -> None:
    changes, words = OTHERS[what]
    with changed(bed.stopped, changes):
        await refused(bed, words)


@contextmanager
def changed(snapshot: Path, changes: dict[str, Any]) -> Iterator[None]:
    """Let a manifest tell something else for the length of the context."""
    original = (snapshot / MANIFEST).read_bytes()
    manifest = load(snapshot).manifest
    if set(changes) <= set(Manifest.__struct_fields__):
        manifest = msgspec.structs.replace(manifest, **changes)
    else:
        manifest = msgspec.structs.replace(manifest, stamp=msgspec.structs.replace(manifest.stamp, **changes))
    write_manifest(snapshot, manifest)
    try:
        yield
    finally:
        (snapshot / MANIFEST).write_bytes(original)


async def test_memory_is_refused_for_a_disk_that_was_written_to_since(bed: Bed) -> None:
    disk = bed.sleeper.directory / "root.qcow2"
    before = disk.stat()
    os.utime(disk)
    try:
        await refused(bed, "disk was written to after the memory was taken")
    finally:
        os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_memory_is_set_running_once(bed: Bed) -> None:
    consumed = consume(bed.stopped)
    try:
        await refused(bed, "set running already")
        with pytest.raises(SnapshotRefused, match="set running already"):
            consume(bed.stopped)
    finally:
        consumed.rename(bed.stopped)


async def test_what_was_refused_for_damage_that_was_mended_wakes(bed: Bed) -> None:
    async with bed.woken(bed.sleeper, bed.stopped) as machine:
        assert await machine.run("cat /dev/shm/mark /var/tmp/mark") == "sleeper\nsleeper"


async def test_the_clock_is_right_after_a_long_sleep_and_the_monotonic_one_did_not_notice(
    bed: Bed, clone: Clone
) -> None:
    await clone.configure("dev")
    began_s = time.monotonic()
    before_s = await right_clock(clone, 1.0)
    snapshot = await bed.put_to_sleep(clone)
    clone.ahead_s = A_MONTH_S
    await bed.wake(clone, snapshot)
    await clone.configure("dev")
    after_s = await right_clock(clone, CLOCK_ERROR_S)
    assert 0 < after_s - before_s < time.monotonic() - began_s + 1


async def right_clock(clone: Clone, error_max_s: float) -> float:
    """See that a guest's clock is what it was told, by and by, and give its monotonic one."""
    errors_s: list[float] = []
    while len(errors_s) < TELLINGS:
        offset_s, monotonic_s = await clock_of(clone)
        errors_s.append(abs(offset_s - clone.ahead_s))
        if errors_s[-1] < error_max_s:
            return monotonic_s
        clone.guest.woken()
    raise AssertionError(f"told {TELLINGS} times, the guest's clock is wrong by {errors_s} s")


async def clock_of(clone: Clone) -> tuple[float, float]:
    """Ask a program in the guest for the time, again and again; the quickest answer counts.

    Returns:
        By how many seconds the guest's clock is ahead of ours, and its monotonic clock.
    """
    answers = []
    async with clone.started("python3", "-c", CLOCK) as program:
        for _ in range(SAMPLES):
            asked_s = time.time()
            await program.write_stdin(b"\n")
            told, monotonic = map(float, (await anext(program)).data.split())
            took_s = time.time() - asked_s
            answers.append((took_s, told - asked_s - took_s / 2, monotonic))
    _, offset_s, monotonic = min(answers)
    return offset_s, monotonic


IDENTITY = "hostname; cat /etc/machine-id; od -An -N16 -tx1 /dev/urandom | tr -d ' '"


async def test_two_clones_are_two_machines_from_the_first_command_on(bed: Bed) -> None:
    async with bed.clone() as one, bed.clone() as other:
        told: list[list[str]] = []
        for name, clone in (("one", one), ("other", other)):
            await clone.configure(name)
            told.append((await clone.run(IDENTITY)).split())
        names, *differing = (set(words) for words in zip(*told, strict=True))
        assert names == {"one", "other"}
        assert all(len(words) == 2 for words in differing), "machine ids, random bytes"
        for clone, stranger in ((one, other), (other, one)):
            with pytest.raises(HearthError, match="auth"):
                await clone.guest_with(stranger.token).activity()


async def test_clones_need_not_wait_for_each_other(bed: Bed) -> None:
    async with bed.clone() as one, bed.clone() as other:
        words = await asyncio.gather(one.run("echo one"), other.run("echo other"))
        assert list(words) == ["one", "other"]
        assert replace(one.spec, place=other.spec.place) == other.spec
