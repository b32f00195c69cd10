"""``vm.boot``, ``vm.clone``, ``vm.create*``: how machines come to be, beside those that boot."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from hearth.bench.bare_boot import boot_to_init
from hearth.bench.daemon import data_directory, serving
from hearth.bench.house import GREETING, House, Living, Moments, first_output, house
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, SampleFailed, alternate
from hearth.control.pool import Pool
from hearth.sdk.client import Client, Sandbox

NO_POOL = ("--pool", "0")


def measure_boot(effort: Effort) -> Measurement:
    """Boot a machine the way all came to be without templates."""
    with house() as machines:
        ours, theirs = alternate(
            lambda: lived(machines, machines.boot).output_s,
            lambda: boot_to_init(machines.accelerator),
            effort.samples(8, 2),
        )
    return _measured(machines, ours, theirs)


def measure_clone(effort: Effort) -> Measurement:
    """Make disk and network, start QEMU on the template's memory, ask the agent when it was last in use."""
    with house() as machines:
        ours, theirs = alternate(
            lambda: lived(machines, machines.clone).reply_s,
            lambda: lived(machines, machines.boot).reply_s,
            effort.samples(8, 2),
        )
    return _measured(machines, ours, theirs)


def measure_pooled_reply(effort: Effort) -> Measurement:
    """Let a clone run that was made ahead, and ask its agent."""
    with house() as machines, machines.pool() as pool:
        ours, theirs = alternate(
            lambda: _claimed(machines, pool).reply_s,
            lambda: lived(machines, machines.boot).reply_s,
            effort.samples(8, 2),
        )
    return _measured(machines, ours, theirs)


def measure_pooled_output(effort: Effort) -> Measurement:
    """Let a clone run that was made ahead, give it its identity, run ``echo`` in it."""
    with house() as machines, machines.pool() as pool:
        living = machines.run(machines.clone())
        ours, theirs = alternate(
            lambda: _claimed(machines, pool).output_s,
            lambda: machines.run(first_output(living.guest)),
            effort.samples(20, 3, warm_up=2),
        )
    return _measured(machines, ours, theirs)


def measure_create(effort: Effort) -> Measurement:
    """Create a sandbox through the API, without a pool, and run ``echo`` in it."""
    with (
        house() as machines,
        data_directory() as data,
        serving(data, "qemu", *NO_POOL) as daemon,
        daemon.client() as client,
    ):
        ours, theirs = alternate(  # the warm-up makes the template
            lambda: created(client), lambda: lived(machines, machines.boot).output_s, effort.samples(8, 2)
        )
    return _measured(machines, ours, theirs)


def lived(machines: House, make: Callable[[], Coroutine[Any, Any, Living]]) -> Moments:
    """Have a machine live to its first output and end it, which is not timed."""
    living = machines.run(make())
    machines.run(machines.end(living))
    return living.moments


def created(client: Client) -> float:
    """Create a machine, run ``echo``, destroy it; gives seconds from the request to the output, without the end."""
    started = time.perf_counter()
    sandbox = client.create()
    try:
        streamed_output(sandbox)
        return time.perf_counter() - started
    finally:
        sandbox.destroy()


def streamed_output(sandbox: Sandbox) -> float:
    """Run ``echo`` through the API; gives the seconds until its output is here.

    Raises:
        SampleFailed: it said something else.
    """
    started = time.perf_counter()
    said = b""
    with sandbox.stream(["echo", GREETING.decode().strip()]) as running:
        for output in running:
            said += output.data
            if said == GREETING:
                return time.perf_counter() - started
    raise SampleFailed(f"the machine said {said!r}")


def _claimed(machines: House, pool: Pool) -> Moments:
    machines.run(machines.fill(pool))
    moments = lived(machines, lambda: machines.claim(pool))
    machines.run(machines.fill(pool))  # what is measured next has the CPUs for itself
    return moments


def _measured(machines: House, ours: Any, theirs: Any) -> Measurement:
    accelerator = machines.accelerator
    return Measurement(measured=ours, reference=theirs, accelerator=accelerator, note=f"on {accelerator.upper()}")


ROWS = (
    Row(
        name="vm.boot",
        what="boot a machine to the first output of echo",
        reference="plain QEMU boot of the same kernel to init",
        goals=at_most(ratio=1.5, p50_ms=4000),
        goals_on_kvm=at_most(p50_ms=300),
        measure=measure_boot,
    ),
    Row(
        name="vm.clone",
        what="clone a template to its agent's first reply",
        reference="boot to the first reply",
        goals=at_most(ratio=0.067),
        goals_on_kvm=at_most(p50_ms=40),
        measure=measure_clone,
    ),
    Row(
        name="vm.create",
        what="create through the API, without a pool, to the first output of echo",
        reference="boot to the first output",
        goals=at_most(ratio=0.12),
        goals_on_kvm=at_most(p50_ms=60),
        measure=measure_create,
    ),
    Row(
        name="vm.create_pooled",
        what="claim a clone made ahead, to its agent's first reply",
        reference="boot to the first reply",
        goals=at_most(ratio=0.005),
        goals_on_kvm=at_most(p50_ms=5),
        measure=measure_pooled_reply,
    ),
    Row(
        name="vm.first_output",
        what="claim a clone made ahead, to the first output of echo",
        reference="first output of echo in a machine that runs",
        goals=at_most(added_ms=20),
        goals_on_kvm=at_most(p50_ms=15),
        measure=measure_pooled_output,
    ),
)
