"""Which file systems of the sandbox sit on block devices, from /proc/self/mountinfo."""

from __future__ import annotations

import os

from hearth.agent.procfs import read_bytes
from hearth.wire.record import Record

_WITHOUT_DEVICE_NUMBER = ("btrfs",)
"""On block devices, though their device number is an anonymous one, as that of tmpfs is."""


class Mount(Record):
    """One line of mountinfo; ``device`` is the number as stat(2) gives it, ``root`` what part of it is mounted."""

    device: int
    root: str
    point: str
    kind: str
    source: str
    is_read_only: bool
    """Of the file system, not of this mount of it."""

    @property
    def is_on_disk(self) -> bool:
        """True when a block device is below it."""
        return os.major(self.device) != 0 or (self.kind in _WITHOUT_DEVICE_NUMBER and self.source.startswith("/dev/"))

    @property
    def has_plain_number(self) -> bool:
        """True when stat(2) on it gives ``device``, so that it can be told whether a path still leads here."""
        return self.kind not in _WITHOUT_DEVICE_NUMBER


def read_mounts(proc: int) -> list[Mount]:
    """Give the mounts this process sees, oldest first.

    Raises:
        OSError: /proc is not what it should be.
    """
    return [_parse(line) for line in read_bytes(proc, "self/mountinfo").splitlines()]


def writable_disks(mounts: list[Mount]) -> list[list[Mount]]:
    """Group the mounts of writable file systems on block devices: a list a file system, the newest first.

    A file system in a file of another (a loop device) is newer than that, so that it comes first. In a list those
    that show the file system's top come first.
    """
    found: dict[int, list[Mount]] = {}
    for mount in mounts:
        if mount.is_on_disk and not mount.is_read_only:
            found.setdefault(mount.device, []).append(mount)
    return [sorted(group, key=lambda mount: mount.root != "/") for group in reversed(found.values())]


def _parse(line: bytes) -> Mount:
    """Read a line: ``36 35 98:0 /root /point options [tags] - kind source super-options`` (proc_pid_mountinfo(5))."""
    before, _, after = line.partition(b" - ")
    fields, rest = before.split(b" "), after.split(b" ")
    major, _, minor = fields[2].partition(b":")
    return Mount(
        device=os.makedev(int(major), int(minor)),
        root=_unescape(fields[3]),
        point=_unescape(fields[4]),
        kind=rest[0].decode("ascii", "replace"),
        source=_unescape(rest[1]),
        is_read_only=b"ro" in rest[2].split(b","),
    )


def _unescape(text: bytes) -> str:
    """Read a path in which blanks, line ends and backslashes stand as ``\\ooo``."""
    first, *rest = text.split(b"\\")
    return os.fsdecode(first + b"".join(bytes((int(part[:3], 8) & 0xFF,)) + part[3:] for part in rest))
