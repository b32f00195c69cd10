"""The checksum of large sparse files: SHA-256 of the SHA-256s of their blocks of 1 MiB, in order.

Unlike SHA-256 of the whole it can be computed by several threads at once, and holes cost nothing. The last block is
shorter when the file is, so equal checksums mean equal sizes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from hearth.host.files import data_ranges
from hearth.host.memory import Data

BLOCK_BYTES = 1 << 20
ZEROS = bytes(BLOCK_BYTES)
ZEROS_HASH = hashlib.sha256(ZEROS).digest()
THREADS_MAX = 4
"""More would fight for the memory bus."""
BLOCKS_WORTH_A_THREAD = 4

Sink = Callable[[int, memoryview], None]
"""Takes a block's number and bytes, which are overwritten afterwards, on any thread."""
Work = Callable[[int, memoryview], None]
"""Done with a block's number and a buffer of ``BLOCK_BYTES`` that is the thread's own."""


class BlockHash:
    """The checksum of bytes that come one after the other."""

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._block = hashlib.sha256()
        self._filled = 0

    def update(self, data: Data) -> None:
        """Add bytes."""
        view = memoryview(data)
        position = 0
        while position < view.nbytes:
            end = min(view.nbytes, position + BLOCK_BYTES - self._filled)
            self._block.update(view[position:end])
            self._filled += end - position
            position = end
            self._close_full_block()

    def update_zeros(self, count: int) -> None:
        """Add ``count`` bytes of zeros without looking at them, where they fill blocks."""
        while count:
            if not self._filled and count >= BLOCK_BYTES:
                self._hashes += [ZEROS_HASH] * (count // BLOCK_BYTES)
                count %= BLOCK_BYTES
                continue
            part = min(count, BLOCK_BYTES - self._filled)
            self._block.update(memoryview(ZEROS)[:part])
            self._filled += part
            count -= part
            self._close_full_block()

    def hexdigest(self) -> str:
        """Give the checksum of all that was added; nothing can be added afterwards."""
        last = [self._block.digest()] if self._filled else []
        return combine([*self._hashes, *last])

    def _close_full_block(self) -> None:
        if self._filled == BLOCK_BYTES:
            self._hashes.append(self._block.digest())
            self._block = hashlib.sha256()
            self._filled = 0


def combine(block_hashes: Iterable[bytes]) -> str:
    """Give the checksum, in hex, of a file whose blocks have these SHA-256s."""
    return hashlib.sha256(b"".join(block_hashes)).hexdigest()


def hash_blocks(descriptor: int) -> str:
    """Give the checksum of an open file in hex; holes are not read."""
    return transfer_blocks(descriptor, os.fstat(descriptor).st_size, lambda _number, _block: None)


def transfer_blocks(descriptor: int, size: int, sink: Sink) -> str:
    """Read an open file of ``size`` bytes by blocks, hand all but the holes to ``sink`` and give its checksum.

    Raises:
        EOFError: the file is shorter.
    """
    hashes = blank_hashes(size)

    def transfer_one(number: int, buffer: memoryview) -> None:
        block = read_block(descriptor, number, size, buffer)
        hashes[number] = hashlib.sha256(block).digest()
        sink(number, block)

    each_block(data_blocks(descriptor, size), transfer_one)
    return combine(hashes)


def blank_hashes(size: int) -> list[bytes]:
    """Give the SHA-256s of the blocks of a file of ``size`` zeros."""
    whole, rest = divmod(size, BLOCK_BYTES)
    last = [hashlib.sha256(memoryview(ZEROS)[:rest]).digest()] if rest else []
    return [ZEROS_HASH] * whole + last


def data_blocks(descriptor: int, size: int) -> Iterator[int]:
    """Give the numbers of the blocks of a file that are not holes altogether."""
    following = 0
    for start, end in data_ranges(descriptor):
        stop = -(-min(end, size) // BLOCK_BYTES)
        yield from range(max(following, start // BLOCK_BYTES), stop)
        following = max(following, stop)


def read_block(descriptor: int, number: int, size: int, buffer: memoryview) -> memoryview:
    """Read a block of a file of ``size`` bytes into the buffer and give the part of it that was filled.

    Raises:
        EOFError: the file is shorter by now.
    """
    start = number * BLOCK_BYTES
    wanted = buffer[: min(BLOCK_BYTES, size - start)]
    filled = 0
    while filled < len(wanted):
        count = os.preadv(descriptor, [wanted[filled:]], start + filled)
        if not count:
            raise EOFError(f"the file ends after {start + filled} bytes instead of {size}")
        filled += count
    return wanted


def write_block(descriptor: int, number: int, block: memoryview) -> None:
    """Write a block to its place in a file."""
    start = number * BLOCK_BYTES
    written = 0
    while written < len(block):
        written += os.pwrite(descriptor, block[written:], start + written)


def each_block(numbers: Iterable[int], work: Work) -> None:
    """Do the work with each block, on several threads where there are many; returns when all is done.

    Raises:
        Exception: whatever the work raised first; what was not begun by then is left.
    """
    blocks = list(numbers)
    count = min(THREADS_MAX, os.cpu_count() or 1, len(blocks) // BLOCKS_WORTH_A_THREAD)
    if count <= 1:
        _work_off(iter(blocks), Lock(), work)
        return
    rest, lock = iter(blocks), Lock()
    with ThreadPoolExecutor(count, thread_name_prefix="blocks") as pool:
        results = [pool.submit(_work_off, rest, lock, work) for _ in range(count)]
        for result in results:
            result.result()


def _work_off(rest: Iterator[int], lock: Lock, work: Work) -> None:
    buffer = memoryview(bytearray(BLOCK_BYTES))
    try:
        while True:
            with lock:
                number = next(rest, None)
            if number is None:
                return
            work(number, buffer)
    except BaseException:
        with lock:
            deque(rest, maxlen=0)  # the other threads find nothing left
        raise
