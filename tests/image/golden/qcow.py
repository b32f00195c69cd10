"""qcow2 files for tests: good ones from qemu-img, bad ones by changing single fields of their headers."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

FIELDS = {
    "magic": (0, ">I"),
    "version": (4, ">I"),
    "backing_offset": (8, ">Q"),
    "backing_bytes": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "virtual_size": (24, ">Q"),
    "encryption": (32, ">I"),
    "l1_count": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "refcounts_offset": (48, ">Q"),
    "refcounts_clusters": (56, ">I"),
    "snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "refcount_order": (96, ">I"),
    "header_bytes": (100, ">I"),
    "compression": (104, ">B"),
}


def changed(image: bytes, **fields: int) -> bytes:
    """Give an image with other values in its header."""
    made = bytearray(image)
    for name, value in fields.items():
        position, form = FIELDS[name]
        struct.pack_into(form, made, position, value)
    return bytes(made)


def with_extension(image: bytes, kind: int, data: bytes) -> bytes:
    """Give an image whose header has one more extension, before the others."""
    (end,) = struct.unpack_from(">I", image, 100)
    (cluster_bits,) = struct.unpack_from(">I", image, 20)
    extension = struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
    cluster = 1 << cluster_bits
    return image[:end] + extension + image[end : cluster - len(extension)] + image[cluster:]


def make(directory: Path, *options: str, size: str = "16M", data: bytes = b"golden" * 50_000) -> bytes:
    """Let qemu-img make an image with some data in it."""
    raw, path = directory / "made.raw", directory / "made.qcow2"
    raw.write_bytes(data)
    os.truncate(raw, int(size[:-1]) << 20)
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)]
    subprocess.run(words, check=True, capture_output=True)
    raw.unlink()
    made = path.read_bytes()
    path.unlink()
    return made
