"""What makes a machine itself: entropy, clock, name, machine id, resolver. For the agent of a machine alone."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_FNV_OFFSET = 0x6C62272E07BB014262B821756295C58D
_FNV_PRIME = 0x0000000001000000000000000000013B


def add_entropy(random_device: int, seed: bytes) -> None:
    """Credit the kernel with random bytes and make it use them at once (random(4)).

    Machines restored from one snapshot otherwise draw the same numbers.

    Raises:
        OSError: not root.
    """
    fcntl.ioctl(random_device, _RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
    try:
        fcntl.ioctl(random_device, _RNDRESEEDCRNG)
    except OSError as error:
        if error.errno != errno.ENODATA:  # not seeded at all yet: then it will be, from these bytes and more
            raise


def set_clock(unix_time_ns: int) -> None:
    """Set the wall clock; the monotonic clock goes on.

    Raises:
        OSError: not root, or a time the kernel does not take.
    """
    time.clock_settime_ns(time.CLOCK_REALTIME, unix_time_ns)


def set_hostname(name: str) -> None:
    """Set the kernel's host name.

    Raises:
        OSError: not root, or longer than 64 bytes.
    """
    socket.sethostname(name)


def machine_id(sandbox_id: str) -> str:
    """Give the machine id of a sandbox (machine-id(5)): the same after every restore, another for every fork.

    FNV-1a in 128 bits (Fowler, Noll, Vo): it must differ, not be secret, and a digest would load OpenSSL.
    """
    value = _FNV_OFFSET
    for byte in os.fsencode(sandbox_id):
        value = (value ^ byte) * _FNV_PRIME % 2**128
    return f"{value:032x}"


def hosts_file(hostname: str) -> str:
    """Give /etc/hosts."""
    return f"127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def resolver_file(servers: list[str]) -> str:
    """Give /etc/resolv.conf."""
    return "".join(f"nameserver {server}\n" for server in servers)
