"""How long the agent waits for what, all in one place."""

from __future__ import annotations

from hearth.wire.record import Record


class Patience(Record):
    """Bounds in seconds. A client is never hurried for being slow to read: that is back-pressure."""

    auth_s: float = 5.0
    """A whole AUTH frame, from the connection on."""
    request_s: float = 30.0
    """A whole request, from the connection on."""
    body_s: float = 300.0
    """The next frame of a body, and how far a body may lag behind the least rate (``body.LEAST_RATE``)."""
    exited_kept_s: float = 30.0
    """A session that has ended keeps its exit code and its last output."""
    kept_s: float = 3600.0
    """A kept command that has ended is remembered for its host, with what output that has not taken yet."""
    peer_lost_s: float = 60.0
    """A TCP peer that vanished without a word, as a host does from a machine that was restored elsewhere."""
