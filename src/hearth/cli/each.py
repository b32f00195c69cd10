"""The same thing done to each of several: one that fails does not keep the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hearth.cli.exits import FAILED, show_error
from hearth.cli.show import show_json
from hearth.errors import HearthError
from hearth.sdk.client import Sandbox


def to_each(names: Sequence[str], deed: Callable[[str], object], *, json: bool) -> int:
    """Do it to each and print the names of those it was done to; 1 when one failed, which stderr tells.

    As JSON what came of each is a list of ``{"name", "done"}``, of failures with what the API
    tells of an error.
    """
    outcomes: list[dict[str, object]] = []
    for name in names:
        shown = name.encode("utf-8", "backslashreplace").decode()  # whatever a command line can hold
        try:
            deed(name)
        except HearthError as error:
            show_error(error)
            outcomes.append({"name": shown, "done": False, **error.told()})
        else:
            outcomes.append({"name": shown, "done": True})
            if not json:
                print(name, flush=True)
    if json:
        show_json(outcomes)
    return 0 if all(outcome["done"] for outcome in outcomes) else FAILED


def change_each(names: Sequence[str], change: Callable[[str], Sandbox], *, json: bool) -> int:
    """Change each sandbox; print names, or as JSON the list of what they are then."""
    if not json:
        return to_each(names, change, json=False)
    views, status = [], 0
    for name in names:
        try:
            views.append(change(name).view)
        except HearthError as error:
            show_error(error)
            status = FAILED
    show_json(views)
    return status
