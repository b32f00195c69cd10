"""``vm.pause`` to ``vm.fork_live``: machines that are paused, stopped, woken and copied."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from hearth.bench.daemon import data_directory, serving
from hearth.bench.house import House, Living, house, need_root, output_of
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.rows.vm import NO_POOL, lived, streamed_output
from hearth.bench.samples import Count, Effort, Operation, Series, alternate
from hearth.control.capturing import run_on, take
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.snapshot import discard
from hearth.host.memory import total_bytes, written
from hearth.sdk.client import Sandbox

DIRTY_BYTES = 10_000_000
DIRTY = f"head -c {DIRTY_BYTES} /dev/urandom > /dev/shm/dirt"
KEEP_HOT = ("--idle-pause", "3600")
MIB = 1024 * 1024


def measure_pause(effort: Effort) -> Measurement:
    """Stop a machine's CPUs over QMP."""
    return _measure_cpus(effort, first=True)


def measure_resume(effort: Effort) -> Measurement:
    """Let a machine's CPUs run on over QMP."""
    return _measure_cpus(effort, first=False)


def measure_api_pause(effort: Effort) -> Measurement:
    """Pause a sandbox through the API."""
    return _measure_api(effort, first=True)


def measure_api_resume(effort: Effort) -> Measurement:
    """Resume a sandbox through the API."""
    return _measure_api(effort, first=False)


def measure_warm_wake(effort: Effort) -> Measurement:
    """Run ``echo`` in a paused sandbox, beside one that runs."""
    with _hot_sandbox() as sandbox:

        def wake() -> float:
            sandbox.pause()
            return streamed_output(sandbox)

        ours, theirs = alternate(wake, lambda: streamed_output(sandbox), effort.samples(50, 5, warm_up=3))
    return Measurement(measured=ours, reference=theirs)


def measure_stop_diff(effort: Effort) -> Measurement:
    """Bring a clone that wrote 10 MB to disk and end it."""
    return _measure_stop(effort.samples(20, 1), lambda machines: machines.clone)


def measure_stop_pooled(effort: Effort) -> Measurement:
    """Bring a clone from the pool, which was rehearsed, to disk after it wrote 10 MB, and end it."""
    sizes: list[int] = []
    with house() as machines, machines.pool() as pool:

        def stop() -> float:
            machines.run(machines.fill(pool))
            living = machines.run(machines.claim(pool))
            machines.run(output_of(living.guest, DIRTY))
            machines.run(machines.fill(pool))  # the next one is not made beside the stop
            took_s, size_bytes = machines.run(_stop(machines, living))
            sizes.append(size_bytes)
            return took_s

        ours, theirs = alternate(stop, _plain_write(machines.workshop.data.root), effort.samples(20, 2))
    return _stops(machines, ours, theirs, sizes)


def measure_stop_full(effort: Effort) -> Measurement:
    """Bring a machine that booted, and wrote 10 MB, to disk and end it."""
    return _measure_stop(effort.samples(8, 1), lambda machines: machines.boot)


def measure_stop_bytes(effort: Effort) -> Measurement:
    """Stop clones that wrote 10 MB; compare what is on disk with the pages they wrote since the template."""
    on_disk: list[float] = []
    dirtied: list[float] = []
    with house() as machines:
        for _ in range(effort.samples(4, 1).samples):
            living = machines.run(machines.clone())
            machines.run(output_of(living.guest, DIRTY))
            dirtied.append(machines.run(_dirtied_bytes(living)) / MIB)
            on_disk.append(machines.run(_stop(machines, living))[1] / MIB)
    note = f"{DIRTY_BYTES / MIB:.1f} MiB were asked for; the rest is the guest's own since it woke"
    return Measurement(
        measured=Series(durations_s=tuple(on_disk)),
        reference=Series(durations_s=tuple(dirtied)),
        in_mib=True,
        accelerator=machines.accelerator,
        note=note,
    )


def measure_cold_wake(effort: Effort) -> Measurement:
    """Run ``echo`` in stopped sandboxes, one after the other, so that no page cache flatters."""
    count = effort.samples(20, 3)
    with (
        house() as machines,
        data_directory() as data,
        serving(data, "qemu", *NO_POOL, *KEEP_HOT) as daemon,
        daemon.client() as client,
    ):
        sandboxes = [client.create() for _ in range(count.samples)]
        for sandbox in sandboxes:
            streamed_output(sandbox)
            sandbox.stop()
        turn = iter([sandboxes[0], *sandboxes])  # the first is the warm-up

        def wake() -> float:
            sandbox = next(turn)
            took_s = streamed_output(sandbox)
            sandbox.stop()
            return took_s

        ours, theirs = alternate(wake, lambda: lived(machines, machines.boot).output_s, count)
    note = f"{len(sandboxes)} snapshots in turn, on {machines.accelerator.upper()}"
    return Measurement(measured=ours, reference=theirs, accelerator=machines.accelerator, note=note)


def measure_fork_live(effort: Effort) -> Measurement:
    """Take what copies start from of a running machine; its CPUs stand still from stop to cont.

    The guest's own clocks stand still with them, so that the host's is asked.
    """
    with house() as machines:
        living = machines.run(machines.clone())
        machines.run(output_of(living.guest, DIRTY))
        number = iter(range(10_000))

        def fork() -> float:
            final = machines.workshop.data.snapshot(f"fork-{next(number)}")
            taken = machines.run(take(living.member, final, with_disk=True, stay_paused=False))
            discard(final)
            return taken.paused_s

        ours, theirs = alternate(fork, lambda: machines.run(_stand_still(living)), effort.samples(20, 3, warm_up=2))
    return Measurement(measured=ours, reference=theirs, accelerator=machines.accelerator)


def _measure_cpus(effort: Effort, *, first: bool) -> Measurement:
    with house() as machines:
        living = machines.run(machines.clone())
        machine = living.machine

        async def cycle() -> float:
            started = time.perf_counter()
            await machine.pause()
            paused = time.perf_counter()
            await run_on(living.guest, machine)
            resumed = time.perf_counter()
            return paused - started if first else resumed - paused

        async def ask() -> float:
            started = time.perf_counter()
            await machine.run_state()
            return time.perf_counter() - started

        ours, theirs = alternate(
            lambda: machines.run(cycle()), lambda: machines.run(ask()), effort.samples(300, 30, warm_up=5)
        )
    return Measurement(measured=ours, reference=theirs, accelerator=machines.accelerator)


def _measure_api(effort: Effort, *, first: bool) -> Measurement:
    with _hot_sandbox() as sandbox:

        def cycle() -> float:
            started = time.perf_counter()
            sandbox.pause()
            paused = time.perf_counter()
            sandbox.resume()
            resumed = time.perf_counter()
            return paused - started if first else resumed - paused

        def ask() -> float:
            started = time.perf_counter()
            sandbox.client.get(sandbox.id)
            return time.perf_counter() - started

        ours, theirs = alternate(cycle, ask, effort.samples(200, 20, warm_up=5))
    return Measurement(measured=ours, reference=theirs)


def _measure_stop(count: Count, how: Callable[[House], Callable[[], Coroutine[Any, Any, Living]]]) -> Measurement:
    sizes: list[int] = []
    with house() as machines:
        make = how(machines)

        def stop() -> float:
            living = machines.run(make())
            machines.run(output_of(living.guest, DIRTY))
            took_s, size_bytes = machines.run(_stop(machines, living))
            sizes.append(size_bytes)
            return took_s

        ours, theirs = alternate(stop, _plain_write(machines.workshop.data.root), count)
    return _stops(machines, ours, theirs, sizes)


def _stops(machines: House, ours: Series, theirs: Series, sizes: list[int]) -> Measurement:
    note = f"{sorted(sizes)[len(sizes) // 2] / MIB:.1f} MiB on disk"
    return Measurement(measured=ours, reference=theirs, accelerator=machines.accelerator, note=note)


async def _stop(machines: House, living: Living) -> tuple[float, int]:
    """Stop a machine as ``hearth.control.sleep`` does; gives seconds and bytes, then removes it."""
    started = time.perf_counter()
    living.guest.disconnect()
    final = machines.workshop.memory(living.id)
    taken = await take(living.member, final, with_disk=False, stay_paused=True)
    await living.member.machine.kill()
    await machines.workshop.put_out(living.id)
    took_s = time.perf_counter() - started
    size_bytes = taken.snapshot.size_bytes
    await machines.end(living)
    return took_s, size_bytes


async def _dirtied_bytes(living: Living) -> int:
    machine = living.member.machine
    if not isinstance(machine, QemuMachine):
        raise AssertionError("the bench's machines are QEMU's")
    await machine.pause()
    address = await machine.memory_address()
    extents = written(machine.pid, address, living.member.spec.memory_mib * MIB)
    await run_on(living.guest, machine)
    return total_bytes(extents)


async def _stand_still(living: Living) -> float:
    started = time.perf_counter()
    await living.machine.pause()
    await run_on(living.guest, living.machine)
    return time.perf_counter() - started


def _plain_write(directory: Path) -> Operation:
    data = os.urandom(DIRTY_BYTES)
    path = directory / "plain"

    def write() -> float:
        started = time.perf_counter()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return time.perf_counter() - started

    return write


@contextlib.contextmanager
def _hot_sandbox() -> Iterator[Sandbox]:
    """Give a sandbox behind a daemon that neither makes others nor cools it by itself."""
    need_root()
    with data_directory() as data, serving(data, "qemu", *NO_POOL, *KEEP_HOT) as daemon, daemon.client() as client:
        sandbox = client.create(name="bench")
        streamed_output(sandbox)
        yield sandbox


ROWS = (
    Row(
        name="vm.pause",
        what="stop a machine's CPUs over QMP",
        reference="a question over QMP",
        goals=at_most(p50_ms=1, p99_ms=5),
        measure=measure_pause,
    ),
    Row(
        name="vm.resume",
        what="let a machine's CPUs run on over QMP",
        reference="a question over QMP",
        goals=at_most(p50_ms=1, p99_ms=5),
        measure=measure_resume,
    ),
    Row(
        name="vm.api_pause",
        what="pause a sandbox through the API",
        reference="ask for it through the API",
        goals=at_most(p50_ms=5),
        measure=measure_api_pause,
    ),
    Row(
        name="vm.api_resume",
        what="resume a sandbox through the API",
        reference="ask for it through the API",
        goals=at_most(p50_ms=5),
        measure=measure_api_resume,
    ),
    Row(
        name="vm.warm_wake",
        what="first output of echo in a paused sandbox, through the API",
        reference="the same in one that runs",
        goals=at_most(added_ms=5),
        measure=measure_warm_wake,
    ),
    Row(
        name="vm.stop_diff",
        what="stop a clone that wrote 10 MB",
        reference="write and fsync 10 MB",
        goals=at_most(p50_ms=150),
        goals_on_kvm=at_most(p50_ms=100),
        measure=measure_stop_diff,
    ),
    Row(
        name="vm.stop_pooled",
        what="stop a clone of the pool that wrote 10 MB",
        reference="write and fsync 10 MB",
        goals=at_most(p50_ms=150),
        goals_on_kvm=at_most(p50_ms=100),
        measure=measure_stop_pooled,
    ),
    Row(
        name="vm.stop_full",
        what="stop a machine without a template that wrote 10 MB",
        reference="write and fsync 10 MB",
        goals=at_most(p50_ms=2000),
        measure=measure_stop_full,
    ),
    Row(
        name="vm.stop_bytes",
        what="bytes on disk of a stopped clone that wrote 10 MB",
        reference="bytes it dirtied since the template",
        goals=at_most(ratio=1.3),
        measure=measure_stop_bytes,
    ),
    Row(
        name="vm.fork_live",
        what="pause of a running machine that is copied",
        reference="stop and cont over QMP",
        goals=at_most(p50_ms=15),
        measure=measure_fork_live,
    ),
    Row(
        name="vm.cold_wake",
        what="first output of echo in a stopped sandbox, through the API",
        reference="boot to the first output",
        goals=at_most(ratio=0.2),
        goals_on_kvm=at_most(p50_ms=150),
        measure=measure_cold_wake,
        is_long=True,
    ),
)
