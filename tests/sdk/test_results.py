"""Streams of lines become outputs; whole answers become results."""

from __future__ import annotations

import pytest

from hearth.api.schemas import ExecResult
from hearth.errors import TimedOut
from hearth.sdk.http1 import ConnectionLost
from hearth.sdk.results import CommandFailed, ExecReader, Output, Result, result_of

LINES = (
    b'{"type":"stdout","data":"h\xc3\xa9"}\n'
    b'{"type":"stderr","data":"/w==","encoding":"base64"}\n'
    b'{"type":"stdout","data":"a\\nb"}\n'
    b'{"type":"exit","exit_code":7}\n'
)
OUTPUTS = [
    Output(stream="stdout", data="hé".encode()),
    Output(stream="stderr", data=b"\xff"),
    Output(stream="stdout", data=b"a\nb"),
]


def test_lines_cut_at_any_byte_read_the_same() -> None:
    for cut in range(len(LINES) + 1):
        reader = ExecReader()
        assert [*reader.feed(LINES[:cut]), *reader.feed(LINES[cut:])] == OUTPUTS
        assert reader.finish() == 7


def test_a_stream_without_an_end_is_a_lost_connection() -> None:
    reader = ExecReader()
    reader.feed(LINES[: LINES.index(b'{"type":"exit"')])
    with pytest.raises(ConnectionLost):
        reader.finish()


def test_an_error_at_the_end_is_raised_as_its_class() -> None:
    reader = ExecReader()
    with pytest.raises(TimedOut, match="too long"):
        reader.feed(b'{"type":"error","error":"the command took too long","code":"timeout"}\n')


@pytest.mark.parametrize("line", [b"<html>\n", b'{"type":"resize"}\n', b"[]\n"])
def test_a_line_of_another_protocol_is_a_lost_connection(line: bytes) -> None:
    with pytest.raises(ConnectionLost):
        ExecReader().feed(line)


def test_a_result_gives_bytes_and_text() -> None:
    result = result_of(ExecResult(exit_code=0, stdout="/2E=", stderr="", encoding="base64"))
    assert (result.stdout_bytes, result.stdout, result.stderr) == (b"\xffa", "\ufffda", "")


def test_check_raises_for_the_commands_failure_only() -> None:
    good = Result(exit_code=0, stdout_bytes=b"", stderr_bytes=b"")
    assert good.check() is good
    with pytest.raises(CommandFailed, match="exit code 3: broken") as failed:
        Result(exit_code=3, stdout_bytes=b"", stderr_bytes=b"broken\n").check()
    assert failed.value.result.exit_code == 3


def test_a_reader_knows_its_place_over_gaps_and_anew_after_half_a_line() -> None:
    reader = ExecReader(5)
    lines = (
        b'{"type":"gap","start":5,"cursor":9}\n{"type":"stdout","data":"/w==","encoding":"base64","cursor":10}\n{"ty'
    )
    assert [output.data for output in reader.feed(lines)] == [b"\xff"]
    assert (reader.cursor, reader.lost_bytes) == (10, 4)
    reader.restart()
    assert [output.data for output in reader.feed(b'{"type":"stderr","data":"\xc3\xa9"}\n')] == ["é".encode()]
    assert (reader.cursor, reader.paused, reader.exit_code) == (12, False, None)
    assert reader.feed(b'{"type":"running","cursor":12}\n') == []
    assert reader.paused
