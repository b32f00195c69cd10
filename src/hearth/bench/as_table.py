"""A run for people: yardsticks, rows, what was left out and why, and the sum."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hearth.bench.result import Judged, Result, Verdict
from hearth.bench.row import Quantity
from hearth.bench.run import Run

STYLES = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}
NONE = "-"
PADDING = (0, 2, 0, 0)
MIN_WIDTH = 104
"""Columns that the table needs; figures are never cut to a narrow terminal, which wraps them instead."""


def show(run: Run, console: Console) -> None:
    """Print a run."""
    host = run.host
    console.print(
        Text(f"hearth {run.version} on {host.cpus} × {host.cpu}, Linux {host.kernel}, Python {host.python}, ")
        + Text(f"load {host.load_1min:g}{', quick' if run.effort.quick else ''}", style="dim")
    )
    console.print()
    console.print(yardstick_table(run))
    console.print()
    measured = [result for result in run.results if result.figures is not None]
    if measured:
        console.print(row_table(measured))
        console.print()
    for result in run.results:
        if text := remark(result):
            console.print(text)
    console.print(summary(run))


def yardstick_table(run: Run) -> Table:
    """Lay out the yardsticks."""
    table = Table(box=None, pad_edge=False, padding=PADDING, header_style="bold")
    table.add_column("YARDSTICK")
    table.add_column("P50", justify="right")
    table.add_column("P99", justify="right")
    table.add_column("N", justify="right")
    table.add_column("", style="dim")
    for reading in run.readings:
        found, name = reading.figures, reading.yardstick.name
        if found is None:
            table.add_row(name, NONE, NONE, NONE, Text(f"skipped: {reading.reason}", style="yellow"))
        else:
            p50, p99 = quantity(found.p50, reading.unit), quantity(found.p99, reading.unit)
            table.add_row(name, p50, p99, str(found.n), reading.yardstick.what)
    return table


def row_table(results: list[Result]) -> Table:
    """Lay out the rows that have figures."""
    table = Table(box=None, pad_edge=False, padding=PADDING, header_style="bold")
    table.add_column("ROW", no_wrap=True)
    for name in ("P50", "P95", "P99"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name in ("N", "REFERENCE", "RATIO"):
        table.add_column(name, justify="right")
    table.add_column("REACHED (GOAL)")
    table.add_column("")
    for result in results:
        table.add_row(*_cells(result))
    return table


def remark(result: Result) -> Text | None:
    """Give the line below the table that a row needs, if it needs one."""
    style = STYLES[result.verdict]
    if result.verdict in (Verdict.SKIPPED, Verdict.FAILED):
        return Text(f"{result.row.name} {result.verdict}: {result.reason}", style=style)
    if result.reason:
        return Text(f"{result.row.name}: first failed sample: {result.reason}", style=style)
    return Text(f"{result.row.name}: {result.note}", style="dim") if result.note else None


def summary(run: Run) -> Text:
    """Give the last line: how many of what."""
    parts = [Text(f"{run.count(verdict)} {verdict}", style=STYLES[verdict]) for verdict in Verdict]
    return Text(", ").join(parts)


def quantity(value: float, unit: str) -> str:
    """Write a figure with its unit."""
    return f"{figure(value)} {unit}"


def figure(value: float) -> str:
    """Write a figure with three digits that count."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def times(ratio: float) -> str:
    """Write a ratio; one far below 1 with the digits that count."""
    return f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.2g}×"


def reached(judged: Judged) -> str:
    """Write what stands against a goal, in the goal's own terms."""
    match judged.goal.quantity:
        case Quantity.RATIO:
            return times(judged.value)
        case Quantity.RATIO_P99:
            return f"p99 {times(judged.value)}"
        case Quantity.ADDED:
            return f"{judged.value:+.2f} ms"
        case Quantity.RATE:
            return quantity(judged.value, "MB/s")
        case Quantity.MEMORY:
            return quantity(judged.value, "MiB")
        case Quantity.P99:
            return f"p99 {quantity(judged.value, 'ms')}"
        case Quantity.P50:
            return quantity(judged.value, "ms")


def _cells(result: Result) -> list[str | Text]:
    found, reference = result.figures, result.reference
    if found is None or reference is None:
        raise AssertionError("only rows with figures are laid out")
    failures = found.failures + reference.failures
    goals = [Text(f"{reached(one)} ({one.goal})", style="green" if one.met else "red") for one in result.judged]
    return [
        result.row.name,
        *(figure(value) for value in (found.p50, found.p95, found.p99)),
        Text(result.unit, style="dim"),
        Text(f"{found.n}, {failures} failed", style="red") if failures else str(found.n),
        figure(reference.p50),
        NONE if result.ratio is None else times(result.ratio),
        Text("\n").join(goals),
        Text(result.verdict, style=STYLES[result.verdict]),
    ]
