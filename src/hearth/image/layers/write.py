"""Puts a merged tree into an empty directory of this process's own, by names that the tree decides alone."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hearth.image.layers.tar import Entry, Kind, TarReader
from hearth.image.layers.tree import Node, Tree

MAX_TIME_NS = (2**31 - 1) * 10**9
"""mke2fs writes times as 32 bits of seconds."""
SPECIAL = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}

OpenLayer = Callable[[int], TarReader]
"""Opens a layer anew, by its number."""


@dataclass(kw_only=True)
class Written:
    """What the tree has come to: names, and bytes of data of files."""

    names: int = 0
    data_bytes: int = 0
    lost_xattrs: int = 0
    """Attributes that this file system takes none of."""


def write_tree(tree: Tree, open_layer: OpenLayer) -> Written:
    """Write the tree into the current directory, which is empty and nobody else's; each layer is read once more."""
    os.umask(0)
    written = Written()
    first: dict[Node, bytes] = {}
    links: list[tuple[bytes, bytes]] = []
    for path, node in tree.walk():
        written.names += 1
        if node in first:
            links.append((first[node], path))
            continue
        first[node] = path
        _make(path, node)
    _write_data(first, open_layer, written)
    for existing, path in links:
        os.link(existing, path, follow_symlinks=False)
    # What is inside first: a directory's time changes with what is put into it.
    for node, path in reversed(first.items()):
        _describe(path, node, written)
    _describe(b".", tree.root, written)
    return written


def _make(path: bytes, node: Node) -> None:
    if node.kind is Kind.DIRECTORY:
        os.mkdir(path, 0o700)
    elif node.kind is Kind.SYMLINK:
        os.symlink(node.target, path)
    elif node.kind in SPECIAL:
        os.mknod(path, SPECIAL[node.kind] | 0o600, os.makedev(*node.device))


def _write_data(first: dict[Node, bytes], open_layer: OpenLayer, written: Written) -> None:
    wanted: dict[int, dict[int, bytes]] = {}
    for node, path in first.items():
        if node.source is not None:
            layer, number = node.source
            wanted.setdefault(layer, {})[number] = path
    for layer, paths in sorted(wanted.items()):
        reader = open_layer(layer)
        for entry in reader:
            path = paths.pop(entry.number, b"")
            if path:
                _write_file(path, entry, reader.data())
                written.data_bytes += entry.stored
            if not paths:
                break


def _write_file(path: bytes, entry: Entry, data: Iterable[memoryview]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        ranges = iter(entry.ranges if entry.ranges is not None else [(0, entry.size)])
        position = end = 0
        for piece in data:
            while len(piece):
                while position == end:
                    position, length = next(ranges)
                    end = position + length
                count = os.pwrite(descriptor, piece[: end - position], position)
                position += count
                piece = piece[count:]
        os.ftruncate(descriptor, entry.size)
    finally:
        os.close(descriptor)


def _describe(path: bytes, node: Node, written: Written) -> None:
    os.chown(path, node.uid, node.gid, follow_symlinks=False)
    for name, value in node.xattrs.items():
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.E2BIG):
                raise
            written.lost_xattrs += 1
    if node.kind is not Kind.SYMLINK:
        os.chmod(path, node.mode)  # after the owner: a change of that takes setuid away
    time_ns = min(max(node.mtime_ns, 0), MAX_TIME_NS)
    os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
