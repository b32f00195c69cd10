"""What is raised when an operation fails because the sandbox's machine ended, with the reason why it did."""

from __future__ import annotations

from hearth.api.schemas import ExitCauseView, SandboxView
from hearth.errors import Conflict, GuestFailed, HearthError

NEWS_LOOKS = 40
"""A broken connection is often known before why it broke: so often the daemon is asked. Looks, not seconds: on a host
that stood still all the time may be over before the daemon had any of it."""
NEWS_POLL_S = 0.05
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0
"""Between attempts to come back to a command."""
REVIVAL = "start it with --force to boot from its disk, or destroy it"
DEAD = frozenset({"failed", "lost"})


class SandboxDied(GuestFailed, Conflict):
    """The machine ended while the operation needed it, or before; ``cause`` tells why.

    It is both what it would be without the cause: a guest that went away, a sandbox that does not run.
    """

    def __init__(self, cause: ExitCauseView, error: HearthError) -> None:
        super().__init__(
            "the sandbox's machine ended",
            details=f"{cause.kind}: {cause.detail}",
            resolution=REVIVAL if error.resolution == type(error).next_step else error.resolution,
        )
        self.cause = cause
        self.code, self.request_id = error.code, error.request_id


def cause_in(view: SandboxView) -> ExitCauseView | None:
    """Give why the machine ended; None when it did not, or another runs."""
    return view.exit_cause if view.state in DEAD else None


def may_be_news(view: SandboxView) -> bool:
    """Tell whether the end of a machine may not have been noticed yet."""
    return view.state == "running"
