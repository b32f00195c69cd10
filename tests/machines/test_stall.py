"""A machine that stands still for a while, as one does on a swamped host: what is asked of it meanwhile waits."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from tests.machines.test_first_light import vmm_of

from hearth.errors import GuestFailed
from hearth.guest.patience import DEFAULT_PATIENCE
from hearth.sdk.client import Sandbox

STALL_S = 3.0


@contextlib.contextmanager
def stopped(pid: int, *, for_s: float | None = None) -> Iterator[None]:
    """Stop a process for so long, or until the block ends."""
    going_on = threading.Timer(for_s or 0, os.kill, (pid, signal.SIGCONT))
    os.kill(pid, signal.SIGSTOP)
    try:
        if for_s is not None:
            going_on.start()
        yield
    finally:
        going_on.cancel()
        if for_s is not None:
            going_on.join()
        os.kill(pid, signal.SIGCONT)


def test_a_command_waits_for_a_machine_that_stalls(sandbox: Sandbox) -> None:
    assert sandbox.run(["echo", "before"]).stdout == "before\n"
    started = time.monotonic()
    with stopped(vmm_of(sandbox), for_s=STALL_S):
        assert sandbox.run(["echo", "after"]).stdout == "after\n"
    assert time.monotonic() - started >= STALL_S


def test_a_machine_that_stays_still_is_given_as_long_the_second_time_as_the_first(sandbox: Sandbox) -> None:
    with stopped(vmm_of(sandbox)):
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(GuestFailed, match="cannot be reached"):
                sandbox.run(["true"])
            assert time.monotonic() - started >= DEFAULT_PATIENCE.connect_s - 0.5
    assert sandbox.run(["echo", "again"]).stdout == "again\n"
