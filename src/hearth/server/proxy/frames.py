"""What of a WebSocket's bytes counts as use: everything but the keep-alive of the sandbox's own side.

A pure look at frame heads as they pass (RFC 6455, section 5.2); nothing is held back or changed. A server that pings an
idle browser tab every 20 s would keep its machine awake for ever, so neither its pings nor the tab's pongs count. A
client that pings wants an answer, so its pings do.
"""

from __future__ import annotations

PING = 0x9
PONG = 0xA
MAX_HEADS = 4_096
"""Looked at in one piece of bytes, which takes some 10 ms; who sends more at once means to keep us busy."""


class FrameWatch:
    """Follows one direction of a WebSocket; ``ignored`` is the opcode of frames that are no use."""

    def __init__(self, ignored: int) -> None:
        self._ignored = ignored
        self._head = b""
        self._left = 0
        self._counts = True
        self._is_lost = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True when some of them count as use.

        What is no WebSocket counts always, and so does all that follows more frames than anybody needs at once.
        """
        if self._is_lost:
            return bool(data)
        used = False
        at = heads = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                used = used or self._counts
                continue
            self._head += data[at : at + 1]
            at += 1
            size = _frame_size(self._head)
            if size is None:
                continue
            self._counts = self._head[0] & 0x0F != self._ignored
            used = used or self._counts
            self._left, self._head = size, b""
            heads += 1
            if heads >= MAX_HEADS:
                self._is_lost = True
                return True
        return used


def _frame_size(head: bytes) -> int | None:
    """Give how many bytes follow a frame's head, None while it is not whole: the key of a mask is part of it."""
    if len(head) < 2:
        return None
    short = head[1] & 0x7F
    extra = {126: 2, 127: 8}.get(short, 0)
    key = 4 if head[1] & 0x80 else 0
    if len(head) < 2 + extra + key:
        return None
    return int.from_bytes(head[2 : 2 + extra], "big") if extra else short
