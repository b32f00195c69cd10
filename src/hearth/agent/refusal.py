"""Why a request is not carried out, in the words of the ERROR frame."""

from __future__ import annotations

import os

from hearth.wire.faults import Fault, fault_of_errno, write_fault


class Refused(Exception):
    """Ends an operation; the message is the text of its ERROR frame."""


def refused(fault: Fault, words: str) -> Refused:
    """Give the refusal of a kind."""
    return Refused(write_fault(fault, words))


def refusal_of_os(error: OSError) -> Refused:
    """Translate an error of the operating system, naming the path it is about."""
    words = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        name = os.fsencode(error.filename) if isinstance(error.filename, str | bytes) else b"?"
        words = f"{name.decode('utf-8', 'replace')}: {words}"
    return refused(fault_of_errno(error.errno), words)
