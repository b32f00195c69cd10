"""A line that tells how far a transfer is, at a terminal; elsewhere nothing."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

from hearth.cli.show import size

ERASE = "\r\x1b[2K"
"""Goes to the line's begin and clears it (ECMA-48 EL 2)."""
BETWEEN_S = 0.1
BAR_CHARS = 20


class ProgressLine:
    """Give ``tell`` to a transfer as its ``progress``; leaving the context clears the line."""

    def __init__(self, title: str) -> None:
        self._title = title if title.isprintable() else ascii(title)[1:-1]
        self._shown = sys.stderr.isatty()
        self._began_s = time.monotonic()
        self._told_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._told_s:
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def tell(self, done: int, total: int | None) -> None:
        """Show how far it is, a few times a second."""
        now_s = time.monotonic()
        if not self._shown or now_s - self._told_s < BETWEEN_S:
            return
        self._told_s = now_s
        line = line_of(self._title, done, total, elapsed_s=now_s - self._began_s)
        sys.stderr.write(ERASE + fitted(line))
        sys.stderr.flush()


def fitted(line: str) -> str:
    """Cut a line to the terminal's width: one that wraps cannot be drawn over."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        width = 0
    return line[: (width or 80) - 1]


def line_of(title: str, done: int, total: int | None, *, elapsed_s: float) -> str:
    """Say how far it is: a bar where the end is known, how much came and how fast."""
    speed = f"{size(round(done / elapsed_s))}/s" if elapsed_s > 0 else ""
    if not total:
        return f"{title}  {size(done)}  {speed}".rstrip()
    share = min(1.0, done / total)
    filled = round(BAR_CHARS * share)
    bar = "█" * filled + "░" * (BAR_CHARS - filled)
    return f"{title}  {bar} {share:4.0%}  {size(done)} of {size(total)}  {speed}".rstrip()
