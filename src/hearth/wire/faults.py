"""What an ERROR frame says: ``fault: words``. The agent writes it where the OS is called, the host reads it once.

Sentences that the protocol fixes word for word (``session not found``) carry no prefix and are listed here too.
"""

from __future__ import annotations

import errno
from enum import StrEnum

from hearth.wire.runtime_typing import NamedTuple


class Fault(StrEnum):
    """The kinds of failure a caller tells apart; the value stands before the colon on the wire."""

    START = "start"
    INVALID = "invalid"
    NOT_FOUND = "not found"
    CONFLICT = "conflict"
    DENIED = "denied"
    NO_SPACE = "no space"
    TOO_LARGE = "too large"
    BUSY = "busy"
    UNAUTHENTICATED = "unauthenticated"
    PROTOCOL = "protocol"
    INTERNAL = "internal"


class FaultText(NamedTuple):
    """An ERROR text taken apart; ``words`` are the guest's and stay untrusted."""

    fault: Fault
    words: str


FIXED_SENTENCES = {
    "empty argv": Fault.INVALID,
    "session not found": Fault.NOT_FOUND,
    "session is attached": Fault.CONFLICT,
    "session limit exceeded": Fault.BUSY,
    "connection limit exceeded": Fault.BUSY,
    "auth required": Fault.UNAUTHENTICATED,
}
UNEXPECTED_FRAME = "unexpected frame type"

_FAULT_OF_ERRNO = {
    errno.ENOENT: Fault.NOT_FOUND,
    errno.ESRCH: Fault.NOT_FOUND,
    errno.EEXIST: Fault.CONFLICT,
    errno.ENOTEMPTY: Fault.CONFLICT,
    errno.EBUSY: Fault.CONFLICT,
    errno.ETXTBSY: Fault.CONFLICT,
    errno.EACCES: Fault.DENIED,
    errno.EPERM: Fault.DENIED,
    errno.EROFS: Fault.DENIED,
    errno.ENOSPC: Fault.NO_SPACE,
    errno.EDQUOT: Fault.NO_SPACE,
    errno.EFBIG: Fault.TOO_LARGE,
    errno.EISDIR: Fault.INVALID,
    errno.ENOTDIR: Fault.INVALID,
    errno.EINVAL: Fault.INVALID,
    errno.ELOOP: Fault.INVALID,
    errno.ENAMETOOLONG: Fault.INVALID,
    errno.ENXIO: Fault.INVALID,
    errno.EMFILE: Fault.BUSY,
    errno.ENFILE: Fault.BUSY,
}


def fault_of_errno(number: int | None) -> Fault:
    """Tell which fault an OS error number is; INTERNAL for those no caller tells apart."""
    return _FAULT_OF_ERRNO.get(number or 0, Fault.INTERNAL)


def write_fault(fault: Fault, words: str) -> str:
    """Give the text of an ERROR frame."""
    return f"{fault}: {words}"


def read_fault(text: str) -> FaultText:
    """Take the text of an ERROR frame apart; a text of no known shape is INTERNAL."""
    if (fixed := FIXED_SENTENCES.get(text)) is not None:
        return FaultText(fixed, text)
    if text.startswith(UNEXPECTED_FRAME):
        return FaultText(Fault.PROTOCOL, text)
    prefix, separator, words = text.partition(": ")
    if separator and prefix in _FAULTS:
        return FaultText(Fault(prefix), words)
    return FaultText(Fault.INTERNAL, text)


_FAULTS = frozenset(fault.value for fault in Fault)
