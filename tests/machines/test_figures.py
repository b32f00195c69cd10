"""Figures of real machines: they move when the guest works, and tell what is its own from what it shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from tests.metrics.scraping import samples_in, scrape, value
from tests.server.daemon import RunningDaemon

from hearth.api.stats_schemas import SandboxStats
from hearth.sdk.client import Client, Sandbox

MIB = 1024 * 1024
WAIT_S = 60.0
BURN = ["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]


@pytest.fixture(scope="module")
def neighbour(house: RunningDaemon) -> Iterator[str]:
    """The address of another machine of the same owner."""
    with house.client() as client, client.create(name="figures-neighbour", keep_hot=True) as made:
        assert made.view.address is not None
        yield made.view.address


def wait_for(sandbox: Sandbox, enough: Callable[[SandboxStats], bool]) -> SandboxStats:
    """Ask until the figures are such."""
    deadline_s = time.monotonic() + WAIT_S
    while not enough(found := sandbox.stats()):
        assert time.monotonic() < deadline_s, found
        time.sleep(0.5)
    return found


def test_cpu_time_moves_when_the_guest_computes(sandbox: Sandbox) -> None:
    before = sandbox.stats().cpu_s
    assert before is not None
    sandbox.run(BURN, timeout_sec=60).check()
    wait_for(sandbox, lambda stats: (stats.cpu_s or 0.0) > before + 0.1)


def test_memory_of_its_own_grows_when_the_guest_writes(sandbox: Sandbox) -> None:
    before = sandbox.stats().memory_unique_bytes
    assert before is not None
    sandbox.run(["sh", "-c", "head -c 33554432 /dev/urandom > /dev/shm/figures"], timeout_sec=120).check()
    try:
        found = wait_for(sandbox, lambda stats: (stats.memory_unique_bytes or 0) > before + 24 * MIB)
        assert found.memory_shared_bytes
    finally:
        sandbox.run(["rm", "/dev/shm/figures"]).check()


def test_disk_grows_when_the_guest_writes(sandbox: Sandbox) -> None:
    before = sandbox.stats().disk_bytes
    assert before is not None
    sandbox.run(["sh", "-c", "head -c 16777216 /dev/urandom > /var/tmp/figures && sync"], timeout_sec=120).check()
    wait_for(sandbox, lambda stats: (stats.disk_bytes or 0) > before + 12 * MIB)


def test_traffic_is_told_from_the_sandboxs_side(house: RunningDaemon, sandbox: Sandbox, neighbour: str) -> None:
    before = wait_for(sandbox, lambda stats: stats.net_sent_bytes is not None)
    # Nobody listens there: what counts is what was sent, and the refusals that come back.
    script = (
        "import contextlib, socket\n"
        "for _ in range(40):\n"
        "    with contextlib.suppress(OSError):\n"
        f"        socket.create_connection(({neighbour!r}, 9), 5)"
    )
    sandbox.run(["python3", "-c", script], timeout_sec=120).check()
    assert before.net_sent_packets is not None
    sent = before.net_sent_packets
    found = wait_for(sandbox, lambda stats: (stats.net_sent_packets or 0) >= sent + 40)
    assert (found.net_sent_bytes or 0) >= (before.net_sent_bytes or 0) + 40 * 40
    assert (found.net_received_packets or 0) > (before.net_received_packets or 0)
    samples = samples_in(scrape(house, house.token)[1])
    labels = {"sandbox": sandbox.id, "direction": "sent"}
    assert value(samples, "hearth_sandbox_network_packets_total", labels) >= sent + 40


def test_a_wake_is_counted_with_its_kind(house: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    def wakes(kind: str) -> float:
        labels = {"kind": kind, "outcome": "woken"}
        return value(samples_in(scrape(house, house.token)[1]), "hearth_wake_seconds_count", labels)

    warm, cold = wakes("warm"), wakes("cold")
    sandbox.pause()
    sandbox.run(["true"]).check()
    assert (wakes("warm"), wakes("cold")) == (warm + 1, cold)
    sandbox.stop()
    asleep = client.stats(sandbox.id)
    assert (asleep.heat, asleep.cpu_s, asleep.memory_unique_bytes, asleep.net_sent_bytes) == ("cold", None, None, None)
    assert (asleep.disk_bytes or 0) > 0
    sandbox.run(["true"]).check()
    assert wakes("cold") == cold + 1
    samples = samples_in(scrape(house, house.token)[1])
    assert value(samples, "hearth_snapshot_seconds_count", {"kind": "stop"}) >= 1
    assert value(samples, "hearth_snapshot_bytes_total", {"kind": "stop"}) > 0
