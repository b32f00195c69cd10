"""What is asked of guests, as figures: the agent's first words, commands, bytes to and from ports."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from hearth.metrics.instruments import AGENT_SECONDS, EXECS_ENDED, PROXY_BYTES
from hearth.metrics.tracing import begin
from hearth.wire.frames import HEADER_SIZE, FrameType

TYPE_AT = HEADER_SIZE - 1
HIGHEST_OWN_CODE = 128
UNKNOWN = "unknown"
_NAMES = {int(kind): kind.name.lower().removesuffix("_req") for kind in FrameType}
_SECONDS: dict[int, Histogram] = {}
_EXITS = {outcome: EXECS_ENDED.labels(outcome) for outcome in ("zero", "nonzero", "signal")}
FROM_SANDBOX, TO_SANDBOX = PROXY_BYTES.labels("from_sandbox"), PROXY_BYTES.labels("to_sandbox")


class Asked:
    """A request to an agent; called once, with the first that shows that it was looked at."""

    __slots__ = ("_end", "_kind", "_started_s", "_then")

    def __init__(self, request: bytes, then: Callable[[], None] | None) -> None:
        self._kind = request[TYPE_AT] if len(request) > TYPE_AT else 0
        self._then = then
        self._end = begin(f"agent {_NAMES.get(self._kind, UNKNOWN)}")
        self._started_s = time.perf_counter()

    def __call__(self) -> None:
        elapsed_s = time.perf_counter() - self._started_s
        seconds = _SECONDS.get(self._kind)
        if seconds is None:
            seconds = _SECONDS[self._kind] = AGENT_SECONDS.labels(_NAMES.get(self._kind, UNKNOWN))
        seconds.observe(elapsed_s)
        self._end(None)
        if self._then is not None:
            self._then()

    def unanswered(self) -> None:
        """Tell that the connection was closed before an answer, or after a refusal."""
        self._end("refused, or not answered")


def count_exit(code: int) -> int:
    """Count a command that was seen to end, and give its exit code back."""
    _EXITS["zero" if code == 0 else "signal" if code > HIGHEST_OWN_CODE else "nonzero"].inc()
    return code


class Counted:
    """Something open: counted once when it is made and once when it ends, however often that is told."""

    __slots__ = ("_active", "_is_open")

    def __init__(self, active: Gauge, opened: Counter) -> None:
        opened.inc()
        active.inc()
        self._active = active
        self._is_open = True

    def end(self) -> None:
        """Count the end."""
        if self._is_open:
            self._is_open = False
            self._active.dec()
