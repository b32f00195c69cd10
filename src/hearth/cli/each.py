"""The same thing done to each of several: one that fails does not keep the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hearth.cli.exits import FAILED, show_error
from hearth.cli.show import show_json
from hearth.errors import HearthError
from hearth.sdk.client import Sandbox


def to_each(names: Sequence[str], deed: Callable[[str], object]) -> int:
    """Do it to each and print the names of those it was done to; 1 when one failed, which stderr tells."""
    status = 0
    for name in names:
        try:
            deed(name)
        except HearthError as error:
            show_error(error)
            status = FAILED
        else:
            print(name, flush=True)
    return status


def change_each(names: Sequence[str], change: Callable[[str], Sandbox], *, json: bool) -> int:
    """Change each sandbox; print names, or as JSON the list of what they are then."""
    if not json:
        return to_each(names, change)
    views, status = [], 0
    for name in names:
        try:
            views.append(change(name).view)
        except HearthError as error:
            show_error(error)
            status = FAILED
    show_json(views)
    return status
