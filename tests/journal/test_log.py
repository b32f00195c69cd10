"""Properties of a command's log: whatever is torn off, dropped or skipped, a reader gets each byte once, or a gap."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.journal.reader import LogReader
from hearth.journal.records import (
    HEAD,
    MAX_DATA_BYTES,
    RECORD_BYTES,
    Piece,
    Stream,
    decode_head,
    decode_records,
    encode_head,
    encode_records,
)
from hearth.journal.segments import measure, segments_in, segments_of
from hearth.journal.writer import MIN_SEGMENT_BYTES, LogWriter

EXEC = "ex-0123456789abcdef"
LARGE = 64 * 1024 * 1024
STREAMS = st.sampled_from(("stdout", "stderr"))
CHUNKS = st.lists(st.tuples(STREAMS, st.binary(min_size=1, max_size=300)), max_size=12)


def pieces_of(chunks: Sequence[tuple[Stream, bytes]], start: int = 0) -> list[Piece]:
    pieces = []
    for stream, data in chunks:
        pieces.append(Piece(stream, start, data))
        start += len(data)
    return pieces


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="log-") as directory:
        yield Path(directory) / "sb-1"


def read_all(directory: Path, after: int = 0) -> list[Piece]:
    reader, found = LogReader(directory, EXEC, after), list[Piece]()
    try:
        while pieces := reader.read():
            found += pieces
    finally:
        reader.close()
    return found


def bytes_at(pieces: Sequence[Piece]) -> dict[int, tuple[Stream, int]]:
    """Give each byte by its position; a position given twice is an error."""
    found: dict[int, tuple[Stream, int]] = {}
    for piece in pieces:
        for offset, byte in enumerate(piece.data):
            assert piece.position + offset not in found
            found[piece.position + offset] = (piece.stream, byte)
    return found


@given(CHUNKS, st.integers(0, 2**40))
def test_records_read_back_as_they_were(chunks: list[tuple[Stream, bytes]], start: int) -> None:
    pieces = pieces_of(chunks, start)
    block = encode_records(pieces)
    assert decode_records(block) == (pieces, len(block))
    assert decode_head(encode_head(start)) == start


@given(CHUNKS, st.data())
def test_a_torn_tail_costs_nothing_but_the_record_it_is_in(
    chunks: list[tuple[Stream, bytes]], data: st.DataObject
) -> None:
    pieces = pieces_of(chunks)
    block = encode_records(pieces)
    cut = data.draw(st.integers(0, len(block)))
    found, taken = decode_records(block[:cut])
    assert found == pieces[: len(found)]
    assert taken == sum(RECORD_BYTES + len(piece.data) for piece in found) <= cut
    assert len(found) == len(pieces) or cut < taken + RECORD_BYTES + len(pieces[len(found)].data)


@given(CHUNKS.filter(bool), st.data())
def test_a_changed_byte_ends_the_log_before_its_record(chunks: list[tuple[Stream, bytes]], data: st.DataObject) -> None:
    pieces = pieces_of(chunks)
    block = bytearray(encode_records(pieces))
    place = data.draw(st.integers(0, len(block) - 1))
    block[place] ^= data.draw(st.integers(1, 255))
    found, taken = decode_records(bytes(block))
    assert taken <= place
    assert found == pieces[: len(found)]


def test_a_piece_longer_than_a_record_becomes_several() -> None:
    data = os.urandom(2 * MAX_DATA_BYTES + 5)
    pieces, _ = decode_records(encode_records([Piece("stdout", 7, data)]))
    assert [len(piece.data) for piece in pieces] == [MAX_DATA_BYTES, MAX_DATA_BYTES, 5]
    assert b"".join(piece.data for piece in pieces) == data


@settings(deadline=None, max_examples=60)
@given(CHUNKS, st.data())
def test_a_reader_gets_each_byte_from_its_cursor_on_once(
    chunks: list[tuple[Stream, bytes]], data: st.DataObject
) -> None:
    pieces = pieces_of(chunks)
    with scratch() as directory:
        writer = LogWriter(directory, EXEC, max_bytes=LARGE)
        writer.append(pieces)
        writer.close()
        after = data.draw(st.integers(0, writer.end))
        assert bytes_at(read_all(directory, after)) == {
            position: value for position, value in bytes_at(pieces).items() if position >= after
        }


@settings(deadline=None, max_examples=60)
@given(CHUNKS, CHUNKS, st.data())
def test_after_a_torn_tail_the_same_output_may_be_appended_again(
    first: list[tuple[Stream, bytes]], second: list[tuple[Stream, bytes]], data: st.DataObject
) -> None:
    """A daemon dies half-way through a write; the next asks the agent for all behind what is whole."""
    before = pieces_of(first)
    everything = [*before, *pieces_of(second, before[-1].end if before else 0)]
    with scratch() as directory:
        writer = LogWriter(directory, EXEC, max_bytes=LARGE)
        writer.append(before)
        writer.close()
        for segment in segments_of(directory, EXEC):
            os.truncate(segment.path, data.draw(st.integers(0, segment.path.stat().st_size)))
        recovered = LogWriter.recover(directory, EXEC, max_bytes=LARGE)
        assert recovered.end <= writer.end
        recovered.append(everything)
        recovered.close()
        assert bytes_at(read_all(directory)) == bytes_at(everything)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(CHUNKS, st.integers(1, 500)), max_size=8), st.data())
def test_lost_output_is_a_gap_and_what_follows_keeps_its_cursors(
    parts: list[list[tuple[Stream, bytes]] | int], data: st.DataObject
) -> None:
    with scratch() as directory, contextlib.ExitStack() as undo:
        writer = LogWriter(directory, EXEC, max_bytes=LARGE)
        undo.callback(lambda: writer.close())
        written, position = list[Piece](), 0
        for part in parts:
            if isinstance(part, int):
                position += part
                continue
            pieces = pieces_of(part, position)
            writer.append(pieces)
            written += pieces
            position = pieces[-1].end if pieces else position
            if data.draw(st.booleans()):
                writer.close()
                writer = LogWriter.recover(directory, EXEC, max_bytes=LARGE)
        writer.close()
        after = data.draw(st.integers(0, position))
        assert bytes_at(read_all(directory, after)) == {
            place: value for place, value in bytes_at(written).items() if place >= after
        }


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=40), st.data())
def test_a_full_log_loses_its_oldest_segments_and_stays_within_its_size(sizes: list[int], data: st.DataObject) -> None:
    max_bytes = 4 * MIN_SEGMENT_BYTES
    with scratch() as directory, contextlib.ExitStack() as undo:  # a draw may end the example at any place
        writer = LogWriter(directory, EXEC, max_bytes=max_bytes)
        undo.callback(writer.close)
        pieces = pieces_of([("stdout", os.urandom(size)) for size in sizes])
        slow, seen = LogReader(directory, EXEC, 0), list[Piece]()
        undo.callback(slow.close)
        for piece in pieces:
            writer.append([piece])
            if data.draw(st.booleans()):
                seen += slow.read()
        while more := slow.read():
            seen += more
        writer.close()
        files = sum(segment.path.stat().st_size for segment in segments_of(directory, EXEC))
        assert files == writer.size_bytes <= max_bytes + 40_000 + RECORD_BYTES
        found, expected = bytes_at(read_all(directory)), bytes_at(pieces)
        assert found == {place: value for place, value in expected.items() if place >= writer.start}
        assert bytes_at(seen).items() <= expected.items()
        assert not seen or seen[-1].end == writer.end
        assert LogWriter.recover(directory, EXEC, max_bytes=max_bytes).end == writer.end


def test_a_reader_follows_from_segment_to_segment_while_they_are_written(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, EXEC, max_bytes=LARGE)
    writer._segment_bytes = 100
    reader, seen = LogReader(tmp_path, EXEC, 0), b""
    for number in range(50):
        writer.append([Piece("stdout", writer.end, b"%05d" % number)])
        if number % 7 == 0:
            seen += b"".join(piece.data for piece in reader.read())
    while pieces := reader.read():
        seen += b"".join(piece.data for piece in pieces)
    reader.close()
    writer.close()
    assert len(segments_of(tmp_path, EXEC)) > 5
    assert seen == b"".join(b"%05d" % number for number in range(50))


def test_a_log_that_is_not_there_has_nothing_to_read(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nowhere") == []
    assert LogWriter.recover(tmp_path / "nowhere", EXEC, max_bytes=LARGE).end == 0


def test_a_segment_without_a_whole_head_is_removed(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, EXEC, max_bytes=LARGE)
    writer.append([Piece("stdout", 0, b"abc")])
    writer.close()
    torn = tmp_path / f"{EXEC}.{3:020d}.log"
    torn.write_bytes(encode_head(3)[: HEAD.size - 1])
    assert LogWriter.recover(tmp_path, EXEC, max_bytes=LARGE).end == 3
    assert not torn.exists()


def test_logs_are_for_the_daemon_alone(tmp_path: Path) -> None:
    directory = tmp_path / "execs" / "sb-1"
    writer = LogWriter(directory, EXEC, max_bytes=LARGE)
    writer.append([Piece("stdout", 0, b"secret")])
    writer.sync()
    writer.close()
    (segment,) = segments_in(directory)[EXEC]
    assert stat.S_IMODE(segment.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert measure(segment).end == 6


def test_a_write_that_fails_half_way_leaves_no_half_record(tmp_path: Path) -> None:
    """The descriptor's file may not grow beyond a limit, as on a full disk; then it may again."""

    writer = LogWriter(tmp_path, EXEC, max_bytes=LARGE)
    writer.append([Piece("stdout", 0, b"a" * 1000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            writer.append([Piece("stdout", 1000, b"b" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert writer.end == 1000
    writer.append([Piece("stderr", 6000, b"c" * 10)])
    writer.close()
    assert [(piece.position, len(piece.data)) for piece in read_all(tmp_path)] == [(0, 1000), (6000, 10)]
