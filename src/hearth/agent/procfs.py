"""What /proc tells: listening ports and processor time, read through a descriptor that no root change moves."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

from hearth.wire.messages import PortInfo

_LISTEN = "0A"
_MAX_FILE_BYTES = 4 * 1024 * 1024


def listening_ports(proc: int) -> list[PortInfo]:
    """List listening TCP sockets, one entry for an address and port, without the calling process's own.

    Source: net/ipv4/tcp_ipv4.c, ``tcp4_seq_show``, for the columns.

    Raises:
        OSError: this system has no such files.
    """
    sockets: dict[int, tuple[str, int]] = {}
    for name in ("net/tcp", "net/tcp6"):
        try:
            text = _read(proc, name)
        except FileNotFoundError:  # a kernel without IPv6
            if name == "net/tcp":
                raise
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                local, _, number = fields[1].partition(":")
                sockets[int(fields[9])] = (_address(local), int(number, 16))
    owners = _owners(proc, sockets)
    found: dict[tuple[int, str], PortInfo] = {}
    for inode, (address, port) in sockets.items():
        pid = owners.get(inode)
        if pid != os.getpid():
            process = _process_name(proc, pid) if pid is not None else None
            found[port, address] = PortInfo(port=port, address=address, process=process, pid=pid)
    return [found[key] for key in sorted(found)]


def session_ticks(proc: int, sessions: set[int]) -> int:
    """Give the processor time, in clock ticks, that the living processes of some (setsid) sessions have used."""
    total = 0
    for pid in _pids(proc):
        try:
            fields = _read(proc, f"{pid}/stat").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in sessions:
            total += int(fields[11]) + int(fields[12])
    return total


def _owners(proc: int, inodes: dict[int, tuple[str, int]]) -> dict[int, int]:
    """Map socket inodes to a process that holds them, as far as we may look."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, int] = {}
    for pid in _pids(proc):
        if len(owners) == len(wanted):
            break
        try:
            directory = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
        except OSError:
            continue
        try:
            for name in os.listdir(directory):
                inode = wanted.get(_link(directory, name))
                if inode is not None:
                    owners.setdefault(inode, pid)
        except OSError:  # it ended
            continue
        finally:
            os.close(directory)
    return owners


def _link(directory: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return ""


def _process_name(proc: int, pid: int) -> str | None:
    try:
        return _read(proc, f"{pid}/comm").rstrip("\n")
    except OSError:
        return None


def _pids(proc: int) -> Iterator[int]:
    return (int(name) for name in os.listdir(proc) if name.isdigit())


def _address(text: str) -> str:
    """Read an address as /proc/net/tcp writes it: 32-bit words in the machine's byte order."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def _read(proc: int, name: str) -> str:
    return read_bytes(proc, name).decode("utf-8", "replace")


def read_bytes(proc: int, name: str) -> bytes:
    """Read a file of /proc whole, up to 4 MiB.

    Raises:
        OSError: there is none, or it is not ours to read.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        pieces = []
        size = 0
        while (piece := os.read(descriptor, 65_536)) and size < _MAX_FILE_BYTES:
            pieces.append(piece)
            size += len(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)
