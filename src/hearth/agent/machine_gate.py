"""Whether the sandbox may be used: not while its machine is given its identity, nor after that has failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hearth.agent.refusal import Refused
from hearth.wire.faults import Fault, write_fault
from hearth.wire.frames import FrameType

ALWAYS_ANSWERED = frozenset(
    {
        FrameType.CONFIGURE,
        FrameType.ACTIVITY_REQ,
        FrameType.FREEZE_REQ,
        FrameType.THAW_REQ,
        FrameType.LAST_WORDS_REQ,
        FrameType.POWER_OFF_REQ,
    }
)
"""What the host needs to find out, to try again or to give up; none of it runs anything of the sandbox."""


class Gate:
    """Open at first, as a machine that was never configured has no identity to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusal: str | None = None

    def check(self, frame_type: int) -> None:
        """Let a request pass.

        Raises:
            Refused: it is closed to this one.
        """
        refusal = self._refusal
        if refusal is not None and frame_type not in ALWAYS_ANSWERED:
            raise Refused(refusal)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Close for as long as the block takes, one block at a time; it opens only when the block ends well."""
        with self._lock:
            self._refusal = write_fault(Fault.BUSY, "the machine is being configured")
            try:
                yield
            except BaseException:
                self.shut()
                raise
            self._refusal = None

    def shut(self) -> None:
        """Stay closed until a block ends well."""
        self._refusal = write_fault(Fault.INTERNAL, "the machine's last configuration failed: it serves nothing")
