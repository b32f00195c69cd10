from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.wire import frames
from hearth.wire.frames import (
    MAX_LENGTH,
    MAX_PAYLOAD,
    Decoder,
    EmptyFrame,
    Frame,
    FrameType,
    OversizedFrame,
    ProtocolError,
    TruncatedStream,
    WireError,
)

any_frame = st.builds(Frame, st.integers(0, 255), st.binary(max_size=2_000))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at the given places, wherever they fall."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read_all(chunks: list[bytes]) -> list[Frame]:
    decoder = Decoder()
    result: list[Frame] = []
    for chunk in chunks:
        decoder.feed(chunk)
        result.extend(decoder.frames())
    decoder.eof()
    return result


@given(st.lists(any_frame, max_size=8), st.lists(st.integers(0, 20_000), max_size=30))
def test_what_is_written_is_read_whatever_the_chunks(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(frames.encode(frame.type, frame.payload) for frame in sent)
    assert read_all(split(stream, cuts)) == sent


@given(any_frame)
def test_every_kind_of_buffer_encodes_to_the_same_bytes(frame: Frame) -> None:
    wire = frames.encode(frame.type, frame.payload)
    assert frames.encode(frame.type, bytearray(frame.payload)) == wire
    assert frames.encode(frame.type, memoryview(frame.payload)) == wire
    assert frames.encode_header(frame.type, len(frame.payload)) + frame.payload == wire


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_raises_wire_errors_and_nothing_else(chunks: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            for frame in decoder.frames():
                assert len(frame.payload) <= MAX_PAYLOAD
        decoder.eof()
    except WireError:
        pass


@given(st.binary(max_size=40), st.integers(0, 40))
def test_every_payload_reader_raises_protocol_errors_and_nothing_else(payload: bytes, _: int) -> None:
    readers: list[Callable[[bytes], object]] = [
        frames.parse_exit,
        frames.parse_resize,
        frames.parse_signal,
        frames.parse_time_sync,
    ]
    for read in readers:
        try:
            read(payload)
        except ProtocolError as error:
            assert str(error)


def test_a_large_frame_in_small_chunks_costs_linear_time() -> None:
    wire = frames.encode(FrameType.STDOUT, bytes(MAX_PAYLOAD))

    def spent_s() -> float:
        decoder = Decoder()
        started = time.process_time()
        for start in range(0, len(wire), 64):
            assert decoder.next() is None
            decoder.feed(wire[start : start + 64])
        spent = time.process_time() - started
        assert decoder.next() == Frame(FrameType.STDOUT, bytes(MAX_PAYLOAD))
        return spent

    assert min(spent_s() for _ in range(3)) < 0.5, "16 384 chunks cost some 20 ms, and seconds when all is read twice"


def test_the_decoder_holds_no_more_than_the_unfinished_frame() -> None:
    decoder = Decoder()
    wire = frames.encode(FrameType.STDOUT, b"x" * 100)
    decoder.feed(wire * 50 + wire[:30])
    assert len(list(decoder.frames())) == 50
    assert decoder.pending == 30
    decoder.feed(wire[30:] + b"rest")
    assert decoder.next() == Frame(FrameType.STDOUT, b"x" * 100)
    assert decoder.take_rest() == b"rest"
    assert decoder.pending == 0


def test_the_decoder_keeps_its_own_copy_of_a_reused_buffer() -> None:
    decoder = Decoder()
    buffer = bytearray(frames.encode(FrameType.STDOUT, b"first"))
    decoder.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert decoder.next() == Frame(FrameType.STDOUT, b"first")


def test_the_largest_frame_passes_and_one_byte_more_is_refused_on_both_sides() -> None:
    wire = frames.encode(FrameType.STDIN, bytes(MAX_PAYLOAD))
    assert wire[:5] == bytes.fromhex("00100000 01")
    assert read_all([wire]) == [Frame(FrameType.STDIN, bytes(MAX_PAYLOAD))]
    with pytest.raises(OversizedFrame, match="1048576"):
        frames.encode(FrameType.STDIN, bytes(MAX_PAYLOAD + 1))
    with pytest.raises(OversizedFrame):
        frames.encode(FrameType.STDIN, memoryview(bytes(MAX_LENGTH * 2)).cast("H"))
    with pytest.raises(OversizedFrame):
        frames.encode_header(FrameType.STDIN, MAX_PAYLOAD + 1)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("00000000", EmptyFrame),
        ("00000000 01", EmptyFrame),
        ("00100001", OversizedFrame),
        ("00100001 01", OversizedFrame),
        ("ffffffff", OversizedFrame),
        ("ffffffff 06", OversizedFrame),
    ],
)
def test_a_wrong_length_is_refused_at_its_fourth_byte(header: str, error: type[WireError]) -> None:
    wire = bytes.fromhex(header)
    decoder = Decoder()
    decoder.feed(wire[:3])
    assert decoder.next() is None
    decoder.feed(wire[3:])
    for _ in range(2):
        with pytest.raises(error):
            decoder.next()


@pytest.mark.parametrize("size", range(1, 8))
def test_an_end_inside_a_frame_is_an_error_of_its_own(size: int) -> None:
    decoder = Decoder()
    decoder.feed(frames.encode(FrameType.STDOUT, b"abc")[:size])
    assert list(decoder.frames()) == []
    with pytest.raises(TruncatedStream, match=f"{size} bytes in"):
        decoder.eof()


@pytest.mark.parametrize(
    "write",
    [
        lambda: frames.encode(256, b""),
        lambda: frames.encode(-1, b"x"),
        lambda: frames.encode_exit(2**31),
        lambda: frames.encode_exit(-(2**31) - 1),
        lambda: frames.encode_resize(-1, 0),
        lambda: frames.encode_resize(0, 65_536),
        lambda: frames.encode_signal(0),
        lambda: frames.encode_signal(65),
        lambda: frames.encode_time_sync(-1),
        lambda: frames.encode_time_sync(2**63),
        lambda: frames.encode_time_sync(0, bytes(513)),
    ],
)
def test_a_value_that_cannot_stand_on_the_wire_is_refused_by_the_writer(write: Callable[[], bytes]) -> None:
    with pytest.raises(ProtocolError):
        write()


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        (frames.parse_exit, b""),
        (frames.parse_exit, b"\0\0\0"),
        (frames.parse_exit, b"\0\0\0\0\0"),
        (frames.parse_resize, b"\0\0\0"),
        (frames.parse_signal, b""),
        (frames.parse_signal, b"\0"),
        (frames.parse_signal, b"\x41"),
        (frames.parse_signal, b"\x0f\x0f"),
        (frames.parse_time_sync, bytes(7)),
        (frames.parse_time_sync, bytes(521)),
        (frames.parse_time_sync, b"\x80" + bytes(7)),
    ],
)
def test_a_fixed_payload_of_the_wrong_size_or_value_is_refused(read: Callable[[bytes], object], payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(payload)


def test_an_error_text_too_long_for_a_frame_is_cut_at_a_character() -> None:
    wire = frames.encode_error("é" * MAX_PAYLOAD)
    assert wire[5:].decode() == "é" * (MAX_PAYLOAD // 2)


def test_an_error_text_with_a_lone_surrogate_still_goes_out() -> None:
    assert frames.encode_error("a\udcffb")[5:] == b"a?b"


def test_frames_of_concurrent_writers_never_interleave() -> None:
    frames_each = 1_000
    reader, writer = socket.socketpair()
    lock = threading.Lock()

    def write(letter: bytes) -> None:
        for number in range(frames_each):
            frame = frames.encode(FrameType.STDOUT, letter * (number * 7 % 3_000))
            with lock:
                writer.sendall(frame)

    threads = [threading.Thread(target=write, args=(letter,), name=f"writer {letter!r}") for letter in (b"a", b"b")]
    with reader, writer:
        for thread in threads:
            thread.start()
        received: list[Frame] = []
        decoder = Decoder()
        while len(received) < 2 * frames_each:
            chunk = reader.recv(65_536)
            assert chunk
            decoder.feed(chunk)
            received.extend(decoder.frames())
        for thread in threads:
            thread.join()
        decoder.eof()
    for letter in (b"a", b"b"):
        sizes = [
            len(frame.payload) for frame in received if frame.payload and frame.payload == letter * len(frame.payload)
        ]
        assert sizes == [number * 7 % 3_000 for number in range(frames_each) if number * 7 % 3_000]
