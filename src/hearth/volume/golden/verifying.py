"""Reading a volume again that was just written: whether its storage gives back what it was given."""

from __future__ import annotations

import contextlib
import os
import re

from hearth.host.guest_disk import DiskFailed, GuestDisk
from hearth.volume.golden.base import GoldenImage, OnBytes, PopulateFailed

PERCENT = re.compile(rb"\(\s*(\d+\.\d+)/100%\)")


async def verify(image: GoldenImage, disk: GuestDisk, on_bytes: OnBytes) -> None:
    """Compare what a guest would see on a volume with its image, zeros behind it included, past the host's cache.

    Raises:
        PopulateFailed: they differ, or the volume cannot be read.
    """
    total = disk.size_bytes

    def follow(said: bytes) -> None:
        if found := PERCENT.findall(said):
            on_bytes(int(float(found[-1]) / 100 * total), total)

    on_bytes(0, total)
    with contextlib.ExitStack() as stack:
        descriptor = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        there = GuestDisk(descriptor=descriptor, format=image.format, size_bytes=image.virtual_size_bytes)
        try:
            is_same = await disk.is_same_as(there, on_output=follow)
        except DiskFailed as error:
            raise PopulateFailed(
                "the volume could not be read again", details=error.details, resolution="look at the host's disks"
            ) from error
    if not is_same:
        raise PopulateFailed(
            "the volume does not hold what its image does",
            details="what was read from the storage again differs from what was written to it",
            resolution="look at the host's disks: they lose or change what they are given",
        )
    on_bytes(total, total)
