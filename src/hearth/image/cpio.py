"""The initramfs archive: a writer of the kernel's ``newc`` cpio format whose output depends on its entries alone.

Format: Documentation/driver-api/early-userspace/buffer-format.rst in the Linux sources.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in the archive: ``mode`` with its file type, ``data`` a file's bytes or a link's target."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """A regular file, 0755 or 0644."""
    return Entry(path=path, mode=stat.S_IFREG | (0o755 if executable else 0o644), data=data)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link to ``target``."""
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def directory(path: str, *, mode: int = 0o755) -> Entry:
    """A directory; parents of other entries are made without being named."""
    return Entry(path=path, mode=stat.S_IFDIR | mode)


def character_device(path: str, major: int, minor: int, *, mode: int = 0o600) -> Entry:
    """A character device node, such as /dev/console, which the kernel opens for PID 1 before anything is mounted."""
    return Entry(path=path, mode=stat.S_IFCHR | mode, device=(major, minor))


def pack(entries: Iterable[Entry]) -> bytes:
    """Make the archive: sorted by path, owned by root, every time stamp 0.

    Args:
        entries: paths relative to the root, without a leading slash; missing parents are added as 0755.

    Raises:
        ValueError: a path occurs twice or is not a plain relative path.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        check_path(entry.path)
        if entry.path in named:
            raise ValueError(f"{entry.path} occurs twice")
        named[entry.path] = entry
    for path in list(named):
        for parent in PurePosixPath(path).parents:
            if (name := str(parent)) != ".":
                named.setdefault(name, directory(name))
    # Compared part by part, so that a directory always comes before what it holds ("a", "a/b", "a.b").
    ordered = sorted(named.values(), key=lambda entry: entry.path.split("/"))
    chunks = [chunk for inode, entry in enumerate(ordered, start=1) for chunk in record(inode, entry)]
    chunks.extend(record(0, Entry(path=TRAILER, mode=0)))
    return b"".join(chunks)


def check_path(path: str) -> None:
    """Refuse what an unpacker would put somewhere else than its name says.

    Raises:
        ValueError: the path is absolute, empty, or has empty, ``.`` or ``..`` parts.
    """
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"{path!r} is not a plain relative path")


def record(inode: int, entry: Entry) -> tuple[bytes, ...]:
    """Give one entry's header, name and data, each padded to four bytes."""
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    values = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = MAGIC + b"".join(b"%08x" % value for value in values)
    return header + name, padding(len(header) + len(name)), entry.data, padding(len(entry.data))


def padding(size: int) -> bytes:
    """Give the zero bytes that bring ``size`` to the next multiple of four."""
    return bytes(-size % ALIGNMENT)
