"""Sending a file to a libvirt volume as a stream, over a connection of its own, with progress."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from hearth.errors import NoSpace
from hearth.host.files import data_ranges, opened
from hearth.host.libvirt import Libvirt, LibvirtFailed
from hearth.host.libvirt_binding import UPLOAD_SPARSE, Connection, Stream
from hearth.volume.golden.base import OnBytes, PopulateFailed

TIMEOUT_S = 6 * 3600.0
CHUNK_BYTES = 256 * 1024 - 24
"""What one message to a server holds at most (libvirt, src/rpc/virnetprotocol.x)."""
TELL_EVERY_BYTES = 16 * 1024 * 1024
FULL = "No space left"


class _Unwanted(Exception):
    """Nobody waits for the rest."""


async def upload(
    uri: str, pool: str, volume: str, path: Path, on_bytes: OnBytes, *, padded_to_bytes: int | None
) -> None:
    """Send a file.

    Args:
        on_bytes: is told of the file's bytes that were sent, and their number.
        padded_to_bytes: holes are sent as zeros, and zeros after the end up to here: for a device. None keeps holes.

    Raises:
        NoSpace: the pool is full.
        PopulateFailed: libvirt did not take all of it.
        LibvirtUnavailable: it was lost, or too slow.
    """
    loop, unwanted = asyncio.get_running_loop(), threading.Event()

    def told(done: int, total: int) -> None:
        loop.call_soon_threadsafe(on_bytes, done, total)

    def send(connection: Connection) -> None:
        target = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
        stream = connection.newStream(0)
        with opened(path) as source:
            # A sparse upload counts no holes; what is sent is bounded by the file.
            flags, length = (UPLOAD_SPARSE, 0) if padded_to_bytes is None else (0, padded_to_bytes)
            target.upload(stream, 0, length, flags)
            sending = _Sending(stream, source, told, unwanted)
            try:
                if padded_to_bytes is None:
                    sending.sparse()
                else:
                    sending.padded(padded_to_bytes)
            except BaseException:
                with contextlib.suppress(Exception):
                    stream.abort()  # it may have ended by what is already being raised
                raise
            stream.finish()

    libvirt = Libvirt(uri)
    try:
        await libvirt.call(send, timeout_s=TIMEOUT_S, again=False, unwanted=unwanted)
    except LibvirtFailed as error:
        if FULL in error.details:
            raise NoSpace(
                "the volume's storage is full",
                details=f"{volume}: {error.details}",
                resolution="make room in the pool, then try again",
            ) from error
        raise PopulateFailed("libvirt did not take the image", details=f"{volume}: {error.details}") from error
    finally:
        await libvirt.close()


class _Sending:
    """One file on its way; blocking."""

    def __init__(self, stream: Stream, source: int, told: OnBytes, unwanted: threading.Event) -> None:
        self._stream = stream
        self._source = source
        self._told = told
        self._unwanted = unwanted
        self._size = os.fstat(source).st_size
        self._next_told = 0

    def sparse(self) -> None:
        position = 0
        for start, end in data_ranges(self._source):
            if start > position:
                self._stream.sendHole(start - position)
            for data in self._chunks(start, end):
                self._send(data)
            position = end
        if self._size > position:
            self._stream.sendHole(self._size - position)

    def padded(self, size_bytes: int) -> None:
        for data in self._chunks(0, self._size):
            self._send(data)
        zeros, left = bytes(CHUNK_BYTES), size_bytes - self._size
        while left > 0:
            self._send(zeros[:left])
            left -= min(left, CHUNK_BYTES)

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        position = start
        while position < end:
            data = os.pread(self._source, min(CHUNK_BYTES, end - position), position)
            if not data:
                raise PopulateFailed("the cached image is not what it was", details="it became shorter")
            yield data
            position += len(data)
            if position >= self._next_told or position == self._size:
                self._next_told = position + TELL_EVERY_BYTES
                self._told(position, self._size)

    def _send(self, data: bytes) -> None:
        while data:
            if self._unwanted.is_set():
                raise _Unwanted
            data = data[self._stream.send(data) :]
