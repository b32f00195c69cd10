"""Whether an image may be used: its header is read here, then qemu-img checks it where it can see nothing else.

Nothing is probed: the format is the one that was declared, or the image is refused.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import InvalidInput
from hearth.host.files import opened
from hearth.host.qemu_nodes import source_of
from hearth.host.threads import on_own_thread
from hearth.host.tool import Limits, Outcome, run_enclosed
from hearth.image.golden.base import ImageRefused
from hearth.image.golden.qcow2 import HEADER_MAX_BYTES, NotSafe, read_header

FORMATS = ("qcow2", "raw")
FILE = 3
CHECK_TIMEOUT_S = 900.0
CHECK_LIMITS = Limits(memory_bytes=2 << 30, cpu_s=600, file_bytes=0)
"""Its tables of references take 1/16384 of the disk's size, and threads reserve some."""
TAIL_BYTES = 512
FIELD = "image_type"
AT_START = (
    (b"QFI\xfb", "a qcow2 image"),
    (b"QED\0", "a QED image"),
    (b"KDMV", "a VMDK image"),
    (b"COWD", "a VMDK image"),
    (b"# Disk DescriptorFile", "a VMDK description"),
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a VHD image"),
    (b"WithoutFreeSpace", "a Parallels image"),
    (b"WithouFreSpacExt", "a Parallels image"),
    (b"Bochs Virtual HD Image", "a Bochs image"),
    (b"#!/bin/sh\n#V2.0 Format", "a cloop image"),
    (b"LUKS\xba\xbe", "encrypted with LUKS"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"(\xb5/\xfd", "compressed with Zstandard"),
    (b"BZh", "compressed with bzip2"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "XML"),
)
VDI_AT, VDI = 0x40, b"\x7f\x10\xda\xbe"
AT_END = ((b"conectix", "a VHD image"), (b"koly", "a DMG image"))
"""In the last 512 bytes."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A good image: its format, the size of the disk in it, and how much of that is data once it is unpacked."""

    format: str
    virtual_size_bytes: int
    data_bytes: int


Judge = Callable[[Path, str], Awaitable[Verdict]]


def check_format(image_type: str) -> str:
    """Return a format that images may have.

    Raises:
        InvalidInput: it is none; the error names ``image_type``.
    """
    if image_type not in FORMATS:
        raise InvalidInput(
            "unknown image_type",
            details=f"{image_type[:40]!r} is not {' or '.join(FORMATS)}",
            resolution="say what the image is, or convert it",
            field=FIELD,
        )
    return image_type


class ImageJudge:
    """Judges files, see ``Judge``."""

    def __init__(self, *, virtual_max_bytes: int) -> None:
        self._virtual_max_bytes = virtual_max_bytes

    async def __call__(self, path: Path, image_type: str) -> Verdict:
        """Judge a file that nobody writes to any more.

        Raises:
            ImageRefused: it is not what it is said to be, leads out of itself, is damaged or too large.
            HostUnfit: qemu-img cannot be run enclosed.
        """
        check_format(image_type)
        with opened(path) as descriptor:
            look = functools.partial(inspect, descriptor, image_type)
            virtual_size_bytes, cluster_bytes = await on_own_thread("image-header", look)
            if virtual_size_bytes > self._virtual_max_bytes:
                raise refused(f"its disk has {virtual_size_bytes} bytes, {self._virtual_max_bytes} are possible")
            data_bytes = virtual_size_bytes
            if image_type == "qcow2":
                data_bytes = await check_qcow2(descriptor, virtual_size_bytes, cluster_bytes)
        return Verdict(format=image_type, virtual_size_bytes=virtual_size_bytes, data_bytes=data_bytes)


def inspect(descriptor: int, image_type: str) -> tuple[int, int]:
    """Look at an open file's first and last bytes and give the size of its disk, and of its clusters (0 in a raw one).

    Raises:
        ImageRefused: it is not of that type, or of no use.
    """
    file_bytes = os.fstat(descriptor).st_size
    start = os.pread(descriptor, HEADER_MAX_BYTES, 0)
    if image_type == "qcow2":
        try:
            header = read_header(start, file_bytes)
        except NotSafe as error:
            raise refused(str(error)) from error
        return header.virtual_size_bytes, header.cluster_bytes
    end = os.pread(descriptor, TAIL_BYTES, max(0, file_bytes - TAIL_BYTES))
    for magic, what in AT_START:
        if start.startswith(magic):
            raise refused(f"it is {what}, not a raw disk")
    for magic, what in AT_END:
        if end.startswith(magic):
            raise refused(f"it is {what}, not a raw disk")
    if start[VDI_AT : VDI_AT + len(VDI)] == VDI:
        raise refused("it is a VDI image, not a raw disk")
    return file_bytes, 0


async def check_qcow2(descriptor: int, virtual_size_bytes: int, cluster_bytes: int) -> int:
    """Let qemu-img say the same size and find no error; gives how many bytes its data have once they are unpacked.

    Raises:
        ImageRefused: it does not.
    """
    looks = [asyncio.create_task(_qemu_img(command, descriptor), name=command) for command in ("info", "check")]
    try:  # at a time: starting an enclosure takes longer than a look
        _require_told(await looks[0], virtual_size_bytes)  # and nobody checks to the end what is refused by then
        checked = await looks[1]
    finally:
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
    if checked.status != 0:
        raise refused(f"qemu-img check finds it damaged: {checked.how}: {_complaint(checked)}")
    try:
        clusters = int(json.loads(checked.output).get("allocated-clusters", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise refused(f"qemu-img check cannot read it: {checked.said[-300:]}") from error
    return min(clusters * cluster_bytes, virtual_size_bytes)


def _require_told(told: Outcome, virtual_size_bytes: int) -> None:
    try:
        facts = json.loads(told.output)
        same = facts["virtual-size"] == virtual_size_bytes and facts["format"] == "qcow2"
    except (ValueError, KeyError, TypeError) as error:
        raise refused(f"qemu-img cannot read it: {told.how}: {told.said[-300:]}") from error
    if told.status != 0 or not same or "backing-filename" in facts:
        raise refused("qemu-img reads something else in it than its header says")


async def _qemu_img(command: str, descriptor: int) -> Outcome:
    return await run_enclosed(
        ["qemu-img", command, "--output=json", source_of("qcow2", FILE)],
        descriptors={FILE: descriptor},
        limits=CHECK_LIMITS,
        timeout_s=CHECK_TIMEOUT_S,
    )


def refused(what: str) -> ImageRefused:
    """Give the error for an image that is not to be used."""
    return ImageRefused(
        "the image is not to be used", details=what, resolution="convert it with 'qemu-img convert'", field=FIELD
    )


def _complaint(checked: Outcome) -> str:
    lines = [line for line in checked.said.splitlines() if line and not line.lstrip().startswith(('"', "{", "}"))]
    return " ".join(lines)[:300] or checked.said[-300:]
