"""Which requests are sent again, and after how long: what may have been done already is not done twice; no I/O."""

from __future__ import annotations

import time

from hearth.errors import Code, Unavailable
from hearth.sdk.call import read_problem
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse

PATIENCE_S = 30.0
"""How long a call is tried again before its failure is told: longer than a daemon takes to restart."""
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 2.0


class Retries:
    """The attempts at one request.

    Sent again is what may be repeated and was cut off, or met a daemon that is about to stop; and whatever was refused
    for its rate. A daemon that is not there from the start is not waited for.
    """

    def __init__(self, request: HttpRequest, patience_s: float) -> None:
        self._may_repeat = request.may_repeat
        self._deadline_s = time.monotonic() + patience_s
        self._pause_s = FIRST_PAUSE_S
        self._was_there = False

    def after_loss(self, error: Unavailable) -> float | None:
        """Give the pause, in seconds, before the next attempt; None: there is to be none."""
        self._was_there = self._was_there or isinstance(error, ConnectionLost)
        if not (self._may_repeat and self._was_there):
            return None
        return self._unless_late(self._pause_s)

    def after_answer(self, response: HttpResponse) -> float | None:
        """Give the pause, in seconds, before the next attempt; None: this answer it is."""
        if response.status not in (429, 503):
            return None
        code = read_problem(response).code
        if not (code is Code.RATE_LIMITED or (code is Code.UNAVAILABLE and self._may_repeat)):
            return None
        self._was_there = True
        return self._unless_late(max(self._pause_s, _told_s(response)))

    def _unless_late(self, pause_s: float) -> float | None:
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        return pause_s if time.monotonic() + pause_s <= self._deadline_s else None


def _told_s(response: HttpResponse) -> float:
    """Give the seconds that an answer says to wait, as exactly as it says so."""
    for name, each_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        told = response.headers.get(name, "")
        if told.isdecimal() and told.isascii():
            return float(told) * each_s
    return 0.0
