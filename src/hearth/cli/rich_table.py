"""Tables for people; loaded only at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

STATE_STYLES = {
    "running": "green",
    "hot": "green",
    "warm": "yellow",
    "cold": "blue",
    "ready": "green",
    "deleting": "yellow",
    "ok": "green",
    "creating": "yellow",
    "warning": "yellow",
    "failed": "red",
    "lost": "red",
    "held": "green",
    "allowed": "blue",
    "not tried": "yellow",
    "unproven": "yellow",
    "BROKEN": "bold red",
}


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; words that are states have their colours. Cells are text, never markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    Console().print(table)
