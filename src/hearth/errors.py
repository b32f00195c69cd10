"""The one error tree of the host side.

Every error has a code from a closed list, a brief sentence, the details of this case and what to do about it.
It is raised where it is known, translated once at each boundary with ``from`` and shown once.

    HearthError
    ├── the subclasses below, one for each code that callers tell apart
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """The closed list of error codes; ``hearth.api`` maps each to an HTTP status."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    REQUEST_TIMEOUT = "request_timeout"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    NO_SPACE = "no_space"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    START_FAILED = "start_failed"
    GUEST_FAILED = "guest_failed"
    ENGINE_FAILED = "engine_failed"
    HOST_UNFIT = "host_unfit"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class HearthError(Exception):
    """Root of all errors hearth raises on purpose.

    Args:
        brief: one sentence without the particulars, for a person.
        details: what exactly happened, naming the field or object.
        resolution: what the reader can do about it.
        field: the input field at fault, where there is one.
    """

    code: Code = Code.INTERNAL

    def __init__(self, brief: str, *, details: str = "", resolution: str = "", field: str | None = None) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.field = field

    def __str__(self) -> str:
        parts = [self.brief]
        if self.details:
            parts.append(self.details)
        if self.resolution:
            parts.append(self.resolution)
        return ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")


class InvalidInput(HearthError):
    """A value from outside is not acceptable; ``field`` names it."""

    code = Code.INVALID


class Unauthenticated(HearthError):
    code = Code.UNAUTHENTICATED


class Forbidden(HearthError):
    code = Code.FORBIDDEN


class NotFound(HearthError):
    code = Code.NOT_FOUND


class MethodNotAllowed(HearthError):
    code = Code.METHOD_NOT_ALLOWED


class Conflict(HearthError):
    """The object exists already or is in a state that does not allow the operation."""

    code = Code.CONFLICT


class TooLarge(HearthError):
    code = Code.TOO_LARGE


class RequestTimeout(HearthError):
    """The caller was too slow to say what it wants."""

    code = Code.REQUEST_TIMEOUT


class RateLimited(HearthError):
    """Too much was asked in too short a time; after ``retry_after_s`` it may be asked again."""

    code = Code.RATE_LIMITED
    retry_after_s = 1.0


class QuotaExceeded(HearthError):
    """A user has as much as may be had; ``details`` tell of what, how much there is and how much may be."""

    code = Code.QUOTA_EXCEEDED


class NoSpace(HearthError):
    """The disk or a pool is full; nothing half-made is left."""

    code = Code.NO_SPACE


class Unavailable(HearthError):
    code = Code.UNAVAILABLE


class TimedOut(HearthError):
    code = Code.TIMEOUT


class StartFailed(HearthError):
    """A command could not be started in the guest (missing program, directory or permission)."""

    code = Code.START_FAILED


class GuestFailed(HearthError):
    """The guest or its agent answered wrongly, not at all, or went away."""

    code = Code.GUEST_FAILED


class EngineFailed(HearthError):
    """The virtual machine monitor could not do its work."""

    code = Code.ENGINE_FAILED


class HostUnfit(HearthError):
    """This host lacks something hearth needs (a tool, a right, a kernel feature)."""

    code = Code.HOST_UNFIT


class Cancelled(HearthError):
    code = Code.CANCELLED
