"""Turns a chain of disk layers into one file: a raw disk for an image, or one layer in place of many.

``qemu-img`` is told every layer by name and believes nothing that stands inside them: a header that names other files
is refused before (a guest that broke into its VMM could have written one). Its writes are synced by the caller or here,
for its own caches are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.engine.manifest import refused
from hearth.engine.qemu.overlay import HEADER, MAGIC, VERSION, virtual_size
from hearth.errors import EngineFailed, InvalidInput
from hearth.host.files import require_free, sync_file
from hearth.host.process import CommandFailed
from hearth.host.threads import on_own_thread
from hearth.image import tools

TIMEOUT_S = 900.0
CPU_S = 900
ADDRESS_SPACE_BYTES = 4 << 30
KNOWN_FEATURES = 0b1
"""Of the incompatible ones only the dirty bit; an external data file would be 0b100 (docs/interop/qcow2.txt)."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A disk: the raw root file system and the qcow2 layers over it, lowest first. Nobody writes to any of them."""

    rootfs: Path
    layers: Sequence[Path]

    def node(self) -> str:
        """Describe the disk to a QEMU tool, in its ``json:`` syntax, with nothing left to be looked up."""
        node: dict[str, object] = {"driver": "raw", "read-only": True, "file": _file(self.rootfs)}
        for layer in self.layers:
            node = {"driver": "qcow2", "file": _file(layer), "backing": node}
        return "json:" + json.dumps(node, separators=(",", ":"))

    def check(self) -> None:
        """See that no layer names files of its own, and that all are of the root file system's size. Blocking.

        Raises:
            SnapshotRefused: one does, or is not.
            InvalidInput: one is no qcow2 file.
        """
        size_bytes = self.rootfs.stat().st_size
        for layer in self.layers:
            _require_plain(layer)
            # A few clusters, named again and again, would fill the host's disk with what the header claims to hold.
            if virtual_size(layer) != size_bytes:
                raise refused(layer.parent.name, f"{layer.name} is not of the size of the disk below it")


async def export(chain: Chain, target: Path) -> None:
    """Write the disk as one raw file, zeros as holes, durably; ``target`` must not exist.

    Raises:
        SnapshotRefused: a layer is not acceptable.
        NoSpace: the file system is full.
        EngineFailed, TimedOut: it could not be written. In any case of failure nothing is left.
    """
    await on_own_thread("check layers", lambda: _check_room(chain, target.parent, with_rootfs=True))
    try:
        await _run(["convert", "-t", "writeback", "-O", "raw", chain.node(), str(target)], target.parent)
        await on_own_thread("sync", lambda: sync_file(target))
    except BaseException:
        await on_own_thread("remove", lambda: target.unlink(missing_ok=True))
        raise


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
    caches = ["-t", "writeback", "-T", "writeback"]
    await _run(["rebase", *caches, "-F", "raw", "-b", str(chain.rootfs), chain.node()], top.parent)
    # It has written the name of what lies below into the header; no disk of ours names another.
    await _run(["rebase", "-u", "-f", "qcow2", "-b", "", str(top)], top.parent)
    await on_own_thread("check layers", lambda: _require_plain(top))


async def _run(words: Sequence[str], where: Path) -> None:
    limits = ["prlimit", f"--as={ADDRESS_SPACE_BYTES}", f"--cpu={CPU_S}", "--core=0", "--"]
    try:
        await tools.run([*limits, "qemu-img", *words], timeout_s=TIMEOUT_S, where=where)
    except CommandFailed as error:
        raise EngineFailed("the layers of a disk could not be put together", details=error.output.strip()) from error


def _check_room(chain: Chain, where: Path, *, with_rootfs: bool) -> None:
    chain.check()
    sources = [*chain.layers, *([chain.rootfs] if with_rootfs else [])]
    require_free(where, sum(path.stat().st_blocks * 512 for path in sources))


def _file(path: Path) -> dict[str, str]:
    return {"driver": "file", "filename": str(path)}


def _require_plain(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[:4] != MAGIC:
        raise InvalidInput("not a qcow2 file", details=str(path), field="path")
    fields = HEADER.unpack(head)
    version, backing_at, encryption, features = fields[1], fields[2], fields[6], fields[13]
    if version != VERSION or backing_at or encryption or features & ~KNOWN_FEATURES:
        raise refused(path.parent.name, f"the header of {path.name} says what none of ours does")
