"""The reader of archives: what the standard library's writer and GNU tar make, and what nobody should make."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image.layers.archives import GIB, Item, archive, directory, file, link, read, symlink

from hearth.image.layers.refused import ImageRefused
from hearth.image.layers.streams import ByteStream
from hearth.image.layers.tar import Kind, TarReader

FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)


@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_of_entry_is_read_as_it_was_written(format: int) -> None:
    long = "d/" * 60 + "x" * 150
    made = archive(
        directory("etc", 0o750),
        file("etc/passwd", "root:x:0:0", mode=0o4755, uid=1_000_000, gid=2_100_000_000),
        symlink("a", "/etc"),
        link("hard", "etc/passwd"),
        Item(name="null", type=tarfile.CHRTYPE, device=(1, 3)),
        Item(name="sda", type=tarfile.BLKTYPE, device=(8, 0)),
        Item(name="pipe", type=tarfile.FIFOTYPE),
        file(long, b"\0\1" * 700),
        symlink("to", "t" * 200),
        format=format,
    )
    entries = read(made)
    assert [entry.kind for entry, _ in entries] == [
        *(Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.LINK, Kind.CHARACTER, Kind.BLOCK, Kind.FIFO, Kind.FILE),
        Kind.SYMLINK,
    ]
    by_name = {entry.name.decode().rstrip("/"): (entry, data) for entry, data in entries}
    passwd, data = by_name["etc/passwd"]
    assert (passwd.mode, passwd.uid, passwd.gid, data) == (0o4755, 1_000_000, 2_100_000_000, b"root:x:0:0")
    assert by_name["a"][0].target == b"/etc" and by_name["hard"][0].target == b"etc/passwd"
    assert by_name["null"][0].device == (1, 3) and by_name["sda"][0].device == (8, 0)
    assert by_name[long][1] == b"\0\1" * 700
    assert by_name["to"][0].target == b"t" * 200


def test_pax_headers_tell_times_and_attributes() -> None:
    pax = {"mtime": "12.5", "SCHILY.xattr.user.colour": "red", "comment": "passed over"}
    ((entry, _),) = read(archive(file("x", "y", pax=pax)))
    assert entry.mtime_ns == 12_500_000_000
    assert entry.xattrs == {b"user.colour": b"red"}


@pytest.mark.parametrize("format", ["gnu", "posix"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar_have_holes(tmp_path: Path, format: str, version: str) -> None:
    if format == "gnu" and version != "0.0":
        pytest.skip("the old format has no versions")
    made = tmp_path / "sparse"
    with made.open("wb") as sparse:
        for number in range(40):  # more ranges than one header holds
            os.pwrite(sparse.fileno(), b"data", number * 1_000_000)
        sparse.truncate(8 * GIB)
    words = ["tar", "--sparse", f"--format={format}", "-cf", "-", "-C", str(tmp_path), "sparse"]
    if format == "posix":
        words.insert(2, f"--sparse-version={version}")
    data = subprocess.run(words, check=True, capture_output=True).stdout
    ((entry, stored),) = read(data)
    assert (entry.name, entry.size, entry.stored) == (b"sparse", 8 * GIB, len(stored))
    assert entry.ranges is not None and sum(length for _, length in entry.ranges) == len(stored)
    for number in range(40):
        start, position = number * 1_000_000, 0
        for offset, length in entry.ranges:
            if offset <= start < offset + length:
                assert stored[position + start - offset :][:4] == b"data"
                break
            position += length
        else:
            pytest.fail(f"nothing at {start}")


def changed(data: bytes, at: int, new: bytes) -> bytes:
    """Give an archive with other bytes in its first header, whose checksum is right again."""
    block = bytearray(data[:512])
    block[at : at + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


WHOLE = archive(file("x", "y" * 600))
BAD = {
    "no archive": b"hello" * 200,
    "cut off in a header": WHOLE[:300],
    "cut off in data": WHOLE[:700],
    "without its end": WHOLE[:1536],
    "garbage between entries": WHOLE[:1536] + b"\1" * 512 + WHOLE[1536:],
    "a size below zero": changed(WHOLE, 124, b"\xff" * 12),
    "a size that is no number": changed(WHOLE, 124, b"12x45678901\0"),
    "a kind that no file has": changed(WHOLE, 156, b"Z"),
    "a long name that is endless": changed(WHOLE, 156, b"L")[:512].replace(b"", b"", 0) + WHOLE[512:1536],
    "an extended header of a gibibyte": changed(changed(WHOLE, 156, b"x"), 124, b"10000000000\0"),
    "an extended header that is none": changed(WHOLE, 156, b"x"),
    "a huge owner": archive(file("x", pax={"uid": str(2**40)})),
    "a time that is none": archive(file("x", pax={"mtime": "noon"})),
    "a sparse map beyond its file": archive(file("x", "abc", pax={"GNU.sparse.map": "9,3", "GNU.sparse.size": "10"})),
    "a sparse map that runs backwards": archive(
        file("x", "abc", pax={"GNU.sparse.map": "5,1,0,2", "GNU.sparse.size": "10"})
    ),
    "a sparse map of other data": archive(file("x", "abc", pax={"GNU.sparse.map": "0,9", "GNU.sparse.size": "10"})),
    "many extended headers": changed(archive(file("x", "12 a=b12345\n"[:11])), 156, b"x")[:1024] * 9,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_whole_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        read(data)


def test_an_archive_without_its_end_is_taken_where_a_checksum_vouches_for_it() -> None:
    assert len(read(WHOLE[:1536], needs_end=False)) == 1


def test_more_than_may_come_out_is_refused_before_it_is_held() -> None:
    with pytest.raises(ImageRefused, match="more than"):
        read(archive(file("x", b"\0" * 100_000)), max_bytes=50_000)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2048), st.integers(0, 2048), st.binary(min_size=1, max_size=40))
def test_whatever_comes_is_read_or_refused(noise: bytes, at: int, new: bytes) -> None:
    for data in (noise, WHOLE[:at] + new + WHOLE[at + len(new) :]):
        try:
            read(data)
        except ImageRefused:
            continue


def test_data_that_is_not_asked_for_is_passed_over() -> None:
    reader = TarReader(
        ByteStream(io.BytesIO(archive(file("a", "1" * 1000), file("b", "2"))), max_bytes=GIB), needs_end=True
    )
    assert [entry.name for entry in reader] == [b"a", b"b"]
