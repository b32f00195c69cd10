"""Tools that read what a guest wrote: run as a user who owns nothing but the one file, without network, within limits.

A file system is a guest's word to a parser of ours. What breaks out of the parser finds one descriptor, no rights, no
way to the network and no other process of its user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from hearth.errors import HostUnfit, TimedOut
from hearth.host.process import SMALL_ENVIRONMENT, TAIL_BYTES
from hearth.host.spawn import Child, setpriv_prefix, spawn
from hearth.host.waiting import until_done

DISK_DESCRIPTOR = 3
DISK = f"/proc/self/fd/{DISK_DESCRIPTOR}"
"""What the tool is told to work on: no directory has to let it through."""
FIRST_USER = 1_860_000_000
USER_COUNT = 33_554_432
"""Above what distributions hand out and below the users of VMMs; drawn anew for every run, so that no two share one."""
BASE_MEMORY_BYTES = 1 << 30
MEMORY_PER_DISK_BYTE = 1 / 1024
"""Checkers keep bitmaps and counts: some MiB for each TiB in order, more for a file system made to confuse."""
READ_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a tool ended: its status (None when a signal ended it), in words, and the end of what it said."""

    status: int | None
    how: str
    tail: str


async def run_on(disk: int, argv: Sequence[str], *, timeout_s: float) -> Outcome:
    """Run a tool on an open file, which it finds as ``DISK``; it dies with us, on cancellation and on timeout.

    Args:
        disk: open for reading and writing; ours, and of the tool's user while that runs.
        argv: program and arguments.
        timeout_s: seconds, of its own processor time, too.

    Raises:
        HostUnfit: it is not installed.
        TimedOut: it took too long.
    """
    if shutil.which(argv[0], path=SMALL_ENVIRONMENT["PATH"]) is None:
        raise HostUnfit(
            f"{argv[0]} is not installed",
            details=f"no {argv[0]} in {SMALL_ENVIRONMENT['PATH']}",
            resolution="install e2fsprogs",
        )
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb", buffering=0) as output, _lent(disk) as user:
        command = [*_prefix(user), *_limits(os.lseek(disk, 0, os.SEEK_END), timeout_s), *argv]
        try:
            child = spawn(command, descriptors={DISK_DESCRIPTOR: disk}, output=writer)
        finally:
            os.close(writer)
        try:
            async with asyncio.timeout(timeout_s):
                tail = await _tail(output)
                ended = await child.wait()
        except TimeoutError as error:
            raise TimedOut(f"{argv[0]} took longer than {timeout_s:g} s", details=" ".join(argv)) from error
        finally:
            await _bury(child)
    return Outcome(status=ended.status, how=str(ended), tail=tail.decode("utf-8", "replace").strip())


@contextlib.contextmanager
def _lent(disk: int) -> Iterator[int | None]:
    """Give the file to a user of its own for a while; without root the tool runs as we do, and this gives None."""
    if os.geteuid() != 0:
        yield None
        return
    user = FIRST_USER + secrets.randbelow(USER_COUNT)
    before = os.fstat(disk)
    os.fchown(disk, user, user)
    try:
        yield user
    finally:
        if stat.S_ISBLK(before.st_mode):  # its node belongs to the host's group of disks
            os.fchown(disk, before.st_uid, before.st_gid)
        else:
            os.fchown(disk, os.geteuid(), os.getegid())


async def _tail(output: IO[bytes]) -> bytes:
    """Read to the end and keep only what comes last: how much a tool says is up to the guest."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), output
    )
    tail = b""
    try:
        while data := await reader.read(READ_BYTES):
            tail = (tail + data)[-TAIL_BYTES:]
    finally:
        transport.close()
    return tail


async def _bury(child: Child) -> None:
    child.kill()
    await until_done(asyncio.ensure_future(child.wait()))


def _prefix(user: int | None) -> list[str]:
    # The death signal comes last: the kernel forgets it when a process changes its user (prctl(2)).
    dying = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--"]
    return dying if user is None else ["unshare", "--net", "--ipc", "--", *setpriv_prefix(user, user), *dying]


def _limits(size_bytes: int, timeout_s: float) -> list[str]:
    memory_bytes = BASE_MEMORY_BYTES + int(size_bytes * MEMORY_PER_DISK_BYTE)
    limits = {"as": memory_bytes, "cpu": int(timeout_s) + 1, "fsize": size_bytes, "nofile": 64, "core": 0}
    return ["prlimit", *(f"--{name}={value}" for name, value in limits.items()), "--"]
