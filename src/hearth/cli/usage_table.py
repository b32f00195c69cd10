"""Figures in words: what two looks at a sandbox say of the time between them, and how a table shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from hearth.api.stats_schemas import DaemonStats, SandboxStats
from hearth.cli.show import size

COLUMNS = ("name", "id", "heat", "cpu", "unique", "shared", "disk", "received/s", "sent/s", "cpus", "memory")
UNKNOWN = "-"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """A sandbox as it is, and what it used per second since the look before; None where that cannot be told.

    ``cpu_percent``: 100 is one CPU of the host. Network in bytes a second.
    """

    stats: SandboxStats
    cpu_percent: float | None = None
    received_per_s: float | None = None
    sent_per_s: float | None = None

    def document(self) -> dict[str, object]:
        """Give it for programs: the figures with the rates among them."""
        rates = (
            ("cpu_percent", self.cpu_percent),
            ("net_received_bytes_per_s", self.received_per_s),
            ("net_sent_bytes_per_s", self.sent_per_s),
        )
        found: dict[str, object] = msgspec.to_builtins(self.stats)
        return found | {name: round(value, 1) for name, value in rates if value is not None}


def rates_of(before: SandboxStats | None, now: SandboxStats) -> Rates:
    """Compare two looks at a sandbox; what went back began anew in between, and is not compared."""
    if before is None:
        return Rates(stats=now)
    elapsed_s = (now.sampled_at - before.sampled_at).total_seconds()

    def rate(old: float | None, new: float | None) -> float | None:
        if old is None or new is None or new < old or elapsed_s <= 0:
            return None
        return (new - old) / elapsed_s

    cpu = rate(before.cpu_s, now.cpu_s)
    return Rates(
        stats=now,
        cpu_percent=None if cpu is None else 100 * cpu,
        received_per_s=rate(before.net_received_bytes, now.net_received_bytes),
        sent_per_s=rate(before.net_sent_bytes, now.net_sent_bytes),
    )


_KEYS: dict[str, Callable[[Rates], float]] = {
    "cpu": lambda each: each.cpu_percent or 0.0,
    "unique": lambda each: each.stats.memory_unique_bytes or 0,
    "shared": lambda each: each.stats.memory_shared_bytes or 0,
    "disk": lambda each: each.stats.disk_bytes or 0,
    "network": lambda each: (each.received_per_s or 0.0) + (each.sent_per_s or 0.0),
}
SORT_KEYS = (*_KEYS, "name")


def sorted_by(key: str, rates: Sequence[Rates]) -> list[Rates]:
    """Put those first that have most of it; equal ones, and ``name``, go by name."""
    by_name = sorted(rates, key=lambda each: each.stats.name)
    return by_name if key == "name" else sorted(by_name, key=_KEYS[key], reverse=True)


def row(rates: Rates) -> tuple[str, ...]:
    """Give the cells of COLUMNS."""
    stats = rates.stats
    return (
        stats.name,
        stats.id,
        stats.heat,
        UNKNOWN if rates.cpu_percent is None else f"{rates.cpu_percent:.1f} %",
        _size(stats.memory_unique_bytes),
        _size(stats.memory_shared_bytes),
        _size(stats.disk_bytes),
        _size(rates.received_per_s),
        _size(rates.sent_per_s),
        str(stats.cpus),
        f"{stats.memory_mb} MiB",
    )


def header(daemon: DaemonStats) -> str:
    """Say how daemon and host are, in two lines; the second is for administrators."""
    up = str(timedelta(seconds=int(daemon.uptime_s)))
    counts = daemon.sandboxes
    lines = [
        f"hearth {daemon.version}, {daemon.engine}, up {up}; {counts.hot} hot, {counts.warm} warm, {counts.cold} cold"
    ]
    if (host := daemon.host) is not None:
        lines.append(
            f"load {host.load_1m:.2f} of {host.cpus} CPUs; memory {size(host.memory_available_bytes)} of "
            f"{size(host.memory_total_bytes)} free; disk {size(host.disk_free_bytes)} of "
            f"{size(host.disk_total_bytes)} free; pool {host.pool_ready} ready, {host.pool_waiting} waiting"
        )
    return "\n".join(lines)


def _size(count: float | None) -> str:
    return UNKNOWN if count is None else size(int(count))
