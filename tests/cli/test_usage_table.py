"""What two looks at a sandbox say of the time between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hearth.api.stats_schemas import DaemonStats, HostStats, SandboxCounts, SandboxStats
from hearth.cli.usage_table import COLUMNS, SORT_KEYS, UNKNOWN, Rates, header, rates_of, row, sorted_by

START = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1024**3


def look(
    after_s: float, cpu_s: float | None, *, name: str = "web", received: int | None = None, disk: int = 0
) -> SandboxStats:
    return SandboxStats(
        id=f"sb-{name}",
        name=name,
        state="running",
        heat="cold" if cpu_s is None else "hot",
        cpus=2,
        memory_mb=256,
        sampled_at=START + timedelta(seconds=after_s),
        cpu_s=cpu_s,
        net_received_bytes=received,
        disk_bytes=disk,
    )


@pytest.mark.parametrize(
    ("before", "now", "percent"),
    [
        (look(0, 1.0), look(2, 2.0), 50.0),
        (look(0, 1.0), look(1, 3.0), 200.0),
        (look(0, 1.0), look(2, 1.0), 0.0),
        (None, look(2, 1.0), None),
        (look(0, 5.0), look(2, 0.5), None),
        (look(0, None), look(2, 0.5), None),
        (look(0, 1.0), look(2, None), None),
        (look(0, 1.0), look(0, 1.0), None),
    ],
    ids=["half", "two CPUs", "idle", "first look", "woken anew", "was cold", "is cold", "the same look"],
)
def test_cpu_is_what_was_used_in_between(before: SandboxStats | None, now: SandboxStats, percent: float | None) -> None:
    assert rates_of(before, now).cpu_percent == percent


def test_traffic_is_told_by_the_second_and_for_programs_too() -> None:
    found = rates_of(look(0, 1.0, received=1000), look(4, 1.0, received=9000))
    assert found.received_per_s == 2000.0
    document = found.document()
    assert (document["net_received_bytes_per_s"], document["cpu_percent"], document["name"]) == (2000.0, 0.0, "web")
    assert "net_sent_bytes_per_s" not in document


def test_a_row_has_a_cell_for_each_column_and_says_what_is_not_known() -> None:
    cells = dict(zip(COLUMNS, row(Rates(stats=look(0, None, disk=3 * 1024**2))), strict=True))
    assert (cells["cpu"], cells["unique"], cells["sent/s"], cells["disk"]) == (UNKNOWN, UNKNOWN, UNKNOWN, "3.0 MiB")


def test_those_with_most_come_first_and_equal_ones_by_name() -> None:
    rates = [
        Rates(stats=look(0, 1.0, name="c", disk=5), cpu_percent=10.0),
        Rates(stats=look(0, 1.0, name="b", disk=9), cpu_percent=90.0),
        Rates(stats=look(0, None, name="a", disk=5)),
    ]
    orders = {key: "".join(each.stats.name for each in sorted_by(key, rates)) for key in SORT_KEYS}
    assert (orders["cpu"], orders["disk"], orders["name"], orders["network"]) == ("bca", "bac", "abc", "abc")


def test_the_header_tells_administrators_of_the_host() -> None:
    counts = SandboxCounts(hot=1, warm=2, cold=3)
    glance = DaemonStats(version="1", engine="qemu", started_at=START, uptime_s=3661.5, sandboxes=counts)
    assert header(glance) == "hearth 1, qemu, up 1:01:01; 1 hot, 2 warm, 3 cold"
    host = HostStats(
        cpus=4,
        load_1m=1.5,
        memory_total_bytes=8 * GIB,
        memory_available_bytes=2 * GIB,
        swap_free_bytes=0,
        disk_total_bytes=100 * GIB,
        disk_free_bytes=50 * GIB,
        pool_ready=1,
        pool_waiting=0,
    )
    whole = DaemonStats(version="1", engine="qemu", started_at=START, uptime_s=1.0, sandboxes=counts, host=host)
    assert "load 1.50 of 4 CPUs; memory 2.0 GiB of 8.0 GiB free" in header(whole).splitlines()[1]
