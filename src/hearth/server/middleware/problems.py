"""The one place where errors become answers: the problem goes to the caller, its cause to the log."""

from __future__ import annotations

import math

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.api.limits import JSON
from hearth.api.problems import internal_error, problem_of, status_of
from hearth.errors import Code, HearthError, RangeNotSatisfiable, RequestTimeout, TooLarge, Unauthenticated
from hearth.metrics.instruments import ERRORS
from hearth.server.resource import WrongMethod

log = structlog.get_logger(__name__)

EXPECTED = frozenset({Code.TIMEOUT, Code.GUEST_FAILED, Code.UNAVAILABLE, Code.NO_SPACE, Code.HOST_UNFIT})
"""Failures that are part of running strangers' programs: their words tell all, a traceback only drowns the log."""


RETRY_AFTER_S = 1.0
"""What a caller is told to wait where the error does not say how long."""


class Problems:
    """Translates everything raised inside. An answer that has begun is cut off, since its status is out already."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
            return
        except ClientDisconnect:
            return
        except HearthError as error:
            problem = error
            note(error)
        except Exception:
            # The request ends here; the caller learns the id under which the log tells what happened.
            log.exception("unexpected error")
            ERRORS.labels(Code.INTERNAL.value).inc()
            problem = internal_error(scope["state"]["request_id"])
        if not begun:
            await _answer(problem, scope["state"]["request_id"])(scope, receive, send)


def note(error: HearthError) -> None:
    """Log an error: with its causes when it is ours, in one line when a guest, the host or the caller is at fault."""
    ERRORS.labels(error.code.value).inc()
    if error.code in EXPECTED:
        log.warning("request failed", code=error.code.value, error=str(error))
    elif status_of(error) >= 500:
        log.error("request failed", code=error.code.value, error=str(error), exc_info=error)
    else:
        log.info("request refused", code=error.code.value, error=str(error))


def _answer(error: HearthError, request_id: str) -> Response:
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, WrongMethod):
        headers["Allow"] = ", ".join(error.allowed)
    elif isinstance(error, TooLarge | RequestTimeout):
        headers["Connection"] = "close"  # what is left of the body is not worth reading
    if (status := status_of(error)) in (429, 503):
        after_s = getattr(error, "retry_after_s", RETRY_AFTER_S)
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
        headers["Retry-After-Ms"] = str(max(1, math.ceil(after_s * 1000)))
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    body = msgspec.json.encode(problem_of(error, request_id))
    return Response(body, status_code=status, headers=headers, media_type=JSON)
