"""The one place where what an agent says, or fails to say, becomes an error of hearth. Its words are quoted, never
believed: they cannot pick an error class beyond the closed list, grow long, or carry control characters into a log.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from hearth.errors import (
    Conflict,
    Forbidden,
    GuestFailed,
    HearthError,
    InvalidInput,
    NoSpace,
    NotFound,
    StartFailed,
    TimedOut,
    TooLarge,
    Unavailable,
)
from hearth.wire import frames, messages
from hearth.wire.faults import Fault, read_fault
from hearth.wire.frames import FrameType, OversizedFrame, ProtocolError
from hearth.wire.record import R, Record

MAX_WORDS = 500
"""How many characters of a guest's text are kept."""

_ERRORS: dict[Fault, tuple[type[HearthError], str]] = {
    Fault.START: (StartFailed, "the command could not be started"),
    Fault.INVALID: (InvalidInput, "the sandbox refused the request"),
    Fault.NOT_FOUND: (NotFound, "not found in the sandbox"),
    Fault.CONFLICT: (Conflict, "in conflict with what is in the sandbox"),
    Fault.DENIED: (Forbidden, "not permitted in the sandbox"),
    Fault.NO_SPACE: (NoSpace, "no space left in the sandbox"),
    Fault.TOO_LARGE: (TooLarge, "too large for the sandbox"),
    Fault.BUSY: (Unavailable, "the sandbox is busy"),
    Fault.UNAUTHENTICATED: (GuestFailed, "the guest did not accept the host"),
    Fault.PROTOCOL: (GuestFailed, "the guest did not understand the host"),
    Fault.INTERNAL: (GuestFailed, "the guest failed"),
}


def printable(text: str) -> str:
    """Give a guest's text for people: cut, with everything that does not print escaped."""
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text[:MAX_WORDS]
    )
    return shown + ("…" if len(text) > MAX_WORDS else "")


def error_of_guest(payload: bytes) -> HearthError:
    """Translate the payload of an ERROR frame."""
    fault, words = read_fault(payload.decode("utf-8", "replace"))
    error, brief = _ERRORS[fault]
    return error(brief, details=printable(words))


def decode_reply(cls: type[R], payload: bytes) -> R:
    """Read the JSON body of a reply.

    Raises:
        GuestFailed: it is not what its type promises.
    """
    try:
        return messages.decode(cls, payload)
    except ProtocolError as error:
        raise protocol_broken(error) from error


def decode_reply_list(cls: type[R], payload: bytes) -> list[R]:
    """Read the JSON array of a reply.

    Raises:
        GuestFailed: it is not what its type promises.
    """
    try:
        return messages.decode_list(cls, payload)
    except ProtocolError as error:
        raise protocol_broken(error) from error


def protocol_broken(error: Exception) -> GuestFailed:
    """Give the error for bytes that are not the protocol's."""
    return GuestFailed("the guest broke the protocol", details=printable(str(error)))


def encode_request(frame_type: FrameType, message: Record | None = None) -> bytes:
    """Give the frame of a request.

    Raises:
        TooLarge: it does not fit a frame (1 MiB); the caller asked for too much.
        InvalidInput: a value cannot stand on the wire.
    """
    try:
        return frames.encode(frame_type, b"" if message is None else messages.encode(message))
    except OversizedFrame as error:
        raise TooLarge(
            "the request is too large",
            details=str(error),
            resolution="pass large values through a file",
        ) from error
    except ProtocolError as error:
        raise InvalidInput("the request cannot be sent", details=str(error)) from error


class Deadline:
    """A bound on a wait, by name: ``async with Deadline(5, "the file list"):`` raises TimedOut naming both."""

    def __init__(self, timeout_s: float | None, what: str) -> None:
        self._timeout_s = timeout_s
        self._what = what
        self._timeout = asyncio.timeout(timeout_s)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as caught:
            raise TimedOut(f"{self._what} took longer than {self._timeout_s:g} s") from caught
