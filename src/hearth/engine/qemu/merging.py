"""Turns a chain of disk layers into one file: a raw disk for an image, or one layer in place of many.

QEMU is given every layer as a descriptor (``block_tool``) and believes nothing that stands inside them: a header that
names other files is refused before (a guest that broke into its VMM could have written one). What it writes is synced
by the caller or here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.engine.manifest import refused
from hearth.engine.qemu.block_tool import DiskFile, block_tool, node
from hearth.engine.qemu.overlay import HEADER, MAGIC, VERSION, virtual_size
from hearth.errors import InvalidInput
from hearth.host.files import new_file, require_free
from hearth.host.threads import on_own_thread

METADATA_MAX_BYTES = 64 << 20
"""What a layer takes beside its data, by far: tables of one part in 8000."""
BACKING = struct.Struct(">QI")
BACKING_AT = 8
"""Offset and length of the backing file's name in a header (docs/interop/qcow2.txt)."""
KNOWN_FEATURES = 0b1
"""Of the incompatible ones only the dirty bit; an external data file would be 0b100 (docs/interop/qcow2.txt)."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A disk: the raw root file system and the qcow2 layers over it, lowest first. Nobody writes to any of them.

    Args:
        size_bytes: the most that one of them may claim to hold; None is as much as the root file system.
    """

    rootfs: Path
    layers: Sequence[Path]
    size_bytes: int | None = None

    def size(self) -> int:
        """Tell how large the disk is, in bytes; ``check`` it before. Blocking."""
        return virtual_size(self.layers[-1]) if self.layers else self.rootfs.stat().st_size

    def files(self) -> list[DiskFile]:
        """Describe the disk to a block tool, lowest first."""
        layers = [DiskFile(path=path, format="qcow2") for path in self.layers]
        return [DiskFile(path=self.rootfs, format="raw"), *layers]

    def check(self) -> None:
        """See that no layer names files of its own, is smaller than what is below it, or too large. Blocking.

        Raises:
            SnapshotRefused: one does, or is not.
            InvalidInput: one is no qcow2 file.
        """
        below_bytes = self.rootfs.stat().st_size
        most_bytes = max(below_bytes, self.size_bytes or 0)
        for layer in self.layers:
            _require_plain(layer)
            size_bytes = virtual_size(layer)
            # A few clusters, named again and again, would fill the host's disk with what the header claims to hold.
            if not below_bytes <= size_bytes <= most_bytes:
                raise refused(layer.parent.name, f"{layer.name} is not of the size of its machine's disk")
            below_bytes = size_bytes


async def export(chain: Chain, target: Path) -> None:
    """Write the disk as one raw file, zeros as holes, durably; ``target`` must not exist.

    Raises:
        SnapshotRefused: a layer is not acceptable.
        NoSpace: the file system is full.
        EngineFailed, TimedOut: it could not be written. In any case of failure nothing is left.
    """
    await on_own_thread("check layers", lambda: _check_room(chain, target.parent, with_rootfs=True))
    size_bytes = chain.size()
    with new_file(target) as descriptor:
        os.ftruncate(descriptor, size_bytes)
        files = [*chain.files(), DiskFile(path=target, format="raw", is_writable=True)]
        source, copy = len(files) - 2, len(files) - 1
        async with block_tool(files, file_max_bytes=size_bytes) as tool:
            await tool.job("blockdev-mirror", {"device": node(source), "target": node(copy), "sync": "full"})
        await on_own_thread("sync", lambda: os.fsync(descriptor))


async def merge(chain: Chain) -> None:
    """Let the topmost layer, which nobody else may use, hold all that those below it do; it lies over ``rootfs`` then.

    It is not synced.

    Raises:
        SnapshotRefused: a layer is not acceptable.
        NoSpace: the file system is full.
        EngineFailed, TimedOut: it could not be done; the layer is of no use any more.
    """
    top = chain.layers[-1]
    await on_own_thread("check layers", lambda: _check_room(chain, top.parent, with_rootfs=False))
    *below, _ = chain.files()
    files = [*below, DiskFile(path=top, format="qcow2", is_writable=True)]
    file_max_bytes = chain.size() + METADATA_MAX_BYTES
    async with block_tool(files, file_max_bytes=file_max_bytes) as tool:
        await tool.job("block-stream", {"device": node(len(files) - 1), "base-node": node(0)})
    await on_own_thread("check layers", lambda: _forget_backing(top))


def _forget_backing(path: Path) -> None:
    """Take the name of what lies below out of a header, where QEMU has written it; no disk of ours names another."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, BACKING.pack(0, 0), BACKING_AT)
    finally:
        os.close(descriptor)
    _require_plain(path)


def _check_room(chain: Chain, where: Path, *, with_rootfs: bool) -> None:
    chain.check()
    sources = [*chain.layers, *([chain.rootfs] if with_rootfs else [])]
    require_free(where, sum(path.stat().st_blocks * 512 for path in sources))


def _require_plain(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[:4] != MAGIC:
        raise InvalidInput("not a qcow2 file", details=str(path), field="path")
    fields = HEADER.unpack(head)
    version, backing_at, encryption, features = fields[1], fields[2], fields[6], fields[13]
    if version != VERSION or backing_at or encryption or features & ~KNOWN_FEATURES:
        raise refused(path.parent.name, f"the header of {path.name} says what none of ours does")
