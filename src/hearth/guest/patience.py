"""How long the host waits for a guest, wait by wait, all in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Bounds in seconds; the defaults leave room for an emulated machine on a busy host."""

    connect_s: float = 5.0
    """Reaching the agent, with as many attempts as it takes; and as long again for it to take the request."""
    slot_s: float = 10.0
    """An operation waiting for one of the connections to come free."""
    reply_s: float = 15.0
    """A reply that needs no work, the opening of a session, a file or an archive."""
    work_s: float = 60.0
    """An operation on files without a body: removing or listing a large tree takes its time."""
    stall_s: float = 30.0
    """A body standing still, in either direction."""


DEFAULT_PATIENCE = Patience()
