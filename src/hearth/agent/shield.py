"""Keeps the kernel's out-of-memory killer from this process, and leaves what it starts to it.

A child inherits the score at its fork. Set right only afterwards, whatever it started itself by then would be safe from
the killer for good; so ours is the ordinary one for the moment of the fork (``oom_score_adj`` of proc(5)).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATH = "/proc/self/oom_score_adj"
SAFE = -1000
"""The kernel never chooses a process of this score."""
_ORDINARY = b"0"


class Shield:
    """One for the whole process, as the score is. Down and out of use until ``raise_up``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._score = b""

    def raise_up(self, score: int = SAFE) -> None:
        """Have this score from now on, at every moment but that of a fork.

        Raises:
            OSError: not root, or there is no /proc.
        """
        descriptor = os.open(PATH, os.O_WRONLY | os.O_CLOEXEC)
        self._score = b"%d" % score
        os.write(descriptor, self._score)
        if self._descriptor is not None:  # of the process this one was forked from
            os.close(self._descriptor)
        self._descriptor = descriptor

    @contextmanager
    def lowered(self) -> Iterator[None]:
        """Let what is forked in the block have an ordinary score.

        Raises:
            OSError: the score cannot be changed; nothing must be forked then.
        """
        if self._descriptor is None:
            yield
            return
        with self._lock:
            os.write(self._descriptor, _ORDINARY)
            try:
                yield
            finally:
                os.write(self._descriptor, self._score)


SHIELD = Shield()
