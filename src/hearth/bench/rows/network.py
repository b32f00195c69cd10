"""``net.*``: a machine's network, from nothing and from the pool, beside the same by the ``ip`` program.

No uplink is made, so nothing of the host's own network is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator

import uvloop

from hearth.bench.processes import find_program
from hearth.bench.row import Measurement, Row, Skipped, at_most
from hearth.bench.samples import Effort, Operation, alternate
from hearth.network.fabric import FabricSettings
from hearth.network.machine import MachineNetwork

OWNER = "bench"
SLOTS = 4


def measure_setup(effort: Effort) -> Measurement:
    """Set up a machine's network among its owner's, rules and resolver included; its removal stays out."""
    with opened(0) as setup, by_ip() as reference:
        ours, theirs = alternate(setup, reference, effort.samples(100, 5))
    return Measurement(measured=ours, reference=theirs)


def measure_setup_pooled(effort: Effort) -> Measurement:
    """The same where a slot is ready; that it is made again stays out."""
    with opened(SLOTS) as setup, by_ip() as reference:
        ours, theirs = alternate(setup, reference, effort.samples(100, 5))
    return Measurement(measured=ours, reference=theirs)


@contextlib.contextmanager
def opened(slots: int) -> Iterator[Operation]:
    """Open networks of their own, with one machine that keeps the owner's bridge, and give what is measured."""
    if os.geteuid() != 0:
        raise Skipped("network namespaces need root")
    network = MachineNetwork(secrets.token_hex(4), fabric=FabricSettings(slots=slots))

    async def begin() -> None:
        await network.fabric.open()
        os.close((await network.setup("sb-first", owner=OWNER)).tap_fd)

    async def sample() -> float:
        if slots:
            await network.fabric.slots_ready()
        started = time.perf_counter()
        link = await network.setup("sb-1", owner=OWNER)
        took_s = time.perf_counter() - started
        os.close(link.tap_fd)
        await network.teardown("sb-1")
        return took_s

    async def end() -> None:
        for sandbox_id in await network.list():
            await network.teardown(sandbox_id)
        await network.fabric.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(begin())
            yield lambda: runner.run(sample())
        finally:
            runner.run(end())


@contextlib.contextmanager
def by_ip() -> Iterator[Operation]:
    """Give the same links made by the ``ip`` program, without rules or resolver."""
    find_program("ip")
    hub, space = (f"bench-{secrets.token_hex(4)}" for _ in range(2))
    made = [
        ["netns", "add", space],
        ["-n", space, "tuntap", "add", "tap0", "mode", "tap"],
        ["-n", space, "addr", "add", "172.16.0.1/30", "dev", "tap0"],
        ["-n", space, "link", "set", "tap0", "up"],
        ["-n", space, "link", "add", "net0", "type", "veth", "peer", "name", "port", "netns", hub],
        ["-n", space, "addr", "add", "100.64.0.2/22", "dev", "net0"],
        ["-n", space, "link", "set", "net0", "up"],
        ["-n", hub, "link", "set", "port", "master", "bridge", "up"],
        ["-n", space, "route", "add", "default", "via", "100.64.0.1"],
    ]

    def sample() -> float:
        started = time.perf_counter()
        try:
            for words in made:
                _ip(*words)
            return time.perf_counter() - started
        finally:
            _ip("netns", "del", space)
            _wait_gone(hub)

    _ip("netns", "add", hub)
    try:
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        yield sample
    finally:
        _ip("netns", "del", hub)


def _ip(*words: str) -> str:
    try:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(words)}: {error.stderr.strip()}") from error


def _wait_gone(hub: str) -> None:
    """Wait until the kernel has freed the namespace, which takes the other end of its link along."""
    deadline = time.monotonic() + 5.0
    while "port" in _ip("-n", hub, "-br", "link") and time.monotonic() < deadline:
        time.sleep(0.005)


ROWS = (
    Row(
        name="net.setup",
        what="a machine's network: namespace, TAP, way to its owner's bridge, firewall, resolver",
        reference="the links alone, by ip",
        goals=at_most(p50_ms=8),
        measure=measure_setup,
    ),
    Row(
        name="net.setup_pooled",
        what="the same from the pool",
        reference="the links alone, by ip",
        goals=at_most(p50_ms=1),
        measure=measure_setup_pooled,
    ),
)
