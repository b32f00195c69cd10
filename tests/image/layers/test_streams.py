"""Compressed bytes in, bounded pieces out."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
from collections.abc import Callable

import pytest
import zstandard

from hearth.image.layers.refused import ImageRefused
from hearth.image.layers.streams import ByteStream

PLAIN = bytes(range(256)) * 5000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: data,
    "gzip": lambda data: gzip.compress(data),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "xz": lambda data: lzma.compress(data),
}


@pytest.mark.parametrize("compress", COMPRESS.values(), ids=COMPRESS.keys())
def test_what_went_in_comes_out(compress: Callable[[bytes], bytes]) -> None:
    read = 0

    def count(size: int) -> None:
        nonlocal read
        read += size

    packed = compress(PLAIN)
    stream = ByteStream(io.BytesIO(packed), max_bytes=len(PLAIN), on_bytes=count)
    first = stream.read(1000)
    assert first + b"".join(bytes(piece) for piece in stream.pieces(len(PLAIN) - 1000)) == PLAIN
    assert stream.sha256() == hashlib.sha256(PLAIN).hexdigest()
    assert (stream.position, read) == (len(PLAIN), len(packed))


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz"])
def test_compressed_parts_one_after_another_are_one(name: str) -> None:
    packed = COMPRESS[name](PLAIN[:5000]) + COMPRESS[name](PLAIN[5000:])
    assert ByteStream(io.BytesIO(packed), max_bytes=len(PLAIN)).read(len(PLAIN) + 1) == PLAIN


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz"])
def test_a_bomb_is_broken_off(name: str) -> None:
    bomb = COMPRESS[name](bytes(200_000_000))
    assert len(bomb) < 1_000_000
    stream = ByteStream(io.BytesIO(bomb), max_bytes=1_000_000)
    with pytest.raises(ImageRefused, match="more than 1000000 bytes"):
        stream.skip(200_000_000)
    assert stream.position <= 1_000_000


BAD = {
    "gzip cut off": gzip.compress(PLAIN)[:-9],
    "gzip damaged": gzip.compress(PLAIN)[:-8] + b"12345678",
    "gzip and something else": gzip.compress(PLAIN) + b"something else",
    "xz cut off": lzma.compress(PLAIN)[:-40],
    "xz damaged": lzma.compress(PLAIN)[:100] + b"x" * 100,
    "zstd damaged": zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN)[:-4] + b"1234",
    "bzip2": bz2.compress(PLAIN),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_damaged_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        ByteStream(io.BytesIO(data), max_bytes=len(PLAIN) * 2).sha256()
