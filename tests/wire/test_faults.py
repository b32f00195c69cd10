from __future__ import annotations

import errno

import pytest

from hearth.wire.faults import Fault, FaultText, fault_of_errno, read_fault, write_fault


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_reads_back_as_written(fault: Fault) -> None:
    assert read_fault(write_fault(fault, "words: with a colon")) == FaultText(fault, "words: with a colon")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("empty argv", Fault.INVALID),
        ("session not found", Fault.NOT_FOUND),
        ("session is attached", Fault.CONFLICT),
        ("session limit exceeded", Fault.BUSY),
        ("connection limit exceeded", Fault.BUSY),
        ("auth required", Fault.UNAUTHENTICATED),
        ("unexpected frame type 0x7f", Fault.PROTOCOL),
        ("anything else", Fault.INTERNAL),
        ("made-up: words", Fault.INTERNAL),
        ("start:no space behind the colon", Fault.INTERNAL),
        ("", Fault.INTERNAL),
    ],
)
def test_sentences_without_a_prefix_are_told_apart(text: str, fault: Fault) -> None:
    assert read_fault(text) == FaultText(fault, text)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOENT, Fault.NOT_FOUND),
        (errno.EACCES, Fault.DENIED),
        (errno.ENOSPC, Fault.NO_SPACE),
        (errno.EEXIST, Fault.CONFLICT),
        (errno.EISDIR, Fault.INVALID),
        (errno.EIO, Fault.INTERNAL),
        (None, Fault.INTERNAL),
    ],
)
def test_an_os_error_number_has_one_fault(number: int | None, fault: Fault) -> None:
    assert fault_of_errno(number) is fault
