"""Text out: JSON for programs, aligned columns for pipes, rich tables for people at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import msgspec

from hearth.api.schemas import SandboxView

COLUMN_GAP = "  "


def show_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def show_done(name: str, *, json: bool) -> None:
    """Print as JSON that it was done to this one, in the form of ``each.to_each``; people are told nothing."""
    if json:
        show_json([{"name": name, "done": True}])


def show_names(views: Sequence[SandboxView], *, json: bool) -> None:
    """Print the names of sandboxes, one a line; as JSON all about them."""
    if json:
        show_json(views)
    else:
        sys.stdout.writelines(f"{view.name}\n" for view in views)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a terminal's has lines and colours, a pipe's none."""
    rows = [[harmless(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        import_module("hearth.cli.rich_table").show(columns, rows)  # rich takes 60 ms that a pipe need not wait for
        return
    sys.stdout.write("\n".join(plain_lines(columns, rows)) + "\n")


def harmless(cell: str) -> str:
    """Give a cell in which nothing moves the cursor or colours the screen: much of what is shown sandboxes chose."""
    if cell.isprintable():
        return cell
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in cell)


def plain_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Give the lines of an aligned table with its heading."""
    table = [[column.upper() for column in columns], *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    return [
        COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]


def age(moment: datetime, now: datetime | None = None) -> str:
    """Say how long ago something was in its largest unit: ``5s``, ``3m``, ``2h``, ``9d``."""
    seconds = max(0, int(((now or datetime.now(UTC)) - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def duration(seconds: float) -> str:
    """Say how long something takes: ``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def moment(value: datetime) -> str:
    """Say a moment to the second."""
    return value.isoformat(timespec="seconds")


def size(count: int) -> str:
    """Say a number of bytes in its largest binary unit: ``7.1 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes all")
