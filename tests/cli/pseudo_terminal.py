"""A program at a terminal of its own, typed at and watched from a test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping

WAIT_S = 60.0
READ_BYTES = 65_536


class PseudoTerminal:
    """The command line at a terminal: ``shown`` is all that came to the screen and was not awaited yet."""

    def __init__(self, environment: Mapping[str, str], words: tuple[str, ...], *, rows: int, cols: int) -> None:
        self.shown = b""
        self._ours, self._theirs = pty.openpty()
        self.resize(rows, cols, tell=False)
        self.modes = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hearth.cli", *words],
            env={**environment, "TERM": "xterm"},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
        )

    def type(self, text: str | bytes) -> None:
        os.write(self._ours, text.encode() if isinstance(text, str) else text)

    def resize(self, rows: int, cols: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def wait_for(self, text: str | bytes) -> bytes:
        """Wait until a text is on the screen; gives what came before it."""
        wanted = text.encode() if isinstance(text, str) else text
        deadline_s = time.monotonic() + WAIT_S
        while wanted not in self.shown:
            assert self._read(deadline_s), f"{wanted!r} did not come, but {self.shown!r}"
        before, _, self.shown = self.shown.partition(wanted)
        return before

    def wait(self) -> int:
        """Wait for the program's end, its output read meanwhile, and give its status."""
        deadline_s = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, f"it does not end; it showed {self.shown!r}"
            self._read(time.monotonic() + 0.05)
        while self._read(time.monotonic()):
            pass
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's modes are those it began with."""
        return termios.tcgetattr(self._theirs) == self.modes

    def hang_up(self) -> None:
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        for descriptor in (self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)

    def _read(self, deadline_s: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            return False
        with contextlib.suppress(OSError):
            self.shown += os.read(self._ours, READ_BYTES)
        return True


@contextlib.contextmanager
def at_terminal(
    environment: Mapping[str, str], *words: str, rows: int = 24, cols: int = 80
) -> Iterator[PseudoTerminal]:
    """Run the command line at a terminal of its own."""
    terminal = PseudoTerminal(environment, words, rows=rows, cols=cols)
    try:
        yield terminal
    finally:
        terminal.close()
