"""What a row of the table is: its name, what it measures, its goal, and the function that measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hearth.bench.samples import Effort, Series
from hearth.model import Accelerator


class Skipped(Exception):
    """A row or yardstick cannot be measured here; the text says why."""


class Quantity(StrEnum):
    """What a goal speaks of. Durations in ms, rates in MB/s, memory in MiB, ratios of ours to the reference."""

    P50 = "p50_ms"
    P99 = "p99_ms"
    RATIO = "ratio_p50"
    RATIO_P99 = "ratio_p99"
    ADDED = "added_p50_ms"
    RATE = "rate_p50_mb_s"
    MEMORY = "p50_mib"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound: at least ``limit`` for a rate, at most ``limit`` for everything else."""

    quantity: Quantity
    limit: float

    @property
    def is_floor(self) -> bool:
        return self.quantity is Quantity.RATE

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.is_floor else value <= self.limit

    def share(self, value: float) -> float:
        """Give how much of the goal is used up: 1.0 is just met, above is missed, whichever way the goal points."""
        if self.is_floor:
            return self.limit / value if value > 0 else float("inf")
        return value / self.limit

    def __str__(self) -> str:
        return _WORDS[self.quantity].format(self.limit)


_WORDS = {
    Quantity.P50: "≤ {:g} ms",
    Quantity.P99: "p99 ≤ {:g} ms",
    Quantity.RATIO: "≤ {:g}×",
    Quantity.RATIO_P99: "p99 ≤ {:g}×",
    Quantity.ADDED: "≤ +{:g} ms",
    Quantity.RATE: "≥ {:g} MB/s",
    Quantity.MEMORY: "≤ {:g} MiB",
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a row's function gives.

    ``megabytes`` is what each sample moved (10^6 bytes): its time then becomes a rate. ``accelerator`` is told by rows
    that ran machines, ``note`` by those with something to add. With ``in_mib`` the samples are sizes in MiB, not times.
    """

    measured: Series
    reference: Series
    megabytes: float | None = None
    in_mib: bool = False
    accelerator: Accelerator | None = None
    note: str = ""

    @property
    def unit(self) -> str:
        """What its figures are told in."""
        if self.in_mib:
            return "MiB"
        return "ms" if self.megabytes is None else "MB/s"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. ``goals_on_kvm`` take the place of ``goals`` where the machines ran on KVM.

    One that ``is_long`` takes minutes: it is measured when it is named, or all are asked for.
    """

    name: str
    what: str
    reference: str
    goals: tuple[Goal, ...]
    measure: Callable[[Effort], Measurement]
    goals_on_kvm: tuple[Goal, ...] | None = None
    is_long: bool = False

    def goals_for(self, measurement: Measurement) -> tuple[Goal, ...]:
        """Give the goals that hold under what the measurement ran on."""
        if measurement.accelerator is Accelerator.KVM and self.goals_on_kvm is not None:
            return self.goals_on_kvm
        return self.goals


def at_most(**limits: float) -> tuple[Goal, ...]:
    """Write goals as ``at_most(ratio=1.3, ratio_p99=2)``: ratio, ratio_p99, p50_ms, p99_ms, added_ms, mib."""
    return tuple(Goal(quantity=_LIMITS[name], limit=limit) for name, limit in limits.items())


def at_least(*, mb_per_s: float) -> tuple[Goal, ...]:
    """Write a goal for a rate in MB/s (10^6 bytes)."""
    return (Goal(quantity=Quantity.RATE, limit=mb_per_s),)


_LIMITS = {
    "p50_ms": Quantity.P50,
    "p99_ms": Quantity.P99,
    "ratio": Quantity.RATIO,
    "ratio_p99": Quantity.RATIO_P99,
    "added_ms": Quantity.ADDED,
    "mib": Quantity.MEMORY,
}
