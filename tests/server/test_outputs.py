"""Output bytes on their way into JSON, cut at every place."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.api.schemas import StderrEvent, StdoutEvent, Stream
from hearth.server.outputs import Buffer, EventEncoder, OutputEncoder, result_of

TEXTS = ["", "plain", "é", "日本語", "😀", "a😀b\nc\x00d", "\u2028\r\n"]
BINARIES = [
    b"\xff",
    b"\xc3",
    b"\xf0\x9f\x98",
    b"ok\xffok",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\x80abc",
    "é".encode() + b"\xe6",
]


def encode(chunks: list[bytes], stream: Stream = "stdout") -> list[StdoutEvent | StderrEvent]:
    encoder = EventEncoder(stream)
    events = [encoder.feed(chunk) for chunk in chunks]
    return [event for event in [*events, encoder.finish()] if event is not None]


def decode(events: list[StdoutEvent | StderrEvent]) -> bytes:
    return b"".join(
        base64.b64decode(event.data) if event.encoding == "base64" else event.data.encode() for event in events
    )


@pytest.mark.parametrize("text", TEXTS)
def test_text_cut_at_any_byte_stays_text(text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        events = encode([data[:cut], data[cut:]])
        assert all(event.encoding == "utf-8" for event in events)
        assert "".join(event.data for event in events) == text


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_comes_byte_by_byte_stays_text(text: str) -> None:
    events = encode([bytes([byte]) for byte in text.encode()])
    assert [event.encoding for event in events] == ["utf-8"] * len(text)
    assert "".join(event.data for event in events) == text


@pytest.mark.parametrize("data", BINARIES)
def test_bytes_that_are_no_text_say_so_and_lose_nothing(data: bytes) -> None:
    for cut in range(len(data) + 1):
        events = encode([data[:cut], data[cut:]])
        assert decode(events) == data
        assert any(event.encoding == "base64" for event in events)


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_no_byte_is_lost_whatever_comes_in_whatever_pieces(chunks: list[bytes]) -> None:
    assert decode(encode(chunks)) == b"".join(chunks)


def test_a_stream_is_named_by_its_event() -> None:
    assert isinstance(encode([b"x"], "stdout")[0], StdoutEvent)
    assert isinstance(encode([b"x"], "stderr")[0], StderrEvent)


def buffered(limit: int, *chunks: bytes) -> Buffer:
    buffer = Buffer(limit)
    for chunk in chunks:
        buffer.add(chunk)
    return buffer


def test_a_buffer_keeps_the_beginning_and_says_that_there_was_more() -> None:
    buffer = buffered(4, b"abc", b"def", b"ghi")
    assert (buffer.content(), buffer.truncated) == (b"abcd", True)


def test_a_full_buffer_is_not_truncated() -> None:
    buffer = buffered(4, b"ab", b"cd", b"")
    assert (buffer.content(), buffer.truncated) == (b"abcd", False)


@pytest.mark.parametrize("limit", range(1, 7))
def test_the_limit_never_cuts_a_character(limit: int) -> None:
    content = buffered(limit, "éé日".encode()).content()
    assert "éé日".startswith(content.decode())
    assert limit - len(content) < 3


def test_binary_output_makes_both_outputs_base64() -> None:
    result = result_of(3, buffered(9, b"\xff"), buffered(9, b"text"))
    assert (result.exit_code, result.stdout, result.stderr, result.encoding) == (3, "/w==", "dGV4dA==", "base64")


def test_half_a_character_at_the_end_of_the_output_is_binary_not_dropped() -> None:
    result = result_of(0, buffered(9, b"a\xc3"), buffered(9))
    assert base64.b64decode(result.stdout) == b"a\xc3"
    assert not result.truncated


def test_what_was_given_is_always_a_beginning_of_the_output() -> None:
    """Else the bytes a client counts were no cursor: the other stream came between the halves of a character."""
    encoder = OutputEncoder()
    assert encoder.feed("stdout", b"a\xc3", end=2) == [StdoutEvent(data="a", cursor=1)]
    assert encoder.feed("stderr", b"e", end=3) == [
        StdoutEvent(data="ww==", encoding="base64", cursor=2),
        StderrEvent(data="e", cursor=3),
    ]
    assert encoder.feed("stdout", b"\xa9", end=4) == [StdoutEvent(data="qQ==", encoding="base64", cursor=4)]
    assert encoder.flush(4) == []


def test_a_character_in_two_pieces_of_one_stream_is_put_together() -> None:
    encoder = OutputEncoder()
    assert encoder.feed("stderr", b"\xe2\x82", end=2) == []
    assert encoder.feed("stderr", b"\xac!", end=4) == [StderrEvent(data="€!", cursor=4)]
    assert encoder.feed("stderr", b"\xe2", end=5) == []
    assert encoder.flush(5) == [StderrEvent(data="4g==", encoding="base64", cursor=5)]


def test_without_cursors_none_are_told() -> None:
    assert OutputEncoder().feed("stdout", b"x") == [StdoutEvent(data="x")]
