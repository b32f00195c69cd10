"""What this host is and has, as values: tried where a trial is cheap, read where it is not; others judge."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import HostUnfit, TimedOut
from hearth.host import cgroups, enclosure, kernel, rights
from hearth.host.process import CommandFailed, run
from hearth.host.threads import on_own_thread

TOOLS = {
    "qemu-system-x86_64": "--version",
    "qemu-img": "--version",
    "mmdebstrap": "--version",
    "mke2fs": "-V",
    "setpriv": "--version",
    "fakeroot": "--version",
}
TOOL_TIMEOUT_S = 10.0
FICLONE = 0x40049409
"""linux/fs.h"""
PAGEMAP_SCAN = 0xC0606610
"""linux/fs.h: _IOWR('f', 16, struct pm_scan_arg), which is 12 words of 8 bytes; Linux 6.7."""
PAGEMAP_SCAN_BYTES = 96
NETLINK_NETFILTER = 12
NFT_GETGEN = 10 << 8 | 16
"""linux/netfilter/nfnetlink.h, nf_tables.h: subsystem nf_tables, message "which generation"."""
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """A snapshot. An ``*_obstacle`` is None when the thing works, else the system's own words."""

    kernel_release: str
    uid: int
    missing_capabilities: frozenset[str]
    tools: Mapping[str, str | None]
    """Name → first line about its version; None when it is not installed."""
    tun_obstacle: str | None
    namespace_obstacle: str | None
    enclosure_obstacle: str | None
    """What keeps a VMM from being enclosed in user-mode networking."""
    nftables_obstacle: str | None
    cgroup_version: int
    cgroup_reason: str
    disk_free_mib: int
    disk_obstacle: str | None
    reflink: bool
    memory_mib: int
    memory_available_mib: int
    userfaultfd: bool
    pagemap_scan: bool
    vhost_vsock: bool
    same_page_merging: bool
    compressed_swap: bool


async def gather(data_root: Path, tag: str) -> HostFacts:
    """Look at this host and at the file system of ``data_root``, which need not exist yet; takes about 0.1 s.

    Args:
        tag: the daemon's, as for ``cgroups.detect``.
    """
    versions = await asyncio.gather(*(tool_version(name, option) for name, option in TOOLS.items()))
    layout = cgroups.detect(tag).layout
    memory = parse_meminfo(await asyncio.to_thread(Path("/proc/meminfo").read_text))
    disk_obstacle, reflink, free_mib = await asyncio.to_thread(_try_disk, data_root)
    return HostFacts(
        kernel_release=os.uname().release,
        uid=os.geteuid(),
        missing_capabilities=await asyncio.to_thread(rights.missing, rights.FOR_FULL_MODE),
        tools=dict(zip(TOOLS, versions, strict=True)),
        tun_obstacle=_obstacle_to_open("/dev/net/tun"),
        namespace_obstacle=await on_own_thread("try a namespace", _try_namespace),
        enclosure_obstacle=await on_own_thread("try an enclosure", enclosure.obstacle),
        nftables_obstacle=_try_nftables(),
        cgroup_version=layout.version,
        cgroup_reason=layout.reason,
        disk_free_mib=free_mib,
        disk_obstacle=disk_obstacle,
        reflink=reflink,
        memory_mib=memory["MemTotal"],
        memory_available_mib=memory["MemAvailable"],
        userfaultfd=_exists("/dev/userfaultfd") or _exists("/proc/sys/vm/unprivileged_userfaultfd"),
        pagemap_scan=_has_pagemap_scan(),
        vhost_vsock=_exists("/dev/vhost-vsock"),
        same_page_merging=_exists("/sys/kernel/mm/ksm/run"),
        compressed_swap="/zram" in await asyncio.to_thread(_text, "/proc/swaps"),
    )


async def tool_version(name: str, option: str) -> str | None:
    """Give the first line a tool says about its version; None when it cannot be run."""
    try:
        done = await run([name, option], timeout_s=TOOL_TIMEOUT_S)
    except (HostUnfit, TimedOut, CommandFailed):
        return None
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else "version unknown"


def parse_meminfo(text: str) -> dict[str, int]:
    """Give the lines of /proc/meminfo that count kB, in MiB."""
    values = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            values[name] = int(words[0]) // 1024
    return values


def _try_disk(data_root: Path) -> tuple[str | None, bool, int]:
    """Give what hinders writing there, whether files can share blocks, and the free space in MiB."""
    directory = next(path for path in (data_root, *data_root.parents) if path.is_dir())
    free_mib = shutil.disk_usage(directory).free // MIB
    try:
        with (
            tempfile.TemporaryFile(dir=directory) as source,
            tempfile.TemporaryFile(dir=directory) as copy,
        ):
            source.write(bytes(65536))
            source.flush()
            try:
                fcntl.ioctl(copy.fileno(), FICLONE, source.fileno())
            except OSError:  # each file system says no in its own way
                return None, False, free_mib
            return None, True, free_mib
    except OSError as error:
        return str(error), False, free_mib


def _try_namespace() -> str | None:
    """Make a network namespace that goes with this thread."""
    try:
        kernel.unshare(kernel.CLONE_NEWNET)
    except OSError as error:
        return str(error)
    return None


def _try_nftables() -> str | None:
    """Ask nf_tables which generation of rules is in force; any answer but an error means it is there."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.settimeout(1.0)
            netlink.send(struct.pack("=IHHIIBBH", 20, NFT_GETGEN, 1, 1, 0, 0, 0, 0))
            answer = netlink.recv(4096)
    except OSError as error:
        return str(error)
    kind, status = struct.unpack_from("=4xH10xi", answer)
    return os.strerror(-status) if kind == 2 and status else None


def _has_pagemap_scan() -> bool:
    """Scan an empty range of ourselves: a kernel without the call does not know the number (pagemap.rst)."""
    with open("/proc/self/pagemap", "rb") as pagemap:
        try:
            fcntl.ioctl(pagemap, PAGEMAP_SCAN, struct.pack("=12Q", PAGEMAP_SCAN_BYTES, *[0] * 11))
        except OSError as error:
            return error.errno != errno.ENOTTY
    return True


def _obstacle_to_open(path: str) -> str | None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return str(error)
    return None


def _exists(path: str) -> bool:
    return Path(path).exists()


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return ""
