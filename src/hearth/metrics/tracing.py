"""Spans, where somebody wants them: without a tracer each costs one look at a variable, and no library is loaded.

``hearth.metrics.otel`` has the tracer; ``hearth.server.observability`` loads it when a collector is named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]
End = Callable[[str | None], None]
"""Ends a span; the words say what went wrong, None nothing."""
Headers = list[tuple[bytes, bytes]]


class Request(Protocol):
    """The span of a request under way."""

    @property
    def traceparent(self) -> str:
        """What the answer, and other programs, are told of it (W3C Trace Context, level 1)."""
        ...

    @property
    def trace_id(self) -> str:
        """32 hex digits, for logs."""
        ...

    def answered(self, route: str, status: int) -> None:
        """Tell what became of it."""
        ...


class Tracer(Protocol):
    """Where spans go."""

    def request(
        self, name: str, attributes: Attributes, headers: Headers
    ) -> contextlib.AbstractContextManager[Request]:
        """Begin what a caller asks for, as part of the caller's own trace where the headers name one."""
        ...

    def span(self, name: str, attributes: Attributes) -> contextlib.AbstractContextManager[None]:
        """Begin a part of what is under way; it ends with the context, in failure when an error passes."""
        ...

    def begin(self, name: str, attributes: Attributes) -> End:
        """Begin a part whose end is told by a call."""
        ...

    def close(self) -> None:
        """Send what was not sent yet; blocking, for some seconds at the most."""
        ...


_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


class _Current:
    """The tracer of this process."""

    tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Send spans there from now on; None ends that."""
    _Current.tracer = tracer


def tracer() -> Tracer | None:
    """Give where spans go; None where nobody wants them."""
    return _Current.tracer


def span(name: str, **attributes: str | int | float | bool) -> contextlib.AbstractContextManager[None]:
    """Make what runs inside a span."""
    current = _Current.tracer
    return _NOTHING if current is None else current.span(name, attributes)


def begin(name: str, **attributes: str | int | float | bool) -> End:
    """Begin a span that outlives the call."""
    current = _Current.tracer
    return _ignore if current is None else current.begin(name, attributes)


def _ignore(_failure: str | None) -> None:
    """There is no span to end."""
