"""PID 1's own duty after bring-up: keep the agent running, reap orphans, and end the machine when asked.

Only here is ``waitpid(-1)`` called. The agent's children are not ours: they come to us only once it is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from hearth.agent.handover import Handover

POWER_OFF_SIGNAL = signal.SIGUSR2
"""What the agent sends to PID 1 to have the machine switched off."""
TERM_GRACE_S = 2.0
_RESTART_PAUSE_S = 0.2
_MAX_RESTART_PAUSE_S = 5.0
_HEALTHY_S = 30.0
_POLL_S = 0.01


class PowerOffAsked(Exception):
    """Raised out of the wait by the signal."""


def supervise(run_agent: Callable[[], None], say: Callable[[str], None], handover: Handover) -> None:
    """Run the agent in a child, again and again, until power-off is asked for.

    ``run_agent`` runs in a fork of this process, which has imported everything: no second start of an interpreter. What
    an agent ran ends with it: nobody would be left to read its output, hold its time limit or answer for it, and the
    next agent starts the init script itself.
    """
    pause_s = _RESTART_PAUSE_S
    with contextlib.suppress(PowerOffAsked):
        signal.signal(POWER_OFF_SIGNAL, _raise_power_off)
        while True:
            started = time.monotonic()
            status = _wait_for(_fork(run_agent, say))
            ended = handover.end_groups()
            if time.monotonic() - started > _HEALTHY_S:
                pause_s = _RESTART_PAUSE_S
            code = os.waitstatus_to_exitcode(status)
            say(f"agent ended with status {code}, and {ended} process groups with it; starting it again")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_RESTART_PAUSE_S)
    signal.signal(POWER_OFF_SIGNAL, signal.SIG_IGN)


def end_processes() -> None:
    """End every other process: politely, then not."""
    for number, grace_s in ((signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, TERM_GRACE_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                time.sleep(_POLL_S)


def _wait_for(agent: int) -> int:
    """Reap whatever ends until it is the agent, and give its status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == agent:
            return status


def _fork(run_agent: Callable[[], None], say: Callable[[str], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(POWER_OFF_SIGNAL, signal.SIG_DFL)
    code = 1
    try:
        run_agent()
        code = 0
    except Exception as error:  # noqa: BLE001 -- the process ends here, and init says and restarts
        say(f"agent failed: {type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _raise_power_off(_number: int, _frame: FrameType | None) -> None:
    raise PowerOffAsked
