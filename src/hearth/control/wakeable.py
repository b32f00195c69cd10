"""Which sandboxes can be woken, and what is said of those that cannot."""

from __future__ import annotations

from hearth.errors import Conflict
from hearth.model import Sandbox, SandboxState

BOOTABLE = (SandboxState.FAILED, SandboxState.LOST)
"""Its machine ended by itself: there is a disk to boot from, for whoever says so."""


def cannot_wake(sandbox: Sandbox) -> Conflict:
    """Say why a sandbox cannot be used now and what to do."""
    way_out = "wait a moment and try again"
    if sandbox.state in BOOTABLE:
        way_out = "start it with --force to boot from its disk, or destroy it"
    elif sandbox.state is SandboxState.STOPPED:
        way_out = "start it, or just use it"
    return Conflict(
        "the sandbox does not run",
        details=f"{sandbox.spec.name} is {sandbox.state}" + (f": {sandbox.error}" if sandbox.error else ""),
        resolution=way_out,
    )


def given_up(sandbox: Sandbox, tries: int) -> Conflict:
    """Say that a memory is left alone from which nothing could be started ``tries`` times."""
    return Conflict(
        "the sandbox could not be woken",
        details=f"{sandbox.spec.name}: {tries} attempts failed",
        resolution="start it with --force to boot from its disk; what was in memory is lost then",
    )
