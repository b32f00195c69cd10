"""Shuts the import system before the agent serves anybody: below the sandbox's root, a module is the sandbox's."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Sequence
from types import ModuleType

from hearth.wire.runtime_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

REFUSAL = "hearth: refused to import"


class _Refuse:
    """The only finder left; it says so on stderr, as an import at this point is our mistake."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        say(f"{REFUSAL} {name}")
        raise ImportError(f"{name} was not imported before the agent was sealed")


def seal() -> None:
    """Refuse every import from now on, and keep the interpreter from opening source files for tracebacks."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [_Refuse()]
    threading.excepthook = _report_thread
    gc.collect()
    gc.freeze()  # what was imported lives as long as the process: no collection need look at it again
    sys.tracebacklimit = 0


def say(line: str) -> None:
    """Write one line to stderr, in one piece; a stderr that is gone is no reason to end."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def describe(error: BaseException) -> str:
    """Tell an unexpected error with the places it passed, without reading any source file."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_qualname}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (in {' > '.join(places)})"


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        say(f"hearth: thread ended: {describe(arguments.exc_value)}")
