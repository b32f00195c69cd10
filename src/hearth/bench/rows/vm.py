"""``vm.*``: real machines through the whole house, beside QEMU alone."""

from __future__ import annotations

import os
import time

from hearth.bench.bare_boot import boot_to_init
from hearth.bench.daemon import Daemon, data_directory, need_images, serving
from hearth.bench.processes import find_program
from hearth.bench.row import Measurement, Row, Skipped, at_most
from hearth.bench.samples import Effort, SampleFailed, alternate
from hearth.engine.qemu.accelerator import VerdictCache
from hearth.engine.qemu.launcher import BINARY
from hearth.model import Accelerator
from hearth.sdk.client import Client

GREETING = b"hearth\n"


def measure_boot(effort: Effort) -> Measurement:
    """Create a machine from nothing and run ``echo`` in it; the clock stops when its output is here."""
    if os.geteuid() != 0:
        raise Skipped("real machines need root")
    need_images()
    find_program(BINARY)
    with data_directory() as data, serving(data, "qemu") as daemon, daemon.client() as client:
        first_output(client)  # the first one proves the accelerator, which all later ones are spared
        accelerator = accelerator_of(daemon)
        ours, theirs = alternate(
            lambda: first_output(client), lambda: boot_to_init(accelerator), effort.samples(20, 2, warm_up=0)
        )
    return Measurement(measured=ours, reference=theirs, accelerator=accelerator, note=f"on {accelerator.upper()}")


def first_output(client: Client) -> float:
    """Create a machine, run ``echo``, destroy it; gives seconds from the request to the output, without the end."""
    started = time.perf_counter()
    sandbox = client.create()
    try:
        with sandbox.stream(["echo", GREETING.decode().strip()]) as running:
            said = b""
            for output in running:
                said += output.data
                if said == GREETING:
                    return time.perf_counter() - started
    finally:
        sandbox.destroy()
    raise SampleFailed(f"the machine said {said!r}")


def accelerator_of(daemon: Daemon) -> Accelerator:
    """Tell what the daemon's machines run on: its kept verdict; without one it did not even try KVM."""
    for path in daemon.data.verdicts.glob("accelerator-*.json"):
        verdict = VerdictCache(path.parent).load(path.stem.partition("-")[2])
        if verdict is not None:
            return verdict.accelerator
    return Accelerator.TCG


ROWS = (
    Row(
        name="vm.boot",
        what="create from nothing to the first output of echo",
        reference="plain QEMU boot of the same kernel to init",
        goals=at_most(ratio=1.5, p50_ms=4000),
        goals_on_kvm=at_most(p50_ms=300),
        measure=measure_boot,
    ),
)
