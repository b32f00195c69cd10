"""Tables for people; loaded only at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
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
FOLDED_WIDTH = 24
"""Of the last column, however narrow the terminal is."""
WIDEST = 10_000


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; words that are states have their colours. Cells are text, never markup.

    Only the last column is folded: of the others every cell stays in one piece, so that an id can be copied, and where
    that is too wide the terminal wraps whole lines.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    table.columns[-1].no_wrap, table.columns[-1].overflow = False, "fold"
    table.columns[-1].min_width = min(FOLDED_WIDTH, max((cell_len(row[-1]) for row in rows), default=0))
    for row in rows:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    console = Console()
    needed = console.measure(table, options=console.options.update(width=WIDEST)).minimum
    console.width = max(console.width, needed)
    console.print(table)
