"""A file of the host that no image may lead to: the kernel tells whether anybody opened it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hearth.agent import syscalls

IN_ACCESS, IN_OPEN = 1, 0x20
"""linux/inotify.h"""
EVENTS_BYTES = 4096
READ_BYTES = 1 << 20


class Canary:
    """The file, and what was done to it."""

    def __init__(self, path: Path, watch: int) -> None:
        self.path = path
        self.secret = secrets.token_hex(64).encode()
        path.write_bytes(self.secret * 20_000)
        self._watch = watch
        syscalls.inotify_add_watch(watch, str(path), IN_ACCESS | IN_OPEN)

    def was_opened(self) -> bool:
        """Whether anybody opened it since it was made."""
        try:
            return bool(os.read(self._watch, EVENTS_BYTES))
        except BlockingIOError:
            return False

    def is_in(self, root: Path) -> bool:
        """Whether a file below ``root`` holds its secret."""
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                before = b""
                with path.open("rb") as file:
                    while data := file.read(READ_BYTES):
                        if self.secret in before + data:
                            return True
                        before = data[-len(self.secret) :]
        return False


@contextlib.contextmanager
def canary(path: Path) -> Iterator[Canary]:
    """Put one at ``path``."""
    watch = syscalls.inotify_init()
    try:
        yield Canary(path, watch)
    finally:
        os.close(watch)
