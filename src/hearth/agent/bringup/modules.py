"""Kernel modules, in the order the image builder listed them."""

from __future__ import annotations

from collections.abc import Callable

from hearth.agent import syscalls

MODULES_LIST = "/hearth/modules.list"


def load_modules(say: Callable[[str], None], listing: str = MODULES_LIST) -> None:
    """Load every module; one that this machine does not take is told and left: a later step shows if it matters."""
    try:
        with open(listing, encoding="ascii") as file:
            paths = file.read().split()
    except FileNotFoundError:
        return
    for path in paths:
        try:
            syscalls.finit_module(path)
        except OSError as error:
            say(f"module {path}: {error.strerror}")
