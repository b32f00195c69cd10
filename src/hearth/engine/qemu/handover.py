"""What a VMM is given instead of rights: open files, listening sockets, a log; all as descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.engine.qemu.command import Descriptor

VMM_LOG = "vmm.log"
LOG_TAIL_BYTES = 2000
LOG_MAX_BYTES = 1 << 20


def connect(path: Path) -> socket.socket:
    """Give a connected, non-blocking socket to a VMM's listening end.

    Raises:
        OSError: nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    connection.setblocking(False)
    return connection


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at ``path`` (0600); our copy is closed when the VMM has its own, so that nobody polls for files."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(1)
        yield listener


@contextlib.contextmanager
def log_file(directory: Path) -> Iterator[int]:
    """Open the file that takes what the VMM itself says (0600)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(directory / VMM_LOG, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a VMM reads and writes. ``layers`` lie between ``rootfs`` and ``overlay``; a restored one has no kernel."""

    kernel: Path | None = None
    initramfs: Path | None = None
    rootfs: Path | None = None
    layers: Sequence[Path] = ()
    overlay: Path | None = None
    state: Path | None = None

    def descriptors(self) -> Iterator[tuple[int, Path, int]]:
        """Give number, path and flags of each."""
        read_only = [
            (Descriptor.KERNEL, self.kernel),
            (Descriptor.INITRAMFS, self.initramfs),
            (Descriptor.BASE, self.rootfs),
            *((Descriptor.LAYER + number, path) for number, path in enumerate(self.layers)),
            (Descriptor.STATE, self.state),
        ]
        yield from ((number, path, os.O_RDONLY) for number, path in read_only if path is not None)
        if self.overlay is not None:
            # It lies in the VMM's own directory: no link of its making is followed.
            yield Descriptor.OVERLAY, self.overlay, os.O_RDWR | os.O_NOFOLLOW


@contextlib.contextmanager
def opened(files: Files) -> Iterator[dict[int, int]]:
    """Open what a VMM reads and writes; closed here once the VMM has its own copies."""
    with contextlib.ExitStack() as stack:
        descriptors: dict[int, int] = {}
        for number, path, flags in files.descriptors():
            descriptor = os.open(path, flags | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            descriptors[number] = descriptor
        yield descriptors


def read_log(directory: Path) -> str:
    """Give the end of what the VMM said; its directory is the VMM's own, so no link in it is followed."""
    try:
        descriptor = os.open(directory / VMM_LOG, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES)).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def trim_logs(machines: Path) -> list[str]:
    """Empty the logs that have grown past ``LOG_MAX_BYTES``; they are appended to, so VMMs write on from the start.

    A guest that breaks its devices over and over has the VMM complain each time, at some MB a second.

    Args:
        machines: holds one directory for each machine.

    Returns:
        The machines whose logs they were.
    """
    trimmed = []
    for directory in machines.iterdir():
        try:
            descriptor = os.open(directory / VMM_LOG, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # it has none, or goes at this moment
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size > LOG_MAX_BYTES:
                os.ftruncate(descriptor, 0)
                trimmed.append(directory.name)
        finally:
            os.close(descriptor)
    return trimmed
