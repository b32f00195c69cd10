from __future__ import annotations

import asyncio

import pytest

from hearth import errors
from hearth.guest.faults import MAX_WORDS, Deadline, decode_reply, encode_request, error_of_guest, printable
from hearth.wire.faults import Fault, write_fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, Status


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("start: nosuch: No such file or directory", errors.StartFailed),
        ("empty argv", errors.InvalidInput),
        ("invalid: ExecRequest.rows: expected int", errors.InvalidInput),
        ("session not found", errors.NotFound),
        ("not found: /x: No such file or directory", errors.NotFound),
        ("session is attached", errors.Conflict),
        ("conflict: /x: File exists", errors.Conflict),
        ("denied: /x: Permission denied", errors.Forbidden),
        ("no space: /x: No space left on device", errors.NoSpace),
        ("too large: 1 byte too many", errors.TooLarge),
        ("session limit exceeded", errors.Unavailable),
        ("connection limit exceeded", errors.Unavailable),
        ("auth required", errors.GuestFailed),
        ("unexpected frame type 0x7f", errors.GuestFailed),
        ("internal: KeyError", errors.GuestFailed),
        ("whatever", errors.GuestFailed),
        ("", errors.GuestFailed),
        ("engine_failed: nice try", errors.GuestFailed),
    ],
)
def test_an_error_text_becomes_the_fitting_error(text: str, error: type[errors.HearthError]) -> None:
    caught = error_of_guest(text.encode())
    assert type(caught) is error
    assert text.rpartition(": ")[2] in caught.details


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_an_error(fault: Fault) -> None:
    assert error_of_guest(write_fault(fault, "words").encode()).details == "words"


def test_a_guests_text_is_cut_and_cannot_control_a_terminal() -> None:
    error = error_of_guest(b"\x1b]0;owned\x07\r\n\xff" + b"a" * 10_000)
    assert error.details.startswith("\\x1b]0;owned\\x07\\r\\n\N{REPLACEMENT CHARACTER}a")
    assert len(error.details) < MAX_WORDS + 20
    assert printable("é ü \u202e") == "é ü \\u202e"


def test_a_request_too_large_for_a_frame_is_the_callers_error() -> None:
    with pytest.raises(errors.TooLarge):
        encode_request(FrameType.EXEC_REQ, ExecRequest(argv=["a" * 1_100_000]))


def test_a_request_that_json_cannot_say_is_the_callers_error() -> None:
    with pytest.raises(errors.InvalidInput):
        encode_request(FrameType.EXEC_REQ, ExecRequest(argv=["a"], timeout_sec=float("nan")))


def test_a_reply_of_the_wrong_shape_is_the_guests_failure() -> None:
    with pytest.raises(errors.GuestFailed, match="Status: field 'status' is missing"):
        decode_reply(Status, b"{}")


async def test_a_deadline_names_what_took_too_long() -> None:
    with pytest.raises(errors.TimedOut, match=r"^boiling took longer than 0.01 s$"):
        async with Deadline(0.01, "boiling"):
            await asyncio.Event().wait()


async def test_a_deadline_lets_errors_and_cancellation_of_others_pass() -> None:
    with pytest.raises(TimeoutError, match="somebody else's"):
        async with Deadline(5, "boiling"):
            raise TimeoutError("somebody else's")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with Deadline(5, "boiling"):
                await asyncio.Event().wait()
