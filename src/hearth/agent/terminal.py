"""Pseudo-terminals, from a devpts directory where the sandbox's own root may have none."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431


def open_terminal(terminals: int | None, rows: int, columns: int) -> tuple[int, int]:
    """Give master and slave of a new terminal of a size; both are closed on exec.

    Args:
        terminals: descriptor of a devpts directory, None to ask libc.

    Raises:
        OSError: there are no more terminals, or none at all.
    """
    if terminals is None:
        master, slave = os.openpty()
    else:
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        master = os.open("ptmx", flags, dir_fd=terminals)
        try:
            fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
            slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)  # Linux 4.13: no path, so no look into the sandbox's /dev
        except OSError:
            os.close(master)
            raise
    resize(master, rows, columns)
    return master, slave


def resize(master: int, rows: int, columns: int) -> None:
    """Set a terminal's size; its foreground group gets SIGWINCH.

    Raises:
        OSError: it is gone.
    """
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
