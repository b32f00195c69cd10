"""What this engine's machines can do beyond running: seen once, refused with words where it is asked for in vain."""

from __future__ import annotations

from hearth.engine.base import Engine, GrowingMachine, Machine, SleepingEngine, SleepingMachine
from hearth.errors import Conflict


def sleeping(engine: Engine) -> SleepingEngine:
    """Give the engine as one whose machines sleep.

    Raises:
        Conflict: this one's do not.
    """
    if not isinstance(engine, SleepingEngine):
        raise _sleepless(engine.name)
    return engine


def awake(machine: Machine) -> SleepingMachine:
    """Give the machine as one that can be paused and captured.

    Raises:
        Conflict: this one cannot.
    """
    if not isinstance(machine, SleepingMachine):
        raise _sleepless(machine.id)
    return machine


def growing(machine: Machine) -> GrowingMachine:
    """Give the machine as one whose disk can grow.

    Raises:
        Conflict: this one's cannot.
    """
    if not isinstance(machine, GrowingMachine):
        raise Conflict("this engine's machines have no disks of their own size", details=machine.id)
    return machine


def _sleepless(what: str) -> Conflict:
    return Conflict("this engine's machines do not sleep", details=what, resolution="use the engine qemu")
