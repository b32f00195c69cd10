"""What a daemon knows of a sandbox only while it runs: how hot it is, who uses it, when it was last used.

One transition at a time: whoever changes a sandbox's heat holds its lock, and the decision is made again under it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hearth.errors import HearthError
from hearth.model import Heat

OnHeat = Callable[[Heat], None]
"""Called with how hot a sandbox became."""


def _nobody(*_: object) -> None:
    """Nobody wants to know."""


@dataclass(kw_only=True)
class Resident:
    """One sandbox. ``users`` counts operations under way, ``used_at_s`` is on the monotonic clock.

    ``wakes`` counts attempts to wake it that have ended, ``wake_error`` is what came of a failed last one;
    ``halted`` tells why the VMM stopped the CPUs by itself, if it did; ``perhaps_frozen`` that a daemon died while its
    file systems may have been frozen for a snapshot.
    """

    heat: Heat = Heat.COLD
    users: int = 0
    used_at_s: float = field(default_factory=time.monotonic)
    paged_out: bool = False
    perhaps_frozen: bool = False
    failed_starts: int = 0
    wakes: int = 0
    wake_error: HearthError | None = None
    halted: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    volumes_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of whoever attaches or detaches; taken before ``lock``."""
    on_heat: OnHeat = _nobody

    def __setattr__(self, name: str, value: object) -> None:
        changed = name == "heat" and isinstance(value, Heat) and getattr(self, name, value) is not value
        super().__setattr__(name, value)
        if changed:
            self.on_heat(self.heat)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count as use, which keeps the thermal loop off, for the length of the context."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.touch()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Keep it from being paused for the length of the context without counting as use."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def touch(self) -> None:
        """Count as used now."""
        self.used_at_s = time.monotonic()

    def idle_s(self) -> float:
        """Tell for how many seconds nobody has used it."""
        return 0.0 if self.users else time.monotonic() - self.used_at_s

    @property
    def settled(self) -> bool:
        """True when it is hot and nobody is changing that."""
        return self.heat is Heat.HOT and not self.lock.locked()


class Residents:
    """All sandboxes of this daemon, by id. One that was never seen is cold."""

    def __init__(self) -> None:
        self._residents: dict[str, Resident] = {}
        self.on_heat: Callable[[str, Heat], None] = _nobody
        self.on_forget: Callable[[str], None] = _nobody_asks
        """Called with the id of each sandbox that is gone for good."""

    def __getitem__(self, sandbox_id: str) -> Resident:
        resident = self._residents.get(sandbox_id)
        if resident is None:
            resident = Resident(on_heat=lambda heat: self.on_heat(sandbox_id, heat))
            self._residents[sandbox_id] = resident
        return resident

    def look_at(self, sandbox_id: str) -> Resident:
        """Give what is known of a sandbox that may be gone by now; of an unknown one nothing is kept."""
        return self._residents.get(sandbox_id) or Resident()

    def forget(self, sandbox_id: str) -> None:
        """Drop what is known of a destroyed sandbox."""
        self._residents.pop(sandbox_id, None)
        self.on_forget(sandbox_id)

    def count(self) -> dict[Heat, int]:
        """Count by heat."""
        heats = [resident.heat for resident in self._residents.values()]
        return {heat: heats.count(heat) for heat in Heat}


def _nobody_asks(_sandbox_id: str) -> None:
    """Stand in until somebody wants to know."""
