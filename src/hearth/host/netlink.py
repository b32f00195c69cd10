"""Links, addresses and neighbours by rtnetlink(7), and TAP devices: the handful of requests a machine's network needs.

Messages are pure values with golden tests; ``RouteSocket`` carries them to the namespace of the thread that opened it.
Why not a library: docs/decisions/pyroute2.md.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import Self

from hearth.errors import HostUnfit, InvalidInput

# linux/netlink.h
NLMSG_ERROR = 2
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h
RTM_NEWLINK = 16
RTM_NEWADDR = 20
RTM_NEWNEIGH = 28
IFLA_ADDRESS = 1
IFA_ADDRESS = 1
IFA_LOCAL = 2
NDA_DST = 1
NDA_LLADDR = 2
NUD_PERMANENT = 0x80
IFF_UP = 1
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000

HEADER = struct.Struct("=IHHII")
ERROR = struct.Struct("=i")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBi")
NEIGHBOUR = struct.Struct("=BxxxiHBB")
INTERFACE_REQUEST = struct.Struct("16sH22x")
INTERFACE_NAME_MAX = 15
"""Bytes: IFNAMSIZ less the terminating zero."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One rtnetlink request, still without its header."""

    kind: int
    flags: int
    body: bytes

    def encode(self, sequence: int) -> bytes:
        """Give the bytes to send; the kernel is asked to acknowledge."""
        size = HEADER.size + len(self.body)
        return HEADER.pack(size, self.kind, self.flags | NLM_F_REQUEST | NLM_F_ACK, sequence, 0) + self.body


def bring_up(index: int, *, mac: str | None = None) -> Request:
    """Ask for a link to be set up, with the MAC address ``mac`` (``aa:bb:...``) where one is given."""
    attributes = b"" if mac is None else attribute(IFLA_ADDRESS, mac_bytes(mac))
    return Request(kind=RTM_NEWLINK, flags=0, body=LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP) + attributes)


def add_address(index: int, interface: IPv4Interface) -> Request:
    """Ask for an address with its prefix on a link; the kernel adds the route to its network."""
    packed = interface.ip.packed
    head = ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
    body = head + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    return Request(kind=RTM_NEWADDR, flags=NLM_F_CREATE | NLM_F_EXCL, body=body)


def add_neighbour(index: int, address: IPv4Address, mac: str) -> Request:
    """Ask for a permanent neighbour entry: packets to ``address`` leave at once, without a question by ARP."""
    head = NEIGHBOUR.pack(socket.AF_INET, index, NUD_PERMANENT, 0, 0)
    body = head + attribute(NDA_DST, address.packed) + attribute(NDA_LLADDR, mac_bytes(mac))
    return Request(kind=RTM_NEWNEIGH, flags=NLM_F_CREATE | NLM_F_REPLACE, body=body)


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute: length, kind, value, padded to four bytes (netlink(7))."""
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def mac_bytes(mac: str) -> bytes:
    """Give the six bytes of ``aa:bb:cc:dd:ee:ff``."""
    return bytes.fromhex(mac.replace(":", ""))


class RouteSocket:
    """A blocking rtnetlink socket in the network namespace of the thread that makes it. The kernel answers at once."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, request: Request) -> None:
        """Send one request and wait for the kernel's word.

        Raises:
            OSError: the kernel refused; ``errno`` is its reason.
        """
        self._sequence += 1
        self._socket.send(request.encode(self._sequence))
        answer = self._socket.recv(65536)
        _, kind, _, sequence, _ = HEADER.unpack_from(answer)
        if kind != NLMSG_ERROR or sequence != self._sequence:
            raise OSError(f"rtnetlink answered message {sequence} of kind {kind} to request {self._sequence}")
        (status,) = ERROR.unpack_from(answer, HEADER.size)
        if status:
            raise OSError(-status, os.strerror(-status), f"rtnetlink request {request.kind}")


def open_tap(name: str) -> int:
    """Make the TAP device ``name`` in this thread's namespace and give its descriptor, which the caller closes.

    It carries Ethernet frames, each behind a virtio-net header (IFF_VNET_HDR). It lives as long as its last descriptor
    and is never made persistent: its one user is the VMM, so it goes with the VMM, whatever happened to the daemon, and
    nothing needs sweeping. Closing the last descriptor takes the kernel some 25 ms.

    Raises:
        InvalidInput: the name is too long for an interface.
        HostUnfit: there is no TUN driver, or this process may not use it.
    """
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= INTERFACE_NAME_MAX:
        raise InvalidInput("invalid interface name", details=f"{name!r} has not 1 to {INTERFACE_NAME_MAX} bytes")
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostUnfit(
            "TAP devices are not to be had on this host",
            details=str(error),
            resolution="load the driver with 'modprobe tun' and run the daemon as root",
        ) from error
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, INTERFACE_REQUEST.pack(encoded, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
