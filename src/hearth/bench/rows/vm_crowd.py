"""Many machines, and generations of copies: ``vm.memory_clone``, ``vm.hang``, ``vm.fork_safety``, ``daemon.many``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hearth.bench.daemon import Daemon, data_directory, serving
from hearth.bench.house import House, Living, house, need_root, output_of
from hearth.bench.processes import end, resident_mib
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.rows.vm import NO_POOL, lived, streamed_output
from hearth.bench.samples import Effort, SampleFailed, Series, repeat
from hearth.control.capturing import take

CLONES = 20
IDLE_S = 60.0
QUICK_IDLE_S = 5.0
SANDBOXES = 50
LOOK_S = 10.0
GENERATIONS = 3
PATTERN_BYTES = 20_000_000
MAKE_PATTERN = f"head -c {PATTERN_BYTES} /dev/urandom > /dev/shm/pattern; sha256sum < /dev/shm/pattern"
CHECK_PATTERN = "sha256sum < /dev/shm/pattern"
DRAW = "head -c 16 /dev/urandom | sha256sum | cut -c1-64; cat /etc/machine-id"
TELL_TIME = "date +%s.%N"


def measure_memory(effort: Effort) -> Measurement:
    """Have clones of one template run a command and then nothing for a minute; what is theirs alone."""
    idle_s = QUICK_IDLE_S if effort.quick else IDLE_S
    with house() as machines:
        lone = machines.run(machines.boot())
        clones = [machines.run(machines.clone()) for _ in range(3 if effort.quick else CLONES)]
        machines.run(asyncio.sleep(idle_s))
        ours = tuple(private_mib(living.pid) for living in clones)
        theirs = (private_mib(lone.pid),)
    return Measurement(
        measured=Series(durations_s=ours),
        reference=Series(durations_s=theirs),
        in_mib=True,
        accelerator=machines.accelerator,
        note=f"{len(ours)} clones, idle for {idle_s:g} s, after their first command",
    )


def measure_hang(effort: Effort) -> Measurement:
    """Boot again and again while another program keeps a processor busy."""
    with house() as machines:
        theirs = repeat(lambda: lived(machines, machines.boot).output_s, effort.samples(3, 1, warm_up=0))
        with _busy_core():
            ours = repeat(lambda: lived(machines, machines.boot).output_s, effort.samples(30, 2, warm_up=0))
    return Measurement(measured=ours, reference=theirs, accelerator=machines.accelerator)


def measure_fork_safety(effort: Effort) -> Measurement:
    """Copy a machine, copy the copy and copy that; each must hold the same memory and be somebody else."""
    count = effort.samples(5, 1, warm_up=0)
    with house() as machines:
        asks: list[float] = []

        def three_generations() -> float:
            error_s, ask_s = machines.run(_generations(machines))
            asks.append(ask_s)
            return error_s

        ours = repeat(three_generations, count)
    note = (
        f"{GENERATIONS} generations: memory intact, random numbers and machine-ids distinct; "
        "an error within the time of the question is not seen"
    )
    return Measurement(
        measured=ours,
        reference=Series(durations_s=tuple(asks)),
        accelerator=machines.accelerator,
        note=note,
    )


def measure_many(effort: Effort) -> Measurement:
    """Have many sandboxes, every third at work, paused or stopped; what the daemon holds of the memory."""
    need_root()
    count = 5 if effort.quick else SANDBOXES
    with (
        data_directory() as data,
        serving(data, "qemu", *NO_POOL, "--idle-pause", "3600") as daemon,
        daemon.client() as client,
    ):
        streamed_output(client.create())
        alone_mib = resident_mib(daemon.pid)
        for number in range(count - 1):
            sandbox = client.create()
            streamed_output(sandbox)
            if number % 3 == 0:
                sandbox.pause()
            elif number % 3 == 1:
                sandbox.stop()
        busy = _cpu_share(daemon)
        samples = (resident_mib(daemon.pid),)
    return Measurement(
        measured=Series(durations_s=samples),
        reference=Series(durations_s=(alone_mib,)),
        in_mib=True,
        note=f"{count} sandboxes; idle, the daemon uses {busy:.1%} of a processor",
    )


async def _generations(machines: House) -> tuple[float, float]:
    """Give the largest error of a copy's clock, and how long asking for the time takes at least, both in seconds.

    Raises:
        SampleFailed: a copy's memory is not what it was, or two machines share what nobody may.
    """
    lineage = [await machines.clone()]
    pattern = await output_of(lineage[0].guest, MAKE_PATTERN)
    snapshots: list[str] = []
    error_s, ask_s = 0.0, 60.0
    try:
        for generation in range(GENERATIONS):
            parent = lineage[-1]
            snapshots.append(f"fork-{parent.id}-{generation}")
            final = machines.workshop.data.snapshot(snapshots[-1])
            await take(parent.member, final, with_disk=True, stay_paused=False)
            lineage.append(await machines.copy(snapshots[-1], parent.id))
            error, took = await _clock_error(lineage[-1])
            error_s, ask_s = max(error_s, error), min(ask_s, took)
        drawn: list[str] = []
        for living in lineage:
            if await output_of(living.guest, CHECK_PATTERN) != pattern:
                raise SampleFailed("a copy's memory is not what it was")
            drawn += (await output_of(living.guest, DRAW)).split()
        if len(set(drawn)) != len(drawn):
            raise SampleFailed("two machines share random numbers or an identity")
    finally:
        for living in reversed(lineage):
            await machines.end(living)
    return error_s, ask_s


async def _clock_error(living: Living) -> tuple[float, float]:
    """Ask for the time a few times; the quickest answer tells the most. Gives the error beyond doubt, and its time."""
    best = (0.0, 60.0)
    for _ in range(3):
        before = time.time()
        told = float(await output_of(living.guest, TELL_TIME))
        after = time.time()
        if after - before < best[1]:
            best = (max(before - told, told - after, 0.0), after - before)
    return best


def private_mib(pid: int) -> float:
    """Give the memory that is a process's alone, what was swapped out included (smaps_rollup of proc(5))."""
    kib = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty", "Swap"):
            kib += int(rest.split()[0])
    return kib / 1024


def _cpu_share(daemon: Daemon) -> float:
    before = _cpu_s(daemon.pid)
    time.sleep(LOOK_S)
    return (_cpu_s(daemon.pid) - before) / LOOK_S


def _cpu_s(pid: int) -> float:
    """Give the processor time a process has used (utime and stime of proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    argv = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, process_group=0) as process:
        try:
            yield
        finally:
            end(process)


ROWS = (
    Row(
        name="vm.memory_clone",
        what="memory of an idle clone that is its alone",
        reference="a machine's that booted",
        goals=at_most(ratio=0.25),
        goals_on_kvm=at_most(mib=10),
        measure=measure_memory,
        is_long=True,
    ),
    Row(
        name="vm.hang",
        what="boot to the first output beside a busy processor",
        reference="boot to the first output",
        goals=at_most(ratio=4),
        measure=measure_hang,
        is_long=True,
    ),
    Row(
        name="vm.fork_safety",
        what="error of the clock after each of three generations of copies",
        reference="time to ask for the time",
        goals=at_most(p99_ms=50),
        measure=measure_fork_safety,
        is_long=True,
    ),
    Row(
        name="daemon.many",
        what="memory of the daemon with 50 sandboxes, running, paused and stopped",
        reference="with one",
        goals=at_most(mib=150),
        measure=measure_many,
        is_long=True,
    ),
)
