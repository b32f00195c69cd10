"""How much a sparse storage has to give for an image: asked of qemu-img, which reads the image's tables and no more."""

from __future__ import annotations

import os

import msgspec
import structlog

from hearth.host.qemu_nodes import source_of
from hearth.host.tool import Limits, run_enclosed
from hearth.volume.golden.base import GoldenImage

log = structlog.get_logger(__name__)

SOURCE = 3
CLUSTER_MIN_BYTES, CLUSTER_MAX_BYTES = 512, 2 << 20
"""What qcow2 may count in (QEMU, docs/interop/qcow2.txt): stands for the storage's own blocks."""
TIMEOUT_S = 300.0
LIMITS = Limits(memory_bytes=4 << 30, cpu_s=300)


class _Measured(msgspec.Struct, frozen=True):
    required: int


async def bytes_taken(image: GoldenImage, block_bytes: int) -> int:
    """Give what an image's disk takes at most of a storage that gives blocks of that size; holes take nothing.

    That of the whole disk where nobody can tell.
    """
    if not CLUSTER_MIN_BYTES <= block_bytes <= CLUSTER_MAX_BYTES or block_bytes & (block_bytes - 1):
        return image.virtual_size_bytes
    source = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        outcome = await run_enclosed(
            measure_words(image.format, block_bytes), descriptors={SOURCE: source}, limits=LIMITS, timeout_s=TIMEOUT_S
        )
    finally:
        os.close(source)
    try:
        measured = msgspec.json.decode(outcome.output, type=_Measured).required
    except msgspec.DecodeError:
        log.warning(
            "an image cannot be measured, so all of its disk is counted", image=image.key, why=outcome.said[-200:]
        )
        return image.virtual_size_bytes
    return min(measured, image.virtual_size_bytes)


def measure_words(image_format: str, block_bytes: int) -> list[str]:
    """Give program and arguments; the source is inherited."""
    count = ["-O", "qcow2", "-o", f"cluster_size={block_bytes}"]
    return ["qemu-img", "measure", "--output=json", *count, source_of(image_format, SOURCE)]
