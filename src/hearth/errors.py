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
    LENGTH_REQUIRED = "length_required"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    NO_SPACE = "no_space"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    START_FAILED = "start_failed"
    INIT_FAILED = "init_failed"
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
        resolution: what the reader can do about it; without a word ``next_step``.
        field: the input field at fault, where there is one.

    ``request_id`` is that of the request that failed, where a daemon told of the error.
    """

    code: Code = Code.INTERNAL
    next_step = "the daemon's log tells more, under the request's id; report it if it stays"
    request_id = ""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "", field: str | None = None) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution or self.next_step
        self.field = field

    def told(self) -> dict[str, str]:
        """Give what a program is told, in the names that the API has for it."""
        told = {
            "error": self.brief,
            "code": self.code.value,
            "details": self.details,
            "resolution": self.resolution,
        }
        return {**told, "request_id": self.request_id} if self.request_id else told

    def __str__(self) -> str:
        parts = [self.brief]
        if self.details:
            parts.append(self.details)
        if self.resolution != self.next_step:  # what holds for every error of its kind tells a log nothing
            parts.append(self.resolution)
        return ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")


class InvalidInput(HearthError):
    """A value from outside is not acceptable; ``field`` names it."""

    code = Code.INVALID
    next_step = "correct it and try again"


class Unauthenticated(HearthError):
    code = Code.UNAUTHENTICATED
    next_step = "use an API key that is valid"


class Forbidden(HearthError):
    code = Code.FORBIDDEN
    next_step = "use a key of a wider scope, or ask an administrator"


class NotFound(HearthError):
    code = Code.NOT_FOUND
    next_step = "list what there is to find the one you mean"


class MethodNotAllowed(HearthError):
    code = Code.METHOD_NOT_ALLOWED
    next_step = "see /openapi.json for what there is"


class Conflict(HearthError):
    """The object exists already or is in a state that does not allow the operation."""

    code = Code.CONFLICT
    next_step = "look at how it is now, and try again"


class TooLarge(HearthError):
    code = Code.TOO_LARGE
    next_step = "send less, or in parts"


class RequestTimeout(HearthError):
    """The caller was too slow to say what it wants."""

    code = Code.REQUEST_TIMEOUT
    next_step = "send it again, faster"


class LengthRequired(HearthError):
    """A body whose length must be told beforehand came without it."""

    code = Code.LENGTH_REQUIRED
    next_step = "send it with Content-Length"


class RangeNotSatisfiable(HearthError):
    """None of the bytes asked for is there: the file has ``size`` bytes."""

    code = Code.RANGE_NOT_SATISFIABLE
    next_step = "ask for bytes that are there"
    size = 0


class RateLimited(HearthError):
    """Too much was asked in too short a time; after ``retry_after_s`` it may be asked again."""

    code = Code.RATE_LIMITED
    next_step = "wait as long as Retry-After says"
    retry_after_s = 1.0


class QuotaExceeded(HearthError):
    """A user has as much as may be had; ``details`` tell of what, how much there is and how much may be."""

    code = Code.QUOTA_EXCEEDED
    next_step = "destroy what you do not need, or ask an administrator for a larger quota"


class NoSpace(HearthError):
    """The disk or a pool is full; nothing half-made is left."""

    code = Code.NO_SPACE
    next_step = "make room on the daemon's disk, and try again"


class Unavailable(HearthError):
    code = Code.UNAVAILABLE
    next_step = "try again in a moment"


class TimedOut(HearthError):
    code = Code.TIMEOUT
    next_step = "try again, with more time if that can be said"


class StartFailed(HearthError):
    """A command could not be started in the guest (missing program, directory or permission)."""

    code = Code.START_FAILED
    next_step = "check the program's name, mode and PATH in the sandbox, the directory and the user"


class InitFailed(HearthError):
    """A command that was to prepare a new sandbox failed; nothing is left of the sandbox.

    ``details`` end with what the command wrote, which is for its user alone: logs get ``reason``.
    """

    code = Code.INIT_FAILED
    next_step = "see what the command wrote, correct it and try again"

    def __init__(self, brief: str, *, reason: str = "", details: str = "", resolution: str = "") -> None:
        super().__init__(brief, details=details or reason, resolution=resolution, field="init")
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.brief}: {self.reason}" if self.reason else super().__str__()


class GuestFailed(HearthError):
    """The guest or its agent answered wrongly, not at all, or went away."""

    code = Code.GUEST_FAILED
    next_step = "see with 'hearth inspect' how the sandbox is, and try again"


class EngineFailed(HearthError):
    """The virtual machine monitor could not do its work."""

    code = Code.ENGINE_FAILED
    next_step = "see with 'hearth doctor' whether the daemon's host is fit, and the daemon's log for more"


class HostUnfit(HearthError):
    """This host lacks something hearth needs (a tool, a right, a kernel feature)."""

    code = Code.HOST_UNFIT
    next_step = "see with 'hearth doctor' on the daemon's host what it lacks"


class Cancelled(HearthError):
    code = Code.CANCELLED
    next_step = "ask again if it is still wanted"
