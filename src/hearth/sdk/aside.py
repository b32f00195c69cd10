"""Work on local files for the blocking half of the SDK, which simply does it; the twin of ``async_aside``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")
Lock = threading.Lock


def aside(work: Callable[Parameters, Value], *args: Parameters.args, **options: Parameters.kwargs) -> Value:
    """Do it here and now."""
    return work(*args, **options)


def try_acquire(lock: threading.Lock) -> bool:
    """Take a lock unless somebody has it."""
    return lock.acquire(blocking=False)
