"""The header of a qcow2 file, read strictly: what QEMU would follow out of the file is refused before QEMU sees it.

Layout: QEMU's docs/interop/qcow2.rst. Only the first cluster is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"QFI\xfb"
V2_BYTES, V3_BYTES = 72, 104
_HEAD = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
CLUSTER_BITS = range(9, 22)
HEADER_MAX_BYTES = 1 << CLUSTER_BITS[-1]
DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION, EXTENDED_L2 = 1, 2, 4, 8, 16
KNOWN_INCOMPATIBLE = COMPRESSION | EXTENDED_L2
COMPRESSIONS = (0, 1)
"""zlib and Zstandard."""
REFCOUNT_ORDER_MAX = 6
SNAPSHOTS_MAX = 256
EXTENSION_END, BACKING_FORMAT, ENCRYPTION, DATA_FILE = 0, 0xE2792ACA, 0x0537BE77, 0x44415441
FORBIDDEN_EXTENSIONS = {
    BACKING_FORMAT: "it names the format of a backing file",
    ENCRYPTION: "it is encrypted",
    DATA_FILE: "it names an external data file",
}
L2_ENTRY_BYTES, L2_EXTENDED_ENTRY_BYTES = 8, 16


class NotSafe(ValueError):
    """The text says what is wrong with the header."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a good header tells: the disk's size in bytes, clusters' size, version 2 or 3."""

    virtual_size_bytes: int
    cluster_bytes: int
    version: int


def read_header(data: bytes, file_bytes: int) -> Header:
    """Judge a header.

    Args:
        data: the file's first ``HEADER_MAX_BYTES``, or all of it.
        file_bytes: the file's size.

    Raises:
        NotSafe: the file is no qcow2, leads out of itself, is encrypted, damaged, or asks for what is not known.
    """
    if len(data) < V2_BYTES or data[:4] != MAGIC:
        raise NotSafe("it is not a qcow2 file")
    (
        _,
        version,
        backing_offset,
        backing_bytes,
        cluster_bits,
        virtual_size_bytes,
        encryption,
        l1_count,
        l1_offset,
        refcounts_offset,
        refcounts_clusters,
        snapshots,
        snapshots_offset,
    ) = _HEAD.unpack_from(data)
    if version not in (2, 3):
        raise NotSafe(f"its version is {version}, not 2 or 3")
    if backing_offset or backing_bytes:
        raise NotSafe("it has a backing file")
    if encryption:
        raise NotSafe("it is encrypted")
    if cluster_bits not in CLUSTER_BITS:
        raise NotSafe(f"its clusters have 2^{cluster_bits} bytes")
    cluster_bytes = 1 << cluster_bits
    features, header_bytes = (0, V2_BYTES) if version == 2 else _read_v3(data, cluster_bytes)
    _check_extensions(data[:cluster_bytes], header_bytes)
    entry_bytes = L2_EXTENDED_ENTRY_BYTES if features & EXTENDED_L2 else L2_ENTRY_BYTES
    covered_bytes = cluster_bytes * (cluster_bytes // entry_bytes)
    if not 0 < virtual_size_bytes < 1 << 62:
        raise NotSafe(f"the disk in it has {virtual_size_bytes} bytes")
    if l1_count < -(-virtual_size_bytes // covered_bytes):
        raise NotSafe("its first table is too short for its disk")
    _check_table("first", l1_offset, 8 * l1_count, cluster_bytes, file_bytes)
    _check_table("reference", refcounts_offset, refcounts_clusters * cluster_bytes, cluster_bytes, file_bytes)
    if snapshots > SNAPSHOTS_MAX or (snapshots and not 0 < snapshots_offset < file_bytes):
        raise NotSafe("its table of snapshots is not in it")
    return Header(virtual_size_bytes=virtual_size_bytes, cluster_bytes=cluster_bytes, version=version)


def _read_v3(data: bytes, cluster_bytes: int) -> tuple[int, int]:
    """Check what version 3 added; gives the incompatible features and the header's length."""
    if len(data) < V3_BYTES:
        raise NotSafe("its header is cut off")
    features, _, _, refcount_order, header_bytes = _V3.unpack_from(data, V2_BYTES)
    for bit, what in (
        (EXTERNAL_DATA, "it has an external data file"),
        (CORRUPT, "it is marked as corrupt"),
        (DIRTY, "it was not closed properly; repair it with 'qemu-img check -r all'"),
    ):
        if features & bit:
            raise NotSafe(what)
    if features & ~KNOWN_INCOMPATIBLE:
        raise NotSafe(f"it needs features that are not known: {features:#x}")
    if refcount_order > REFCOUNT_ORDER_MAX:
        raise NotSafe(f"its reference counts have 2^{refcount_order} bits")
    if not V3_BYTES <= header_bytes <= min(cluster_bytes, len(data)) or header_bytes % 8:
        raise NotSafe(f"its header has {header_bytes} bytes")
    compression = data[V3_BYTES] if header_bytes > V3_BYTES else 0
    if compression not in COMPRESSIONS or bool(compression) != bool(features & COMPRESSION):
        raise NotSafe(f"its compression is of the unknown kind {compression}")
    return features, header_bytes


def _check_extensions(first_cluster: bytes, position: int) -> None:
    while position + _EXTENSION.size <= len(first_cluster):
        kind, size = _EXTENSION.unpack_from(first_cluster, position)
        if kind == EXTENSION_END:
            return
        if kind in FORBIDDEN_EXTENSIONS:
            raise NotSafe(FORBIDDEN_EXTENSIONS[kind])
        position += _EXTENSION.size + -(-size // 8) * 8
    if position > len(first_cluster):
        raise NotSafe("its header's extensions do not end in its first cluster")


def _check_table(name: str, offset: int, size: int, cluster_bytes: int, file_bytes: int) -> None:
    if size == 0 or offset == 0 or offset % cluster_bytes or offset + size > file_bytes:
        raise NotSafe(f"its {name} table is not in it: it was cut off, or is damaged")
