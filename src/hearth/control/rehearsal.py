"""Has a machine do ahead of time what its user is going to wait for: become somebody, run a command, be stopped.

A template that did it has the pages and the agent's caches of it in its memory. A clone in the pool has the code
translated, too: under emulation most of a first answer's time, and in no snapshot.
"""

from __future__ import annotations

from hearth.errors import StartFailed
from hearth.guest.client import Guest
from hearth.jobs.bringup import CONFIGURE_TIMEOUT_S, Workshop
from hearth.wire.messages import ExecRequest

COMMAND = ExecRequest(argv=["/bin/sh", "-c", "ls / | cat"])
"""A shell, a pipe, programs that start, look around and write: most first commands are made of that."""
COMMAND_TIMEOUT_S = 30.0
HOSTNAME = "sandbox"
NO_TOKEN = ""
"""Whoever can reach the agent may speak to it, as to one that was never configured."""


async def rehearse(workshop: Workshop, guest: Guest, machine_id: str, *, lives: int, token: str | None) -> None:
    """Have a machine begin so many lives, each with an identity and a command. Thaws it.

    Args:
        guest: of the machine; what it used to speak to the agent is left closed.
        token: of the agent from then on; None for the one of the sandbox ``machine_id``.

    Raises:
        GuestFailed, TimedOut: the guest did not answer, or wrongly.
    """
    for life in range(lives):
        # Not the generation it gets in the end: that has to be a new life, too.
        generation = workshop.generation(f"{machine_id}/{life}")
        identity = workshop.identity(machine_id, hostname=HOSTNAME, generation=generation, token=token)
        await guest.configure(identity, timeout_s=CONFIGURE_TIMEOUT_S)
        await guest.activity()
        await _run_nothing(guest)
    guest.disconnect()


async def rehearse_stop(guest: Guest) -> None:
    """Have a machine freeze and thaw: the first time takes one that is emulated five times as long as the second.

    Args:
        guest: as ``rehearse`` left it; its connection is closed again.

    Raises:
        HearthError: its file systems cannot be frozen, so that it could not be stopped either.
    """
    await guest.freeze()
    await guest.thaw()
    guest.disconnect()


async def _run_nothing(guest: Guest) -> None:
    try:
        await guest.run(COMMAND, timeout_s=COMMAND_TIMEOUT_S, max_output_bytes=0)
    except StartFailed:  # the image has no shell: it was looked for
        return
