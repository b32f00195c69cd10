"""The terminal we are at: raw while it is another's, and as it was when we leave, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Self

from hearth.cli.descriptors import STDOUT, write_all
from hearth.errors import InvalidInput

STDIN = 0
MODES = {
    b"1": b"l",
    b"7": b"h",
    b"25": b"h",
    b"47": b"l",
    b"1000": b"l",
    b"1002": b"l",
    b"1003": b"l",
    b"1004": b"l",
    b"1006": b"l",
    b"1015": b"l",
    b"1047": b"l",
    b"1049": b"l",
    b"2004": b"l",
}
"""DEC private modes a program may leave behind, each with how a fresh terminal has it: cursor keys, wrapping, cursor,
alternate screens, mouse and focus reports, bracketed paste (xterm's control sequences, section "DEC Private Modes")."""
_CHANGE = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_HALF = re.compile(rb"\x1b(\[(\?[0-9;]*)?)?\Z")
PLAIN = b"\x1b[0m"
"""No colours (ECMA-48 SGR 0)."""


class ScreenModes:
    """Watches what goes to the screen, and tells what puts it back."""

    def __init__(self) -> None:
        self._changed: dict[bytes, bytes] = {}
        self._half = b""
        self._wrote = False

    def feed(self, data: bytes) -> None:
        """Look at what is shown; a sequence may come in pieces."""
        text = self._half + data
        for numbers, state in _CHANGE.findall(text):
            for number in numbers.split(b";"):
                if number in MODES:
                    self._changed[number] = state
        half = _HALF.search(text[-64:])
        self._half = half[0] if half else b""
        self._wrote = self._wrote or bool(data)

    def undo(self) -> bytes:
        """Give what makes the screen as it was."""
        back = [
            b"\x1b[?%b%b" % (number, MODES[number]) for number, state in self._changed.items() if state != MODES[number]
        ]
        return b"".join(back) + (PLAIN if self._wrote else b"")


class RawTerminal:
    """Standard input and output as a terminal that passes every key on."""

    def __init__(self) -> None:
        self.screen = ScreenModes()
        self._saved: list[Any] = []

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(STDIN)
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def take(self) -> None:
        """Make it raw."""
        tty.setraw(STDIN, termios.TCSADRAIN)

    def give_back(self) -> None:
        """Make it as it was before."""
        with contextlib.suppress(OSError, termios.error):  # it may have been hung up
            termios.tcsetattr(STDIN, termios.TCSANOW, self._saved)
        with contextlib.suppress(OSError):
            write_all(STDOUT, self.screen.undo())

    def show(self, data: bytes) -> None:
        """Write output to it."""
        self.screen.feed(data)
        write_all(STDOUT, data)


def need_terminal(sandbox: str) -> None:
    """Raises InvalidInput where standard input or output is no terminal."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return
    name = "stdout" if sys.stdin.isatty() else "stdin"
    raise InvalidInput(
        "a shell needs a terminal",
        details=f"{name} is none",
        resolution=f"run a script with 'hearth exec {sandbox} sh -s < SCRIPT', or a command with 'hearth exec'",
        field=name,
    )


def terminal_size() -> tuple[int, int]:
    """Give rows and columns; what a terminal does not tell is 24 and 80."""
    try:
        columns, rows = os.get_terminal_size(STDOUT)
    except OSError:
        columns, rows = 0, 0
    return min(rows, 10_000) or 24, min(columns, 10_000) or 80
