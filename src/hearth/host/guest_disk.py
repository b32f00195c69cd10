"""The bytes a guest would see in a disk's file, whatever its format: read and written by QEMU's tools in an enclosure,
for no other program of this host knows qcow2, and a stranger may have made it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hearth.errors import HearthError
from hearth.host.growing import Write
from hearth.host.qemu_nodes import Layer, direct, part_of, source_of, target_of, writable
from hearth.host.threads import on_own_thread
from hearth.host.tool import Limits, run_enclosed

SOURCE, TARGET, BASE = 3, 4, 5
MEMORY_BYTES = 2 << 30
TOOL_TIMEOUT_S = 300.0
COPY_TIMEOUT_S = 6 * 3600.0
SECTOR_BYTES = 512
FILE_SPARE_BYTES = 64 << 20
"""What a qcow2 file may take beyond its disk's size."""
IMAGE = 6
FIRST_PATTERN, WRITES_MAX = 6, 6
"""Descriptors of what is to be written: those from 12 on are the enclosure's."""
DIFFERENT = 1
"""qemu-img(1), compare: 0 the same, 1 different, more is an error."""

OnOutput = Callable[[bytes], None]


class DiskFailed(HearthError):
    """A disk's bytes cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class GuestDisk:
    """An open disk.

    Args:
        descriptor: of its file or block device.
        format: ``raw`` or ``qcow2``.
        size_bytes: what a guest sees.
        base: descriptor of the file that it lies over, -1 for none; ``base_format`` how that is to be read.
    """

    descriptor: int
    format: str
    size_bytes: int
    base: int = -1
    base_format: str = "raw"

    @property
    def descriptors(self) -> Mapping[int, int]:
        """Give what a tool is to inherit to read it: its number → ours."""
        return {SOURCE: self.descriptor} | ({} if self.base < 0 else {BASE: self.base})

    def words(self, offset_bytes: int, size_bytes: int) -> str:
        """Name a part of it for a tool that inherits ``descriptors``."""
        return part_of(self._layer, self._base_layer, offset_bytes, size_bytes)

    @property
    def _layer(self) -> Layer:
        is_block = stat.S_ISBLK(os.fstat(self.descriptor).st_mode)
        return Layer(format=self.format, number=SOURCE, is_block=is_block)

    @property
    def _base_layer(self) -> Layer | None:
        return None if self.base < 0 else Layer(format=self.base_format, number=BASE)

    async def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Give bytes of it, fewer at its end. Offset and size are whole sectors.

        Raises:
            DiskFailed: they cannot be read.
        """
        size_bytes = max(0, min(size_bytes, self.size_bytes - offset_bytes))
        if size_bytes == 0:
            return b""
        if self.format == "raw" and self.base < 0:
            return await on_own_thread("disk-read", lambda: os.pread(self.descriptor, size_bytes, offset_bytes))
        memory = os.memfd_create("part", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, size_bytes)
            await self.copy_to(memory, offset_bytes, size_bytes, timeout_s=TOOL_TIMEOUT_S)
            return os.pread(memory, size_bytes, 0)
        finally:
            os.close(memory)

    async def write(self, writes: Sequence[Write]) -> None:
        """Write in this order, each durable before the next; at most ``WRITES_MAX`` of them.

        Raises:
            DiskFailed: it could not be written.
        """
        if not writes:
            return
        if self.format == "raw" and self.base < 0:
            await on_own_thread("disk-write", lambda: self._write_now(writes))
        else:
            await self._write_enclosed(writes)

    def _write_now(self, writes: Sequence[Write]) -> None:
        for each in writes:
            position, left = each.offset_bytes, memoryview(each.data)
            while left:
                written = os.pwrite(self.descriptor, left, position)
                position, left = position + written, left[written:]
            os.fsync(self.descriptor)

    async def _write_enclosed(self, writes: Sequence[Write]) -> None:
        commands: list[str] = []
        with ExitStack() as stack:
            patterns: dict[int, int] = {}
            for number, each in enumerate(writes, FIRST_PATTERN):
                patterns[number] = os.memfd_create("pattern", os.MFD_CLOEXEC)
                stack.callback(os.close, patterns[number])
                os.pwrite(patterns[number], each.data, 0)
                write = f"write -s /proc/self/fd/{number} {each.offset_bytes} {len(each.data)}"
                commands += [
                    "-c",
                    write,
                    "-c",
                    "flush",
                ]
            outcome = await run_enclosed(
                ["qemu-io", "-t", "writeback", *commands, writable(self._layer, self._base_layer)],
                descriptors={**self.descriptors, **patterns},
                limits=Limits(memory_bytes=MEMORY_BYTES, file_bytes=self.size_bytes + FILE_SPARE_BYTES),
                timeout_s=TOOL_TIMEOUT_S,
            )
        if outcome.status != 0:
            raise DiskFailed("the disk cannot be written", details=f"{outcome.how}: {outcome.said[-300:]}")

    async def copy_to(
        self,
        target: int,
        offset_bytes: int,
        size_bytes: int,
        *,
        on_output: OnOutput | None = None,
        timeout_s: float = COPY_TIMEOUT_S,
    ) -> None:
        """Write a part of it into an empty, sparse file of that size.

        Raises:
            DiskFailed: it cannot be read, or not be written.
        """
        progress = [] if on_output is None else ["-p"]
        outcome = await run_enclosed(
            [
                *("qemu-img", "convert", *progress, "-n", "-t", "writeback", "-W", "--target-is-zero"),
                *(self.words(offset_bytes, size_bytes), target_of("raw", TARGET)),
            ],
            descriptors={**self.descriptors, TARGET: target},
            limits=Limits(memory_bytes=MEMORY_BYTES, cpu_s=int(min(timeout_s, 3600)), file_bytes=size_bytes),
            timeout_s=timeout_s,
            on_output=on_output,
        )
        if outcome.status != 0:
            raise DiskFailed(
                "the disk cannot be read",
                details=f"{size_bytes} bytes from {offset_bytes} on: {outcome.how}: {outcome.said[-300:]}",
                resolution="check it with 'qemu-img check'",
            )

    async def is_same_as(self, image: GuestDisk, *, on_output: OnOutput | None = None) -> bool:
        """Tell whether it holds what an image does and zeros behind, read from the storage and not from a cache.

        Raises:
            DiskFailed: one of the two cannot be read.
        """
        outcome = await run_enclosed(
            ["qemu-img", "compare", "-p", source_of(image.format, IMAGE), direct(self._layer, self._base_layer)],
            descriptors={**self.descriptors, IMAGE: image.descriptor},
            limits=Limits(memory_bytes=MEMORY_BYTES, cpu_s=3600),
            timeout_s=COPY_TIMEOUT_S,
            on_output=on_output,
        )
        if outcome.status not in (0, DIFFERENT):
            raise DiskFailed("the disk cannot be read", details=f"{outcome.how}: {outcome.said[-300:]}")
        return outcome.status == 0
