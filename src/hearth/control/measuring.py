"""Puts the taking of snapshots and the waking of sandboxes into figures."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

from hearth.metrics.recording import snapshot, waking
from hearth.model import Heat

P = ParamSpec("P")
T = TypeVar("T")


class _Stored(Protocol):
    @property
    def size_bytes(self) -> int: ...


class _Taken(Protocol):
    @property
    def snapshot(self) -> _Stored: ...

    @property
    def paused_s(self) -> float: ...


Taken = TypeVar("Taken", bound=_Taken)


def measured(taking: Callable[P, Awaitable[Taken]]) -> Callable[P, Coroutine[Any, Any, Taken]]:
    """Time what takes snapshots; its keyword ``stay_paused`` tells those of machines that go to sleep from copies."""

    @functools.wraps(taking)
    async def timed(*args: P.args, **kwargs: P.kwargs) -> Taken:
        with snapshot(to_sleep=bool(kwargs["stay_paused"])) as current:
            taken = await taking(*args, **kwargs)
            current.taken(paused_s=taken.paused_s, size_bytes=taken.snapshot.size_bytes)
        return taken

    return timed


def waking_of(heat: Heat, wake: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Time a wake; one that finds its sandbox hot, only perhaps frozen, counts as warm."""
    return waking("cold" if heat is Heat.COLD else "warm", wake)
