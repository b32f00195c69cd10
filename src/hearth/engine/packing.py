"""Pages in a row, packed in chunks: each is a Zstandard frame behind its length, so that threads share the work.

Only the lowest level is used: of what cannot be made smaller it says so at the speed of memory, and what can is rarely
made much smaller by more effort.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard

from hearth.host.memory import buffer_of

CHUNK_BYTES = 1 << 20
LEVEL = 1
LENGTH = struct.Struct("<I")
"""Bytes of the frame that follows."""
THREADS_MAX = 4
"""As many share one snapshot; other machines want to sleep, too."""


def packed(rows: Iterable[memoryview]) -> Generator[bytes, None, None]:
    """Give the rows' bytes, one after the other, as frames with their lengths.

    Frames are made a little ahead of who takes them; never more than a few are held.
    """
    threads = min(THREADS_MAX, os.cpu_count() or 1)
    tools = _Tools()
    with ThreadPoolExecutor(threads, thread_name_prefix="pack") as pool:
        ahead: deque[Future[bytes]] = deque()
        try:
            for chunk in _chunks(rows):
                ahead.append(pool.submit(_frame, chunk, tools))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for rest in ahead:
                rest.cancel()


def unpacked(content: memoryview, size: int) -> mmap.mmap:
    """Give the ``size`` bytes that were packed into ``content``; the buffer is the caller's to close.

    Raises:
        ValueError: they are more or fewer, or the frames are damaged.
    """
    buffer = buffer_of(size)
    try:
        with memoryview(buffer) as whole, ThreadPoolExecutor(_threads(size), thread_name_prefix="unpack") as pool:
            for work in [pool.submit(_fill, content, frame, whole, data) for frame, data in _frames(content, size)]:
                work.result()
    except zstandard.ZstdError as error:
        buffer.close()
        raise ValueError(f"a chunk cannot be unpacked: {error}") from error
    except BaseException:
        buffer.close()
        raise
    return buffer


def _threads(size: int) -> int:
    return max(1, min(THREADS_MAX, os.cpu_count() or 1, size // CHUNK_BYTES))


def _frames(content: memoryview, size: int) -> Iterator[tuple[slice, slice]]:
    """Give where each frame is, and where its bytes belong."""
    position = 0
    for start in range(0, size, CHUNK_BYTES):
        if len(content) - position < LENGTH.size:
            raise ValueError(f"it ends before the chunk for byte {start} of {size}")
        (length,) = LENGTH.unpack_from(content, position)
        position += LENGTH.size
        if length > len(content) - position:
            raise ValueError(f"the chunk for byte {start} has {length} bytes, {len(content) - position} are left")
        yield slice(position, position + length), slice(start, min(start + CHUNK_BYTES, size))
        position += length
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes follow the last chunk")


def _fill(content: memoryview, where: slice, whole: memoryview, place: slice) -> None:
    # Views are released here, after errors too: whoever closes the buffers below them need not wait for a traceback.
    with (
        content[where] as frame,
        whole[place] as target,
        zstandard.ZstdDecompressor().stream_reader(frame) as reader,
    ):
        filled = 0
        while filled < len(target):
            with target[filled:] as rest:
                count = reader.readinto(rest)
            if not count:
                raise ValueError(f"a chunk has {filled} bytes instead of {len(target)}")
            filled += count
        if reader.read(1):
            raise ValueError(f"a chunk has more than {len(target)} bytes")


class _Tools(threading.local):
    """What a thread packs with: making it anew for each chunk would take longer than the packing."""

    def __init__(self) -> None:
        self.packer = zstandard.ZstdCompressor(level=LEVEL)


def _frame(chunk: list[memoryview], tools: _Tools) -> bytes:
    frame = tools.packer.compress(chunk[0] if len(chunk) == 1 else b"".join(chunk))
    return LENGTH.pack(len(frame)) + frame


def _chunks(rows: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """Cut the rows into chunks of ``CHUNK_BYTES``, the last may be shorter, without copying."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for row in rows:
        start = 0
        while start < len(row):
            part = row[start : start + room]
            chunk.append(part)
            start += len(part)
            room -= len(part)
            if not room:
                yield chunk
                chunk, room = [], CHUNK_BYTES
    if chunk:
        yield chunk
