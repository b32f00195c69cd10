"""Mounts: init's own in the initramfs, the sandbox's below its root, and the move of that root onto ``/``.

Nothing is written to the sandbox's file system: what is not there as a mount point is left out.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time

from hearth.agent import syscalls
from hearth.agent.syscalls import MS_BIND, MS_MOVE, MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT
from hearth.wire.runtime_typing import NamedTuple

NEW_ROOT = "/newroot"
DEVICE_TIMEOUT_S = 10.0
_ROOT_OPTIONS = {"ext4": "noinit_itable,no_prefetch_block_bitmaps"}
"""By file system: without these the kernel reads and writes the whole disk's tables in the background after every boot,
and a machine that was copied in the midst of it goes on with that when it should answer."""
_POLL_S = 0.002


class _Mount(NamedTuple):
    kind: str
    target: str
    flags: int
    data: str = ""


_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_OWN = (
    _Mount("proc", "/proc", _SAFE),
    _Mount("sysfs", "/sys", _SAFE),
    _Mount("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC),
    _Mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=620,gid=5,ptmxmode=666"),
    _Mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"),  # noqa: S108 -- a mount point
    _Mount("cgroup2", "/sys/fs/cgroup", _SAFE),
)
_DEVICE_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


def mount_own() -> None:
    """Mount what init and the kernel need, in the initramfs; a kernel without one of the file systems goes without.

    Raises:
        OSError: /proc or /dev cannot be mounted.
    """
    for item in _OWN:
        with contextlib.suppress(FileExistsError):
            os.mkdir(item.target, 0o755)
        try:
            syscalls.mount(item.kind, item.target, item.kind, item.flags, item.data)
        except OSError:
            if item.target in ("/proc", "/dev"):
                raise
    for link, target in _DEVICE_LINKS:
        with contextlib.suppress(FileExistsError):
            os.symlink(target, link)


def wait_for_device(path: str) -> None:
    """Wait until the kernel has made a block device.

    Raises:
        TimeoutError: it did not come.
    """
    deadline = time.monotonic() + DEVICE_TIMEOUT_S
    while not _is_block_device(path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear within {DEVICE_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)


def mount_root(device: str, kind: str) -> int:
    """Mount the sandbox's root with its kernel file systems, move it onto ``/`` and give a descriptor of it.

    We stay where we are: our own root is the initramfs below it. Whoever enters the descriptor and calls chroot sees
    a root that is the top of the mount tree, as after switch_root(8).

    Raises:
        OSError: it cannot be mounted.
    """
    os.mkdir(NEW_ROOT)
    syscalls.mount(device, NEW_ROOT, kind, MS_NOATIME, _ROOT_OPTIONS.get(kind, ""))
    for source, target in (("/proc", "proc"), ("/sys", "sys"), ("/sys/fs/cgroup", "sys/fs/cgroup"), ("/dev", "dev")):
        _bind(source, target)
    for target in ("dev/pts", "dev/shm"):
        _bind(f"/{target}", target)
    if _is_directory(f"{NEW_ROOT}/run"):
        syscalls.mount("tmpfs", f"{NEW_ROOT}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    root = os.open(NEW_ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(NEW_ROOT)
    syscalls.mount(".", "/", flags=MS_MOVE)
    os.chdir("/")
    return root


def make_disks_read_only(root: int) -> None:
    """Remount every disk read-only so that the next mount finds it clean; the last mounted first, as far as it goes."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.split(" ") for line in file]
    for source, target, *_ in reversed(rows):
        if source.startswith("/dev/"):
            path = _unescape(target).removeprefix("/")
            with contextlib.suppress(OSError):
                syscalls.mount("", f"/proc/self/fd/{root}/{path}", flags=MS_REMOUNT | MS_RDONLY)


def _unescape(text: str) -> str:
    """Read a path of /proc/mounts: blanks and backslashes stand as octal (proc_pid_mounts(5))."""
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _bind(source: str, target: str) -> None:
    if _is_directory(f"{NEW_ROOT}/{target}") and os.path.ismount(source):
        syscalls.mount(source, f"{NEW_ROOT}/{target}", flags=MS_BIND)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
