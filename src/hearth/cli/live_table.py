"""A table that is drawn anew in its place; loaded only at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hearth.cli.rich_table import STATE_STYLES
from hearth.cli.show import harmless


def show(columns: Sequence[str], frames: Iterable[tuple[str, Sequence[Sequence[str]]]]) -> None:
    """Draw each frame, lines above a table, over the one before until there are no more, or Ctrl-C."""
    console = Console()
    with Live(console=console, auto_refresh=False, screen=True) as live:
        for above, rows in frames:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for column in columns:
                table.add_column(column.upper(), no_wrap=True)
            # What does not fit on the screen is cut off below, so the first are those that matter.
            for row in rows[: max(1, console.height - above.count("\n") - 4)]:
                table.add_row(*(Text(harmless(cell), style=STATE_STYLES.get(cell, "")) for cell in row))
            live.update(Group(Text(above), Text(), table), refresh=True)
