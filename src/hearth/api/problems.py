"""Errors on the way out and in: code ↔ HTTP status, error → problem, problem → the same typed error."""

from __future__ import annotations

from hearth import errors
from hearth.api.schemas import ErrorEvent, Problem
from hearth.errors import Code, HearthError

STATUS: dict[Code, int] = {
    Code.INVALID: 400,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.CONFLICT: 409,
    Code.CANCELLED: 409,
    Code.LENGTH_REQUIRED: 411,
    Code.TOO_LARGE: 413,
    Code.RANGE_NOT_SATISFIABLE: 416,
    Code.START_FAILED: 422,
    Code.INIT_FAILED: 422,
    Code.RATE_LIMITED: 429,
    Code.QUOTA_EXCEEDED: 429,
    Code.INTERNAL: 500,
    Code.ENGINE_FAILED: 500,
    Code.GUEST_FAILED: 502,
    Code.UNAVAILABLE: 503,
    Code.HOST_UNFIT: 503,
    Code.TIMEOUT: 504,
    Code.NO_SPACE: 507,
}

_CLASSES: dict[Code, type[HearthError]] = {
    value.code: value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, HearthError) and value is not HearthError
}


def status_of(error: HearthError) -> int:
    """Give the HTTP status of an error."""
    return STATUS[error.code]


def problem_of(error: HearthError, request_id: str) -> Problem:
    """Give the answer's body. The cause is not part of it: causes stay in the log."""
    return Problem(
        error=error.brief,
        code=error.code.value,
        details=error.details,
        resolution=error.resolution,
        request_id=request_id,
    )


def event_of(error: HearthError, request_id: str) -> ErrorEvent:
    """Give the last line of a stream that failed after it began."""
    return ErrorEvent(
        error=error.brief,
        code=error.code.value,
        details=error.details,
        resolution=error.resolution,
        request_id=request_id,
    )


def internal_error(request_id: str) -> HearthError:
    """Give what a caller is told of an error nobody expected: nothing but where to look."""
    return HearthError(
        "internal error",
        details="the daemon met an error it did not expect",
        resolution=f"look for request {request_id} in the daemon's log and report it",
    )


def error_from(problem: Problem | ErrorEvent) -> HearthError:
    """Rebuild the error a problem was made of; an unknown code of a newer daemon becomes ``internal``."""
    try:
        code = Code(problem.code)
    except ValueError:
        code = Code.INTERNAL
    error = _CLASSES.get(code, HearthError)(problem.error, details=problem.details, resolution=problem.resolution)
    error.code, error.request_id = code, problem.request_id
    return error
