"""The three standard descriptors: there from the start whatever our caller closed, and silenced once they fail."""

from __future__ import annotations

import os
import sys

STDOUT, STDERR = 1, 2


def complete() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed: else a socket would get the number, and output with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - they live as long as we do
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False)  # noqa: SIM115


def silence(number: int) -> None:
    """Send what is still to be written there to nowhere, so that not even the interpreter's end fails at it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes past Python's buffers, all of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
